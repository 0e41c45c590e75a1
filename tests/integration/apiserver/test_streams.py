"""exec, attach, cp and port-forward: real kubectls, the real API server, the real node server; processes of this
machine stand in for containers (tests/linux and tests/e2e have those)."""

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import random
import re
import signal
import socket
import ssl
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.api.status import StatusError
from nodeagent.runtime import dial
from nodeagent.runtime.exec import Session
from nodeagent.runtime.interface import RuntimeFailure
from nodeagent.server.http import Request, Response, Server
from nodeagent.server.streaming import Streaming
from pki import profiles

MB = 1 << 20
NS = "default"
CONTAINERS = [{"name": "c", "image": "example", "stdin": True}, {"name": "stopped", "image": "example"}]
POD = {"metadata": {"name": "web"}, "spec": {"nodeName": "n", "containers": CONTAINERS}}
WEBSOCKET: dict[str, str] = {}
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}


class Here:
    """Runtime and lookup of one running container, whose processes are this machine's."""

    def __init__(self) -> None:
        self.runtime = self
        self.processes: list[asyncio.subprocess.Process] = []
        self.sessions: list[Session] = []
        self.upgrades: set[str] = set()

    def worker(self, namespace: str, pod: str, uid: str = "") -> Any:
        want = SimpleNamespace(uid="u-1", container=lambda name: None)
        return SimpleNamespace(want=want)

    async def running(self, worker: Any, name: str) -> Any:
        if name != "c":
            raise StatusError(500, "InternalError", f'container not found ("{name}")')
        return SimpleNamespace(id="c")

    async def sandbox(self, worker: Any) -> Any:
        return SimpleNamespace(id="s")

    async def dial(self, sandbox_id: str, port: int) -> socket.socket:
        return await dial.dial("", port)

    async def attach(self, container_id: str) -> Session:
        return await self.exec(container_id, ["sh", "-c", "echo attached; cat; exit 7"], tty=False, stdin=True)

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Session:
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if tty:
            ours, theirs = pty.openpty()
            outputs, feed, fds = {1: ours}, ours, [theirs] * 3
        else:
            out, into = os.pipe()
            err, errinto = os.pipe()
            source, feed = os.pipe() if stdin else (os.open("/dev/null", os.O_RDONLY), -1)
            outputs, fds = {1: out, 2: err}, [source, into, errinto]
        for fd in {*outputs.values(), feed} - {-1}:
            os.set_inheritable(fd, False)
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=fds[0], stdout=fds[1], stderr=fds[2], start_new_session=True
            )
        except OSError as error:
            for fd in {*outputs.values(), feed} - {-1}:
                os.close(fd)
            raise RuntimeFailure(f'exec: "{command[0]}": executable file not found in $PATH') from error
        finally:
            for fd in set(fds):
                os.close(fd)
        self.processes.append(process)

        async def reap() -> None:
            code = await process.wait()
            if not exited.done():
                exited.set_result(code if code >= 0 else 128 - code)

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        process.reaper = asyncio.ensure_future(reap())  # type: ignore[attr-defined]
        link: Any = SimpleNamespace(close=kill)
        session = Session(link, outputs, feed, terminal=tty, exited=exited)
        self.sessions.append(session)
        return session


