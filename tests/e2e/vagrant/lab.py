"""`vagrant up` for real, and ways to ask its machines: the lab of the slow lane.

    python -m tests.e2e.vagrant.lab FOLDER      a lab in FOLDER (new or empty), and a shell in which `vagrant` works it
    WHERRY_VAGRANT_LAB=FOLDER pytest --slow …    meanwhile, in another shell: the tests use it, and leave it up

Everything lies in one folder and in the hypervisor's namespaces: VAGRANT_HOME, the machines' state, libvirt's images.
What is the test's alone (disks that need not survive a power cut, the box's well-known key) is said in a Vagrantfile of
VAGRANT_HOME; the project's own is used as it is.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.vagrant import box
from tests.e2e.vagrant.hypervisor import Hypervisor

PROJECT = Path(__file__).resolve().parents[3]
KUBECTL = Path(sys.executable).parent / "kubectl"
OFFLINE = box.CACHE / "offline"
# What the tests ask machines for, beyond what a machine of ours needs.
EXTRA_PACKAGES = ("ipset", "conntrack")
HOME = """Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.provider "libvirt" do |libvirt|
    libvirt.disk_driver cache: "unsafe"
    libvirt.emulator_path = File.join(ENV["VAGRANT_HOME"], "qemu")
  end
end
"""
# Software emulation keeps what it has translated: a gigabyte a machine, unless told otherwise, and libvirt cannot.
EMULATOR = """#!/bin/bash
words=()
for word in "$@"; do
    [ "$word" = tcg ] && word=tcg,tb-size=256
    words+=("$word")
done
exec qemu-system-x86_64 "${words[@]}"
"""


@dataclass
class Machine:
    """One machine, entered by ssh over Vagrant's management network. Its methods raise AssertionError on failure."""

    name: str
    lab: "Lab"

    def run(self, command: str, timeout: float = 120.0, stdin: str | None = None) -> str:
        """`command` in a shell as root: what it printed on standard output."""
        done = self.attempt(command, timeout, stdin)
        assert done.returncode == 0, f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(
        self, command: str, timeout: float = 120.0, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        quoted = "sudo bash -c '" + command.replace("'", "'\\''") + "'"
        return self.lab.enter([*self.lab.ssh(), self.name, quoted], timeout, stdin)

    def copy(self, source: Path, target: str) -> None:
        """A file or a folder to the path `target` there."""
        origin = f"{source}/" if source.is_dir() else str(source)
        command = ["rsync", "-a", "--mkpath", "--rsync-path=sudo rsync", "-e", " ".join(self.lab.ssh())]
        done = self.lab.enter([*command, origin, f"{self.name}:{target}"], 120)
        assert done.returncode == 0, done.stderr

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").strip()


@dataclass
class Lab:
    """The machines of the Vagrantfile, once `up` has been called."""

    folder: Path
    hypervisor: Hypervisor
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took, for vagrant/README.md."""

    @property
    def environment(self) -> Mapping[str, str]:
        wheel = next((OFFLINE / "wheels").glob("wherry-*.whl")).name
        return {
            **os.environ,
            "VAGRANT_HOME": str(self.folder / "home"),
            "VAGRANT_DOTFILE_PATH": str(self.folder / "state"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            "WHERRY_BOX": "wherry-debian12",
            "WHERRY_OFFLINE": str(OFFLINE),
            "WHERRY_SOURCE": f"/offline/wheels/{wheel}",
            "KUBECACHEDIR": str(self.folder / "kubecache"),
        }

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "state" / "kubeconfig"

    def prepare(self) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True)
        (home / "Vagrantfile").write_text(HOME)
        (home / "qemu").write_text(EMULATOR)
        (home / "qemu").chmod(0o755)
        packed = box.ensure() / "wherry-debian12.box"
        subprocess.run(
            ["vagrant/provision/offline", str(OFFLINE), *EXTRA_PACKAGES],
            cwd=PROJECT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.vagrant("box", "add", "--name", "wherry-debian12", str(packed))

    def enter(self, command: list[str], timeout: float, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run `command` where the machines can be reached."""
        inside = self.hypervisor.command("nice", "-n", "5", *command)
        return subprocess.run(
            inside,
            input=stdin or "",
            text=True,
            capture_output=True,
            timeout=timeout,
            env=self.environment,
            cwd=PROJECT,
        )

    def vagrant(self, *arguments: str, timeout: float = 600.0) -> str:
        done = self.enter(["vagrant", *arguments], timeout)
        with (self.folder / "vagrant.log").open("a") as log:
            log.write(f"$ vagrant {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        assert done.returncode == 0, f"vagrant {' '.join(arguments)}:\n{(done.stdout + done.stderr)[-6000:]}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """Every machine of the Vagrantfile and what Vagrant says of it: running, shutoff, not_created …"""
        rows = (line.split(",") for line in self.vagrant("status", "--machine-readable").splitlines())
        return {row[1]: row[3] for row in rows if len(row) > 3 and row[2] == "state"}

    def ssh(self) -> list[str]:
        """ssh, up to and without the machine's name. One connection a machine, kept: logging in costs seconds there."""
        config = self.folder / "ssh"
        shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.folder}/%h.ssh", "-o", "ControlPersist=60"]
        return ["ssh", "-F", str(config), *shared]

    def learn_ssh(self) -> None:
        """Where the machines are: after each `up` that made one."""
        (self.folder / "ssh").write_text(self.vagrant("ssh-config"))

    def machine(self, name: str) -> Machine:
        return Machine(name, self)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """kubectl on the host, with the host's own client certificate."""
        done = self.enter([str(KUBECTL), f"--kubeconfig={self.kubeconfig}", *arguments], timeout, stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.kubectl(*arguments, "-o", "json"))

    def ready_nodes(self) -> set[str]:
        return {
            node["metadata"]["name"]
            for node in self.json("get", "nodes")["items"]
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
        }


def kept(folder: Path) -> Lab:
    """The lab that `python -m tests.e2e.vagrant.lab FOLDER` keeps."""
    return Lab(folder, Hypervisor.running(folder / "libvirt"))


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A lab without machines yet; `vagrant up` makes them. Whatever is left at the end goes with the hypervisor."""
    with Hypervisor(folder / "libvirt") as hypervisor:
        made = Lab(folder, hypervisor)
        made.prepare()
        yield made


if __name__ == "__main__":
    with lab(Path(sys.argv[1]).resolve()) as shell:
        subprocess.run(shell.hypervisor.command(os.environ.get("SHELL", "bash")), env=shell.environment, check=False)
