"""exec, attach and port-forward in every protocol that Kubernetes has had, with the fake runtime."""

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.api.status import StatusError
from nodeagent.runtime.fake import FakeSession, Outcome
from nodeagent.server import upgrade
from nodeagent.server.http import Request, Response, Server
from nodeagent.server.remote_spdy import PROTOCOLS as SPDY_PROTOCOLS
from nodeagent.server.remote_spdy import SpdyRemote
from nodeagent.server.remote_websocket import PROTOCOLS as WEBSOCKET_PROTOCOLS
from nodeagent.server.remotecommand import Options, serve
from nodeagent.server.spdy import frames
from nodeagent.server.spdy.frames import Data
from nodeagent.server.streaming import remote
from nodeagent.server.websocket import unmask

Peer = Any
COMMAND = ["sh"]


async def begin() -> FakeSession:
    """Echoes its input in capitals, complains, and ends with 3."""
    return FakeSession(lambda argv, data: Outcome(3, data.upper(), b"bad"), COMMAND, wants_stdin=True)


@pytest.mark.parametrize("protocol", SPDY_PROTOCOLS)
@pytest.mark.parametrize("tty", [False, True])
async def test_spdy(peer: Peer, protocol: str, tty: bool) -> None:
    version = int(protocol[1]) if protocol[0] == "v" else 1
    options = Options(True, True, not tty, tty)
    remote = SpdyRemote(peer.wire, protocol, options)
    wanted = [
        "error",
        "stdin",
        "stdout",
        *(["stderr"] if not tty else []),
        *(["resize"] if tty and version > 2 else []),
    ]
    identities = {kind: peer.open(streamtype=kind) for kind in wanted}
    session = await begin()

    async def this() -> FakeSession:
        return session

    async def run() -> None:
        await remote.prepare()
        await serve(remote, this, options, "doing", COMMAND)
        await remote.close()

    running = asyncio.create_task(run())
    if "resize" in identities:
        peer.data(identities["resize"], b'{"Width":120,"Hei')
        peer.data(identities["resize"], b'ght":50}\n{"Width":0,"Height":1}\n{"Width":"x"}\n')
    peer.data(identities["stdin"], b"hello")
    await peer.frames()
    peer.data(identities["stdin"], b"", fin=True)
    sent = [f for _ in range(5) for f in await peer.frames()]
    assert text(sent, identities["stdout"]) == b"HELLO"
    assert text(sent, identities.get("stderr", 0)) == (b"" if tty else b"bad")
    said = text(sent, identities["error"])
    if version >= 4:
        status = json.loads(said)
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    else:
        assert said.startswith(b"command terminated with non-zero exit code")
    ended = {f.stream for f in sent if isinstance(f, Data) and f.flags & frames.FIN}
    assert ended == set(identities.values())
    assert session.size == ((120, 50) if "resize" in identities else None)
    assert not running.done()  # it waits for the client to hang up first
    peer.hang_up()
    await running


async def test_spdy_streams_that_were_not_asked_for_are_refused(peer: Peer) -> None:
    remote = SpdyRemote(peer.wire, "v4.channel.k8s.io", Options(False, True, False, False))
    for kind in ("stdin", "error", "error", "stdout"):
        peer.open(streamtype=kind)
    preparing = asyncio.create_task(remote.prepare())
    kinds = [f.type for f in await peer.frames()]
    assert kinds == [frames.RST_STREAM, frames.SYN_REPLY, frames.RST_STREAM, frames.SYN_REPLY]
    await preparing
    peer.hang_up()
    await remote.close()


def text(sent: list[Any], stream: int) -> bytes:
    return b"".join(f.payload for f in sent if isinstance(f, Data) and f.stream == stream)


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    async def handle(request: Request) -> Response:
        tty = request.flag("tty")
        return await remote(request, begin, Options(True, True, not tty, tty), "doing", COMMAND)

    server = Server(handle)
    yield "127.0.0.1", await server.listen("127.0.0.1", 0, None)
    await server.close()


async def ask(address: tuple[str, int], *headers: str) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write("\r\n".join(["GET /exec HTTP/1.1", "Host: x", "Connection: Upgrade", *headers, "", ""]).encode())
    return await reader.readuntil(b"\r\n\r\n"), reader, writer


