"""Control planes made by `wherry init` in a directory of their own, run as processes; machines that join them."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controlplane.cli.main import main
from controlplane.client.errors import Unreachable
from controlplane.client.rest import Client, from_kubeconfig
from pki.layout import Layout

WHERRY = [sys.executable, "-m", "controlplane.cli.main"]


def wait_for(condition: Callable[[], Any], seconds: float = 15.0, what: object = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.01)
    return found


def wherry(*arguments: str, ok: bool | None = True, given: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the command in this process (a second saved each time); `ok`: whether it must succeed, None for either;
    `given`: what it reads."""
    with ThreadPoolExecutor(1) as thread:  # asynchronous tests have a loop of their own in this one
        result = thread.submit(CliRunner().invoke, main, list(arguments), input=given).result(60)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    done = subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)
    assert ok is None or (done.returncode == 0) == ok, done
    return done


class ControlPlane:
    """An API server and controllers, made by `wherry init`."""

    def __init__(self, root: Path, *controller_flags: str) -> None:
        self.root, self.layout, self._flags = root, Layout.under(root), controller_flags
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.init()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.known_pin = ""

    def init(self, *more: str) -> str:
        return wherry(
            "init", "--advertise-address", "127.0.0.1", "--node-name", "cp", "--port", str(self.port),
            "--root", str(self.root), *more,
        ).stdout  # fmt: skip

    def launch(self, name: str, module: str, *flags: str) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, "--config", str(self.layout.config(name)), *flags],
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        self.launch("apiserver", "controlplane.apiserver", "--bind-address", "127.0.0.1")
        wait_for(self._answers, 20, lambda: self.log("apiserver"))
        self.launch("controllers", "controlplane.controllers", *self._flags)
        wait_for(lambda: "synced=true" in self.log("controllers"), 20, lambda: self.log("controllers"))

    def _answers(self) -> bool:
        assert self.processes["apiserver"].poll() is None, self.log("apiserver")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return "serving" in self.log("apiserver")
        return False

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    # --- what administrators do

    def token(self, *more: str) -> str:
        return wherry("token", "create", "--root", str(self.root), *more).stdout.strip()

    def pin(self) -> str:
        return next(word for word in self.token("--print-join-command").split() if word.startswith("sha256:"))

    def run(self, work: Callable[[Client], Coroutine[Any, Any, Any]], kubeconfig: Path | None = None) -> Any:
        """What `work(client)` returns, as the administrator or the user of `kubeconfig`."""

        async def main() -> Any:
            client = from_kubeconfig(str(kubeconfig or self.layout.kubeconfig("admin")))
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(main())

    def reachable(self, kubeconfig: Path) -> bool:
        with contextlib.suppress(Unreachable):
            self.run(lambda client: client.json("GET", "/version"), kubeconfig)
            return True
        return False


class Machine:
    """A machine with nothing on it but a name."""

    def __init__(self, plane: ControlPlane, root: Path, name: str) -> None:
        self.plane, self.root, self.name, self.layout = plane, root, name, Layout.under(root)

    def arguments(self, token: str, *more: str, pin: str = "", address: str = "") -> list[str]:
        return [
            "join", address or f"127.0.0.1:{self.plane.port}", "--token", token, "--node-name", self.name,
            "--discovery-token-ca-cert-hash", pin or self.plane.known_pin, "--root", str(self.root), *more,
        ]  # fmt: skip

    def join(self, token: str, *more: str, ok: bool | None = True, **rest: str) -> subprocess.CompletedProcess[str]:
        return wherry(*self.arguments(token, *more, **rest), ok=ok)

    def launch(self, token: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*WHERRY, *self.arguments(token, *more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def pem(self, name: str) -> bytes:
        return self.layout.identity(name).read_bytes()


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ControlPlane]]:
    """Start control planes, with flags for the controllers."""
    started: list[ControlPlane] = []

    def start(*controller_flags: str, before: Callable[[ControlPlane], None] = lambda plane: None) -> ControlPlane:
        plane = ControlPlane(tmp_path_factory.mktemp("plane"), *controller_flags)
        started.append(plane)
        before(plane)
        plane.start()
        plane.known_pin = plane.pin()
        return plane

    yield start
    for plane in started:
        plane.stop()
    for plane in started:
        for name in plane.processes:
            assert "Traceback" not in plane.log(name), plane.log(name)


@pytest.fixture(scope="module")
def plane(planes: Callable[..., ControlPlane]) -> ControlPlane:
    return planes()


@pytest.fixture
def command() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    return wherry


_number = iter(range(1, 10_000))


@pytest.fixture
def machines(plane: ControlPlane, tmp_path: Path) -> Callable[..., Machine]:
    """Machines of the test's own: `machines()`, `machines("name")`, `machines(plane=other)`."""

    def make(name: str = "", *, on: ControlPlane | None = None) -> Machine:
        number = next(_number)
        name = name or f"n{number}"
        return Machine(on or plane, tmp_path / f"{name}-{number}", name)

    return make


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("WHERRY_"):
            monkeypatch.delenv(name)
