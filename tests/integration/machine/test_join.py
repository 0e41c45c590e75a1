"""From an empty directory to a node: init, token, join; and every way in which joining is refused."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import (
    CERTIFICATESIGNINGREQUESTS,
    LEASES,
    NODES,
    SECRETS,
    SERVICES,
)
from controlplane.client.rest import Client
from pki.provision import alternative_names

Plane = Any
Machine = Any
Machines = Callable[..., Machine]


def says(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """It failed in its own words: one line of what, one of what to do."""
    assert done.returncode == 1, done
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_a_machine_joins(plane: Plane, machines: Machines, command: Callable[..., Any]) -> None:
    machine = machines("worker-1")
    token = plane.token()
    assert "node worker-1" in machine.join(token).stdout
    layout = machine.layout
    agent = layout.kubeconfig("nodeagent")
    who = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

    async def whoami(client: Client) -> Any:
        answer = await client.json("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", who)
        return answer["status"]["userInfo"]

    seen = plane.run(whoami, agent)
    assert seen["username"] == "system:node:worker-1" and "system:nodes" in seen["groups"]
    proxy = layout.kubeconfig("netproxy")
    assert plane.run(whoami, proxy)["username"] == "system:kube-proxy"
    assert plane.run(lambda c: c.list(SERVICES), proxy)["items"]
    with pytest.raises(StatusError, match="forbidden"):
        plane.run(lambda c: c.list(SECRETS), proxy)
    serving = x509.load_pem_x509_certificate(machine.pem("nodeagent-server"))
    assert alternative_names(serving) == {"worker-1", "127.0.0.1"}
    for name in ("nodeagent", "nodeagent-server", "netproxy"):
        assert layout.identity(name).stat().st_mode & 0o777 == 0o600
        assert layout.identity(name).parent.stat().st_mode & 0o777 == 0o700
    assert not list(layout.identity("nodeagent").parent.glob("*.key")), "the key is in one place"
    assert not layout.ca_key.exists()
    listed = command("token", "list", "-o", "json", "--root", str(plane.root))
    used = [t for t in json.loads(listed.stdout) if t["used_for"] == "worker-1"]
    assert [(t["state"], t["id"]) for t in used] == [("used", token.partition(".")[0])]


def test_joining_again_changes_nothing(plane: Plane, machines: Machines) -> None:
    machine, token = machines(), plane.token()
    machine.join(token)
    before = {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()}
    assert "already" in machine.join(token).stdout
    assert before == {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()}
    elsewhere = machine.join(token, "--node-name", "another", ok=False)
    says(elsewhere, f"as node {machine.name}", "--force")
    says(machine.join(token, pin="sha256:" + "0" * 64, ok=False), "another cluster", "wherry reset")
    machine.join(plane.token(), "--force")
    for name in ("nodeagent", "nodeagent-server", "netproxy"):
        assert machine.pem(name) != before[machine.layout.identity(name)]


def test_settings_added_by_hand_stay(plane: Plane, machines: Machines) -> None:
    machine = machines()
    machine.layout.etc.mkdir(parents=True)
    machine.layout.config("nodeagent").write_text("max_pods: 7\nnode_name: old\n")
    machine.join(plane.token(), "--proxy-mode", "ipvs")
    import yaml

    settings = yaml.safe_load(machine.layout.config("nodeagent").read_text())
    assert (settings["max_pods"], settings["node_name"]) == (7, machine.name)
    assert yaml.safe_load(machine.layout.config("netproxy").read_text())["proxy_mode"] == "ipvs"


class TestRefused:
    def test_nobody_there(self, plane: Plane, machines: Machines) -> None:
        done = machines().join(plane.token(), "--patience", "1s", address="127.0.0.1:1", ok=False)
        says(done, "cannot reach 127.0.0.1:1", "is it up?")

    def test_wrong_hash(self, plane: Plane, machines: Machines) -> None:
        machine = machines()
        says(machine.join(plane.token(), pin="sha256:" + "ab" * 32, ok=False), "wrong hash", plane.known_pin)
        assert not machine.layout.ca_cert.exists(), "nothing is trusted"

    def test_malformed(self, plane: Plane, machines: Machines) -> None:
        token = plane.token()
        says(machines().join(token, pin="sha256:12", ok=False), "another form")
        says(machines().join("no-token", ok=False), "malformed token")
        says(machines().join(token, address="127.0.0.1", ok=False), "no HOST:PORT")
        says(machines("Bad_Name").join(token, ok=False), "no name for a node")

    @pytest.mark.parametrize("wrong", ["identifier", "secret"])
    def test_unknown_token(self, plane: Plane, machines: Machines, wrong: str) -> None:
        identifier, _, secret = plane.token().partition(".")
        bad = f"zzzzzz.{secret}" if wrong == "identifier" else f"{identifier}.{'z' * 16}"
        says(machines().join(bad, ok=False), "unknown token", "the bootstrap token is unknown")

    def test_expired_token(self, plane: Plane, machines: Machines) -> None:
        token = plane.token()
        name = f"bootstrap-token-{token.partition('.')[0]}"
        body = {"stringData": {"expiration": clock.rfc3339(clock.wall_time() - 5)}}
        plane.run(lambda c: c.patch(SECRETS, name, body, "kube-system"))
        says(machines().join(token, ok=False), "expired token", "expired at")
        # who does not know the secret is not told
        says(machines().join(f"{token[:7]}{'a' * 16}", ok=False), "unknown token")

    def test_used_token(self, plane: Plane, machines: Machines) -> None:
        first, token = machines(), plane.token()
        first.join(token)
        second = machines()
        says(second.join(token, ok=False), "used token", first.name)
        assert not second.layout.identity("nodeagent").exists()

    def test_deleted_token(self, plane: Plane, machines: Machines, command: Callable[..., Any]) -> None:
        token = plane.token()
        command("token", "delete", token, "--root", str(plane.root))
        command("token", "delete", token, "--root", str(plane.root), ok=False)
        says(machines().join(token, ok=False), "unknown token")

    def test_a_ready_node_of_that_name(self, plane: Plane, machines: Machines) -> None:
        name = "lively"
        ready = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": clock.rfc3339()}]}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}

        async def live(client: Client) -> None:
            await client.create(NODES, node)
            await client.patch(NODES, name, {"status": ready}, subresource="status")
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": clock.rfc3339_micro()}
            metadata = {"name": name, "namespace": "kube-node-lease"}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await client.create(LEASES, lease)

        async def beat(client: Client) -> None:
            body = {"spec": {"renewTime": clock.rfc3339_micro()}}
            await client.patch(LEASES, name, body, "kube-node-lease")

        plane.run(live)
        stop = threading.Event()

        def heart() -> None:
            while not stop.wait(0.3):
                plane.run(beat)

        thread = threading.Thread(target=heart)
        thread.start()
        token = plane.token()
        try:
            says(machines(name).join(token, ok=False), f"a node named {name} is Ready", "--node-name")
        finally:
            stop.set()
            thread.join()
        silent = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
        plane.run(lambda c: c.patch(NODES, name, {"status": silent}, subresource="status"))
        assert f"node {name}" in machines(name).join(token).stdout, (
            "one that is gone may be replaced, by the same token"
        )


def test_two_machines_with_one_token(plane: Plane, machines: Machines) -> None:
    for _ in range(2):
        token, both = plane.token(), [machines(), machines()]
        running = [machine.launch(token) for machine in both]
        ended = [(each.communicate(timeout=60)[1], each.returncode) for each in running]
        assert sorted(code for _, code in ended) == [0, 1], ended
        loser = next(said for said, code in ended if code)
        assert "already used" in loser, loser
        assert sum(machine.layout.config("netproxy").exists() for machine in both) == 1


def test_a_token_for_many(plane: Plane, machines: Machines) -> None:
    token = plane.token("--uses", "unlimited", "--ttl", "0", "--description", "for the lab")
    for _ in range(2):
        machines().join(token)


FILES = ("ca", "joining", "nodeagent", "nodeagent.conf", "nodeagent-server", "netproxy", "netproxy.conf", "settings")


def _file(machine: Machine, name: str) -> Path:
    layout = machine.layout
    places = {
        "ca": layout.ca_cert, "joining": layout.identity("nodeagent").with_name("joining.key"),
        "settings": layout.config("nodeagent"),
    }  # fmt: skip
    if name in places:
        return Path(places[name])
    return Path(layout.etc / name) if name.endswith(".conf") else Path(layout.identity(name))


@pytest.mark.parametrize("point", FILES)
def test_killed_in_the_middle(plane: Plane, machines: Machines, point: str) -> None:
    machine, token = machines(), plane.token()
    path = _file(machine, point)
    with machine.launch(token) as process:
        while not path.exists() and process.poll() is None:
            pass
        process.kill()
        process.communicate()
    machine.join(token)
    assert plane.reachable(machine.layout.kubeconfig("nodeagent"))
    assert not list(machine.root.rglob(".*.pem.*")), "no half files"


def test_killed_after_the_token_was_spent(plane: Plane, machines: Machines) -> None:
    """The certificate was issued, but the machine died before it had it: the same command finds it."""
    machine, token = machines(), plane.token()
    plane.signal("controllers", signal.SIGSTOP)
    try:
        process = machine.launch(token)

        async def asked(client: Client) -> list[Any]:
            found = (await client.list(CERTIFICATESIGNINGREQUESTS))["items"]
            return [c for c in found if c["spec"]["username"] == f"system:bootstrap:{token[:6]}"]

        _until(lambda: plane.run(asked))
        process.kill()
        process.communicate()
    finally:
        plane.signal("controllers", signal.SIGCONT)
    _until(lambda: plane.run(asked)[0].get("status", {}).get("certificate"))
    says(machines().join(token, ok=False), "used token")
    machine.join(token)
    assert plane.reachable(machine.layout.kubeconfig("nodeagent"))


def _until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
