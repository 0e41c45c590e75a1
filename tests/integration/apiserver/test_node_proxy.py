"""Logs, exec and port-forward through the API server, to an agent that the test plays."""

import asyncio
import contextlib
import json
import signal
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from pki import profiles

NS = "default"
POD = {"metadata": {"name": "web"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "example"}]}}
MB = 1 << 20


class Agent:
    """A kubelet's TLS server. `seen`: (client's common name, path) of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.received = 0
        self.go_on = asyncio.Event()
        self.sockets: set[Any] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        subject = request.transport.get_extra_info("peercert")["subject"]
        self.sockets.add(request.transport.get_extra_info("socket"))
        names = [value for part in subject for key, value in part if key == "commonName"]
        self.seen.append((names[0], request.path_qs))
        kind = request.path.split("/")[1]
        if kind == "containerLogs":
            if "previous" in request.query:
                return web.Response(status=400, text="previous terminated container not found\n")
            if "follow" in request.query:
                stream = web.StreamResponse()
                await stream.prepare(request)
                await stream.write(b"one\n")
                await self.go_on.wait()
                await stream.write(b"two\n")
                return stream
            return web.Response(text="one\ntwo\n")
        if "refuse" in request.query.get("command", ""):
            return web.Response(status=400, text="container is not running")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(text=f"{request.method} {request.path}")
        socket = web.WebSocketResponse(protocols=["v5.channel.k8s.io", "v4.channel.k8s.io"], max_msg_size=0)
        await socket.prepare(request)
        if "flood" in request.query.get("command", ""):
            for _ in range(64):
                await socket.send_bytes(b"\x01" + bytes(MB))
        async for message in socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            self.received += len(message.data)
            if message.data[0] == 0:
                await socket.send_bytes(b"\x01" + message.data[1:].upper())
            elif message.data[:2] == b"\xff\x00":
                break
        failed = "fail" in request.query.get("command", "")
        cause = {"causes": [{"reason": "ExitCode", "message": "3"}]}
        status: dict[str, Any] = {"status": "Success"}
        if failed:
            status = {"status": "Failure", "reason": "NonZeroExitCode", "message": "exit 3", "details": cause}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
        return socket


@pytest.fixture
async def agent(server: Any) -> AsyncIterator[Agent]:
    """Serves as node `n`, whose Node and pod `web` exist."""
    played = Agent()
    runner = web.ServerRunner(web.Server(played.handle), shutdown_timeout=0.2)
    await runner.setup()
    issued = server._ca.issue(profiles.NODEAGENT_SERVER, datetime.now(UTC), node="n", names=["127.0.0.1"])
    path = server.layout.etc / "agent.pem"
    path.write_bytes(issued.certificate + issued.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.layout.ca_cert))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(path)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    await register(server, runner.addresses[0][1])
    yield played
    await runner.cleanup()
    async with asyncio.timeout(10):
        while any(s.fileno() >= 0 for s in played.sockets):  # noqa: ASYNC110 - TLS says goodbye in its own time
            await asyncio.sleep(0.005)


async def register(server: Any, port: int) -> None:
    """The Node `n` at `port`, its pod, and a ServiceAccount for that."""
    state = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    admin = server.connect()
    for path, body in (
        (f"/api/v1/namespaces/{NS}/serviceaccounts", {"metadata": {"name": "default"}}),
        ("/api/v1/nodes", {"metadata": {"name": "n"}}),
        (f"/api/v1/namespaces/{NS}/pods", POD),
    ):
        assert admin("POST", path, body).status in (201, 409)
    admin.ok("PATCH", "/api/v1/nodes/n/status", {"status": state}, kind="application/merge-patch+json")


def session(server: Any) -> aiohttp.ClientSession:
    context = server._context("admin")
    return aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(ssl=context))


async def in_thread(function: Any, *args: Any, **more: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **more))


async def test_logs(kubectl: Any, agent: Agent) -> None:
    assert await in_thread(kubectl, "logs", "web", "--tail=5") == "one\ntwo\n"
    who, path = agent.seen[-1]
    assert who == "kube-apiserver-kubelet-client"
    assert path == "/containerLogs/default/web/c?tailLines=5"
    said = await in_thread(kubectl, "logs", "web", "--previous", ok=False)
    assert "previous terminated container not found" in said
    assert "container x is not valid for pod web" in await in_thread(kubectl, "logs", "web", "-c", "x", ok=False)


async def test_reloading_certificates_leaves_running_streams_alone(agent: Agent, server: Any) -> None:
    path = f"/api/v1/namespaces/{NS}/pods/web/log"
    async with asyncio.timeout(20), session(server) as http, http.get(f"{path}?follow=true") as following:
        assert await following.content.readline() == b"one\n"
        server._process.send_signal(signal.SIGHUP)
        while " reloaded parts=" not in server.log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with http.get(path) as answer:
            assert await answer.text() == "one\ntwo\n"
        agent.go_on.set()
        assert await following.content.read() == b"two\n"


async def test_exec_with_input_and_exit_code(kubectl: Any, agent: Agent) -> None:
    assert await in_thread(kubectl, "exec", "-i", "web", "--", "cat", stdin="hello") == "HELLO"
    assert agent.seen[-1][1] == "/exec/default/web/c?command=cat&input=1&output=1&error=1"
    failed = await in_thread(kubectl, "exec", "-i", "web", "--", "fail", stdin="", ok=False)
    assert "command terminated with exit code 3" in failed
    refused = await in_thread(kubectl, "exec", "web", "--", "refuse", ok=False)
    assert "container is not running" in refused


async def test_exec_needs_its_own_right(agent: Agent, server: Any) -> None:
    path = f"/api/v1/namespaces/{NS}/pods/web/exec?command=true&stdout=1"
    refused = server.connect()("GET", path, Impersonate_User="mallory")
    assert refused.status == 403
    assert 'cannot get resource "pods/exec"' in refused.json["message"]
    assert not agent.seen


async def test_a_slow_reader_does_not_fill_the_server(agent: Agent, server: Any) -> None:
    """The agent sends 64 MB to a client that does not read: it must come to a stop, and the server stay small."""
    before = memory(server._process.pid)
    async with session(server) as http:
        path = f"/api/v1/namespaces/{NS}/pods/web/exec?command=flood&stdout=1"
        async with http.ws_connect(path, protocols=["v4.channel.k8s.io"], max_msg_size=0) as socket:
            await asyncio.sleep(0.5)  # the time that a server without back-pressure would need to swallow it all
            assert memory(server._process.pid) - before < 24 * MB
            total = 0
            while total < 64 * MB:
                total += len((await socket.receive(timeout=10)).data) - 1
            assert total == 64 * MB


async def test_a_slow_agent_does_not_fill_the_server(server: Any) -> None:
    """An agent that answers 101 to SPDY and never reads: the client's writes must come to a stop."""
    halted, over = asyncio.Event(), asyncio.Event()

    writers: list[asyncio.StreamWriter] = []

    async def spdy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /portForward/default/web")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nfirst")
        await writer.drain()
        assert await reader.readexactly(5) == b"\x80\x03abc"
        writer.write(b"second")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await halted.wait()
        over.set()

    issued = server._ca.issue(profiles.NODEAGENT_SERVER, datetime.now(UTC), node="n", names=["127.0.0.1"])
    path = server.layout.etc / "agent.pem"
    path.write_bytes(issued.certificate + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    agent = await asyncio.start_server(spdy, "127.0.0.1", 0, ssl=context)
    await register(server, agent.sockets[0].getsockname()[1])
    before = memory(server._process.pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=server._context("admin"))
    writer.write(
        f"POST /api/v1/namespaces/{NS}/pods/web/portforward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(5) == b"first"
    writer.write(b"\x80\x03abc")
    assert await reader.readexactly(6) == b"second"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            for _ in range(64):
                writer.write(bytes(MB))
                await writer.drain()
    assert memory(server._process.pid) - before < 24 * MB
    halted.set()
    await over.wait()
    agent.close()
    for each in (writer, *writers):
        each.transport.abort()
        with contextlib.suppress(OSError):
            await each.wait_closed()
    await agent.wait_closed()
    await asyncio.sleep(0.05)  # TLS lets go of the sockets below it in its own time


async def test_an_agent_that_is_away(kubectl: Any, agent: Agent, server: Any) -> None:
    await register(server, 1)
    said = await in_thread(kubectl, "logs", "web", ok=False)
    assert "error dialing the node" in said


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
