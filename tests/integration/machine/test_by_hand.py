"""Where no controller approves: an administrator says yes or no, or nobody says anything."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS
from controlplane.client.rest import Client


@pytest.fixture(scope="module")
def plane(planes: Callable[..., Any]) -> Any:
    return planes("--controllers", "*,-certificatesigningrequest-approving-controller")


def pending(plane: Any, user: str = "system:") -> dict[str, Any]:
    async def look(client: Client) -> list[dict[str, Any]]:
        found = (await client.list(CERTIFICATESIGNINGREQUESTS))["items"]
        return [
            c for c in found if c["spec"]["username"].startswith(user) and not c.get("status", {}).get("conditions")
        ]

    deadline = time.monotonic() + 20
    while not (found := plane.run(look)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return dict(found[0])


def decide(plane: Any, request: dict[str, Any], kind: str, message: str = "") -> None:
    condition = {"type": kind, "status": "True", "reason": "ByHand", "message": message}
    body = {**request, "status": {"conditions": [condition]}}
    plane.run(lambda client: client.update(CERTIFICATESIGNINGREQUESTS, body, subresource="approval"))


def test_denied_then_let_in(plane: Any, machines: Callable[..., Any]) -> None:
    machine, token = machines(), plane.token()
    process = machine.launch(token)
    decide(plane, pending(plane), "Denied", "not this one")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "denied: not this one" in said and len(said.strip().splitlines()) == 2, said
    assert not machine.layout.identity("nodeagent").exists()
    # another attempt is another request, and the token was not spent
    process = machine.launch(token)
    for _ in range(3):
        decide(plane, pending(plane), "Approved")
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert f"node {machine.name}" in out


def test_nobody_says_anything(plane: Any, machines: Callable[..., Any]) -> None:
    machine, token = machines(), plane.token()
    done = machine.join(token, "--timeout", "1s", ok=False)
    assert done.returncode == 1
    assert "timed out" in done.stderr and "kubectl certificate approve csr-" in done.stderr, done.stderr
    decide(plane, pending(plane, "system:bootstrap:" + token[:6]), "Approved")
    done = machine.join(token, "--timeout", "1s", ok=False)  # goes on where it was: the next request is the node's own
    assert "is still waiting to be approved" in done.stderr, done.stderr
    assert machine.layout.identity("nodeagent").exists()