@pytest.fixture
async def node(server: Any) -> AsyncIterator[Here]:
    here = Here()
    streams = Streaming(here)  # type: ignore[arg-type]
    routes = {"exec": streams.exec, "attach": streams.attach, "portForward": streams.port_forward}

    async def handle(request: Request) -> Response:
        here.upgrades.add(request.headers.get("upgrade", ""))
        first, *rest = [p for p in request.path.split("/") if p]
        return await routes[first](request, rest)

    agent = Server(handle)
    issued = server._ca.issue(profiles.NODEAGENT_SERVER, datetime.now(UTC), node="n", names=["127.0.0.1"])
    path = server.layout.etc / "agent.pem"
    path.write_bytes(issued.certificate + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    port = await agent.listen("127.0.0.1", 0, context)
    state = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    admin = server.connect()
    for path_, body in (
        (f"/api/v1/namespaces/{NS}/serviceaccounts", {"metadata": {"name": "default"}}),
        ("/api/v1/nodes", {"metadata": {"name": "n"}}),
        (f"/api/v1/namespaces/{NS}/pods", POD),
    ):
        assert admin("POST", path_, body).status in (201, 409)
    merge = "application/merge-patch+json"
    admin.ok("PATCH", "/api/v1/nodes/n/status", {"status": state}, kind=merge)
    running = {"phase": "Running", "containerStatuses": [], "conditions": [{"type": "Ready", "status": "True"}]}
    admin.ok("PATCH", f"/api/v1/namespaces/{NS}/pods/web/status", {"status": running}, kind=merge)
    yield here
    await agent.close()
    for process in here.processes:
        await process.reaper  # type: ignore[attr-defined]


class Kubectl:
    """One of the kubectls, speaking one of the two protocols."""

    def __init__(self, binary: Path, server: Any, protocol: dict[str, str]) -> None:
        cache = server.log.parent / "cache" / binary.name
        self.binary = str(binary)
        self.environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "KUBECACHEDIR": str(cache), **protocol}

    async def start(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(self.binary, *arguments, env=self.environment, **streams)

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        pipe = asyncio.subprocess.PIPE
        with tempfile.TemporaryFile() as file:  # not a pipe: who writes to it would see it break
            file.write(stdin)
            file.seek(0)
            process = await self.start(*arguments, stdin=file, stdout=pipe, stderr=pipe)
            async with asyncio.timeout(60):
                out, err = await process.communicate()
        assert b"panic:" not in err
        assert process.returncode is not None
        return process.returncode, out, err


@pytest.fixture(params=["websocket", "spdy"])
async def kubectl(request: pytest.FixtureRequest, binary: Path, server: Any, node: Here) -> AsyncIterator[Kubectl]:
    yield Kubectl(binary, server, WEBSOCKET if request.param == "websocket" else SPDY)
    if "refused" not in request.node.name:  # kubectl tries SPDY when a WebSocket is refused
        assert node.upgrades == {"websocket" if request.param == "websocket" else "SPDY/3.1"}


async def test_exec(kubectl: Kubectl, node: Here) -> None:
    assert await kubectl("exec", "web", "-c", "c", "--", "sh", "-c", "echo out; echo err >&2") == (
        0,
        b"out\n",
        b"err\n",
    )
    assert (await kubectl("exec", "-i", "web", "-c", "c", "--", "tr", "a-z", "A-Z", stdin=b"hello"))[:2] == (
        0,
        b"HELLO",
    )
    code, _, said = await kubectl("exec", "web", "-c", "c", "--", "sh", "-c", "exit 42")
    assert (code, said) == (42, b"command terminated with exit code 42\n")
    code, _, said = await kubectl("exec", "web", "-c", "c", "--", "no-such-program")
    assert code == 1
    assert b'error executing command in container: exec: "no-such-program": executable file not found' in said


async def test_much_data_both_ways_and_a_process_that_does_not_read(kubectl: Kubectl, node: Here) -> None:
    data = random.Random(1).randbytes(20 * MB)
    code, out, said = await kubectl("exec", "-i", "web", "-c", "c", "--", "cat", stdin=data)
    assert (code, len(out), said) == (0, len(data), b"")
    assert out == data
    # It ends with most of its input unread: its exit code must not get lost.
    code, out, said = await kubectl("exec", "-i", "web", "-c", "c", "--", "sh", "-c", "head -c 1; exit 5", stdin=data)
    assert (code, out) == (5, data[:1]), said


async def test_a_client_that_leaves_takes_its_process_with_it(kubectl: Kubectl, node: Here) -> None:
    pipe = asyncio.subprocess.PIPE
    client = await kubectl.start(
        "exec", "-i", "web", "-c", "c", "--", "sh", "-c", "echo up; sleep 1000", stdin=pipe, stdout=pipe
    )
    assert client.stdout is not None
    assert await client.stdout.readline() == b"up\n"
    client.kill()
    await client.wait()
    async with asyncio.timeout(10):
        await node.processes[-1].wait()


async def test_a_terminal(kubectl: Kubectl, node: Here) -> None:
    """kubectl on a terminal of its own: size, change of size, ^D, exit code."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    client = await kubectl.start(
        "exec", "-it", "web", "-c", "c", "--", "sh", "-c", "echo up; cat; exit 3",
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    seen = b""

    async def until(text: bytes) -> None:
        nonlocal seen
        async with asyncio.timeout(20):
            while text not in seen:
                await asyncio.sleep(0.01)
                with contextlib.suppress(BlockingIOError):
                    seen += os.read(ours, 4096)

    os.set_blocking(ours, False)
    await until(b"up")
    await wait_for_size(node.sessions[-1], (40, 100))
    os.write(ours, b"typed\n")
    await until(b"typed\r\ntyped")
    termios.tcsetwinsize(theirs, (50, 120))
    client.send_signal(signal.SIGWINCH)
    await wait_for_size(node.sessions[-1], (50, 120))
    os.write(ours, b"\x04")
    async with asyncio.timeout(20):
        assert await client.wait() == 3
    os.close(theirs)
    os.close(ours)


async def wait_for_size(session: Session, expected: tuple[int, int]) -> None:
    async with asyncio.timeout(20):
        while tuple(os.get_terminal_size(session._stdin))[::-1] != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_attach(kubectl: Kubectl, node: Here) -> None:
    """The end of the container is the end of the session, and no failure of it."""
    code, out, _ = await kubectl("attach", "-i", "web", "-c", "c", stdin=b"words")
    assert (code, out) == (0, b"attached\nwords")


async def test_what_is_refused(kubectl: Kubectl, node: Here) -> None:
    code, _, said = await kubectl("exec", "web", "-c", "other", "--", "true")
    assert code == 1
    assert b"container other is not valid for pod web" in said
    code, _, said = await kubectl("exec", "web", "-c", "stopped", "--", "true")
    assert (code, said) == (1, b'error: unable to upgrade connection: container not found ("stopped")\n')


async def test_copy_both_ways(kubectl: Kubectl, node: Here, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(8 * MB)
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "there").mkdir()
    assert (await kubectl("cp", "-c", "c", str(tmp_path / "in"), f"web:{tmp_path}/there/x"))[0] == 0
    assert (await kubectl("cp", "-c", "c", f"web:{tmp_path}/there/x", str(tmp_path / "back")))[0] == 0
    assert (tmp_path / "back").read_bytes() == data


async def test_port_forward(kubectl: Kubectl, node: Here) -> None:
    """Many connections at once, large transfers, half-closed ones, a target that closes, one that is not there."""
    data = random.Random(3).randbytes(4 * MB)

    async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = await reader.read(-1)
        writer.write(hashlib.sha256(seen).hexdigest().encode() + data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    target = await asyncio.start_server(digest, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    pipe = asyncio.subprocess.PIPE
    client = await kubectl.start("port-forward", "web", f":{port}", ":1", stdout=pipe, stderr=pipe)
    assert client.stdout is not None and client.stderr is not None
    ports = []
    async with asyncio.timeout(30):
        while len(ports) < 2:
            line = (await client.stdout.readline()).decode()
            if found := re.match(r"Forwarding from 127.0.0.1:(\d+) ->", line):
                ports.append(int(found[1]))

    async def ask(n: int) -> None:
        sent = random.Random(n).randbytes(2 * MB)
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == hashlib.sha256(sent).hexdigest().encode() + data
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(60):
        await asyncio.gather(*(ask(n) for n in range(8)))
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[1])
        assert await reader.read(-1) == b""
        writer.close()
        await writer.wait_closed()
        said = b""
        while b"refused" not in said:
            line = await client.stderr.readline()
            assert line, said
            said += line
    assert b"error forwarding port 1 to pod web_default" in said
    assert b"IPv4: dial tcp4 127.0.0.1:1: connect: connection refused" in said
    with contextlib.suppress(ProcessLookupError):
        client.terminate()
    await client.communicate()
    target.close()
    await target.wait_closed()


PYTHON_CLIENT = """
import json, sys
from kubernetes import client, config
from kubernetes.stream import portforward, stream

def api():  # a client of its own for each: `stream` changes the client that it is given
    return client.CoreV1Api(config.new_client_from_config(sys.argv[1]))

command = ["sh", "-c", "read x; echo got $x; echo err >&2; exit 9"]
session = stream(
    api().connect_get_namespaced_pod_exec, "web", "default", container="c", command=command, stdin=True, stdout=True,
    stderr=True, tty=False, _preload_content=False,
)
session.write_stdin("word\\n")
session.run_forever(timeout=20)
port = int(sys.argv[2])
forward = portforward(api().connect_get_namespaced_pod_portforward, "web", "default", ports=f"{port},1")
for number in (port, 1):
    forward.socket(number).settimeout(20)
forward.socket(port).sendall(b"hello\\n")
answer = forward.socket(port).recv(100).decode()
forward.socket(1).recv(1)
print(json.dumps([session.read_stdout(), session.read_stderr(), session.returncode, answer, forward.error(1)]))
"""


async def test_the_python_client(server: Any, node: Here) -> None:
    """It speaks the older WebSocket protocols: v4 channels, and ports as channels."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    command = [sys.executable, "-c", PYTHON_CLIENT, str(server.kubeconfig), str(port)]
    # A process of its own, because it leaves connections open.
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(40):
        out, _ = await process.communicate()
    *said, error = json.loads(out)
    assert said == ["got word\n", "err\n", 9, "you said hello\n"]
    assert "error forwarding port 1 to pod web_default" in error
    target.close()
    await target.wait_closed()