@pytest.mark.parametrize("protocol", WEBSOCKET_PROTOCOLS)
async def test_websocket(address: tuple[str, int], protocol: str) -> None:
    offered = [f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []
    head, reader, writer = await ask(address, "Upgrade: websocket", "Sec-WebSocket-Key: eA==", *offered)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert ((b"\r\nSec-WebSocket-Protocol: %s\r\n" % protocol.encode()) in head) == bool(protocol)
    based = "base64" in protocol
    greeting = await message(reader)
    assert greeting == (1, b"1") if based else (2, b"\x01")

    def send(channel: int, data: bytes) -> None:
        payload = b"%d" % channel + base64.b64encode(data) if based else bytes((channel,)) + data
        mask = os.urandom(4)
        writer.write(struct.pack("!BB", 0x82, 0x80 | len(payload)) + mask + unmask(payload, mask))

    send(0, b"hello")
    if not protocol.startswith("v5"):
        writer.close()  # the only way to end the input
        await writer.wait_closed()
        return
    send(255, b"\x00")
    assert await message(reader) == (2, b"\x01HELLO")
    assert await message(reader) == (2, b"\x02bad")
    opcode, status = await message(reader)
    assert (opcode, status[0]) == (2, 3)
    assert json.loads(status[1:])["details"]["causes"][0]["message"] == "3"
    assert (await message(reader))[0] == 8
    writer.close()
    await writer.wait_closed()


async def message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        first, size = await reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        return first & 15, await reader.readexactly(size)


async def test_negotiation(address: tuple[str, int]) -> None:
    for offered, answer, agreed in (
        (["X-Stream-Protocol-Version: v9.channel.k8s.io, v3.channel.k8s.io"], b"101", b"v3.channel.k8s.io"),
        (["X-Stream-Protocol-Version: v9.x", "X-Stream-Protocol-Version: v4.channel.k8s.io"], b"101", b"v4.channel"),
        (["X-Stream-Protocol-Version: v9.channel.k8s.io"], b"403", b""),
        ([], b"101", b""),
    ):
        head, reader, writer = await ask(address, "Upgrade: SPDY/3.1", *offered)
        assert head.split()[1] == answer
        assert agreed in head
        if answer == b"403":
            said = await reader.readuntil(b" channel.k8s.io]")
            assert b"client supports [v9.channel.k8s.io], server accepts [v5.channel.k8s.io" in said
        writer.close()
        await writer.wait_closed()
    head, _, writer = await ask(address, "Upgrade: h2c")
    assert head.split()[1] == b"400"
    writer.close()
    await writer.wait_closed()


def test_negotiation_of_no_protocol() -> None:
    headers = {"upgrade": "SPDY/3.1", "connection": "Upgrade", "x-stream-protocol-version": "other"}
    request = Request("POST", "/", {}, headers, b"", None, None)  # type: ignore[arg-type]
    with pytest.raises(StatusError, match="unable to negotiate protocol"):
        upgrade.negotiate(request, ("portforward.k8s.io",))


async def test_an_attached_client_that_was_let_go_is_told(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its output has ended, the container has not."""
    monkeypatch.setattr("nodeagent.server.remotecommand._EXIT_WITHIN_S", 0.01)
    session = FakeSession(None, (), wants_stdin=False)
    session._chunks.put_nowait((1, b"much"))
    session._chunks.put_nowait(None)

    async def attach() -> FakeSession:
        return session

    options = Options(False, True, False, False)
    remote = SpdyRemote(peer.wire, "v4.channel.k8s.io", options)
    identities = {kind: peer.open(streamtype=kind) for kind in ("error", "stdout")}
    await remote.prepare()
    running = asyncio.create_task(serve(remote, attach, options, "error attaching to container", ()))
    sent: list[Any] = []
    async with asyncio.timeout(5):
        while not text(sent, identities["error"]):
            sent += await peer.frames()
            await asyncio.sleep(0.002)
    assert text(sent, identities["stdout"]) == b"much"
    assert "did not keep up" in json.loads(text(sent, identities["error"]))["message"]
    peer.hang_up()
    await running
    await remote.close()


async def test_a_frozen_client_does_not_hold_up_the_servers_end(peers: Any) -> None:
    """It takes the upgrade and never reads, while the process floods it."""

    sessions: list[FakeSession] = []

    async def flood() -> FakeSession:
        session = FakeSession(None, (), wants_stdin=False)
        for _ in range(4000):
            session._chunks.put_nowait((1, bytes(16_384)))
        sessions.append(session)
        return session

    async def handle(request: Request) -> Response:
        return await remote(request, flood, Options(False, True, False, False), "doing", COMMAND)

    server = Server(handle)
    port = await server.listen("127.0.0.1", 0, None)
    writers = []
    for headers in (
        ["Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io"],
        ["Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Protocol: v4.channel.k8s.io"],
    ):
        _, reader, writer = await ask(("127.0.0.1", port), *headers)
        peer = peers()
        for kind in ("error", "stdout"):
            peer.open(streamtype=kind)
        if "SPDY" in headers[0]:
            while not peer.wire.to_us.empty():
                writer.write(peer.wire.to_us.get_nowait())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writers.append((reader, writer))
    async with asyncio.timeout(10):
        while len(sessions) < 2 or any(session._chunks.qsize() == 4000 for session in sessions):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await server.close()
    assert all(session._chunks.qsize() for session in sessions)
    for _, writer in writers:
        writer.transport.abort()
