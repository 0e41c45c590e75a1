"""Three provisioned machines as tests ask things of them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.machines.fleet import Fleet, Machine

KUBECTL = Path(sys.executable).parent / "kubectl"
MACHINE = "/project/vagrant/provision/machine"
CONTROL_PLANE, NODE = ["apiserver", "controllers", "scheduler"], ["pods", "runtime", "nodeagent", "netproxy"]


@dataclass
class Site:
    """The machines and what is asked of them."""

    fleet: Fleet
    n1: Machine
    n2: Machine
    n3: Machine
    kubeconfig: Path
    pin: str = ""
    first_token: str = ""
    """The one that n2 joined by."""
    said: dict[str, str] = field(default_factory=dict)
    """What provisioning each machine printed."""

    # Provisioning.

    def provision(self, machine: Machine, *arguments: str) -> str:
        sources = (
            "--offline",
            "/offline",
            "--source",
            "/wheels/" + next(Path(self.fleet.place, "wheels").glob("*")).name,
        )
        return machine.run(MACHINE, *arguments, "--address", machine.address, "--node-name", machine.name, *sources)

    def make_control_plane(self) -> None:
        self.said["n1"] = self.provision(self.n1, "control-plane")
        self.kubeconfig.write_bytes(self.n1.path("/etc/wherry/admin.conf").read_bytes())

    def make_node(self, machine: Machine, join: str) -> None:
        self.said[machine.name] = self.provision(machine, "node", "--join", join)

    def install_only(self, machine: Machine) -> None:
        """What joining needs, and no more."""
        machine.run(MACHINE, "install", "--offline", "/offline", "--source", self._wheel)

    def join_words(self) -> str:
        """HOST:PORT --token … --discovery-token-ca-cert-hash …, good for one machine."""
        return self.n1.run("wherry", "token", "create", "--print-join-command").strip().removeprefix("wherry join ")

    def joined(self, machine: Machine) -> bool:
        return machine.path("/etc/wherry/netproxy.yaml").exists()

    @property
    def _wheel(self) -> str:
        return "/wheels/" + next((self.fleet.place / "wheels").glob("*")).name

    # Asking.

    @property
    def machines(self) -> Sequence[Machine]:
        return self.n1, self.n2, self.n3

    def units(self, machine: Machine) -> list[str]:
        daemons = [*(CONTROL_PLANE if machine is self.n1 else []), *NODE]
        return [f"wherry-{daemon}.service" for daemon in daemons]

    def kubectl(self, *words: str) -> str:
        command = self.fleet.command(str(KUBECTL), f"--kubeconfig={self.kubeconfig}", *words)
        environ = {**os.environ, "KUBECACHEDIR": str(self.fleet.place / "kubecache")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.kubectl(*words, "-o", "json"))

    def ready_nodes(self) -> set[str]:
        return {
            node["metadata"]["name"]
            for node in self.json("get", "nodes")["items"]
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
        }

    def example_pods(self) -> dict[str, dict[str, Any]]:
        """The example's pods by name: {node, restarts, ready}."""
        found = {}
        for pod in self.json("get", "pods", "-l", "app=hello")["items"]:
            statuses = pod["status"].get("containerStatuses", ())
            found[pod["metadata"]["name"]] = {
                "node": pod["spec"].get("nodeName"),
                "restarts": sum(s["restartCount"] for s in statuses),
                "ready": bool(statuses) and all(s["ready"] for s in statuses),
            }
        return found

    def answers(self, machine: Machine, url: str, tries: int = 8) -> set[str]:
        """What `url` says, asked from `machine` several times, each on a connection of its own."""
        script = f"""
from urllib.request import urlopen
for _ in range({tries}):
    print(urlopen("{url}", timeout=3).read().decode(), end="")
"""
        return set(machine.run("python3", "-", stdin=script).splitlines())


def fingerprint(machine: Machine) -> dict[str, str]:
    """Every file that provisioning has a hand in, with its content, owner, mode and time of change."""
    places = "/etc/wherry /etc/systemd/system /etc/modules-load.d /etc/sysctl.d /var/lib/wherry/images /etc/passwd"
    listing = machine.run(
        "sh",
        "-c",
        f"find {places} /opt/wherry/bin /opt/wherry/.installed-* /usr/local/bin -type f -printf '%p %u %m %T@\\n'",
    )
    return {line.split()[0]: hashlib.sha256(line.encode()).hexdigest() for line in listing.splitlines()}
