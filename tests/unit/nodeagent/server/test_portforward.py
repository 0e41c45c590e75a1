"""Port forwarding over SPDY, stream by stream: what belongs together, what is refused, how ends are passed on."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nodeagent.runtime.interface import RuntimeFailure
from nodeagent.server.portforward import PortForward
from nodeagent.server.spdy import frames
from nodeagent.server.spdy.frames import Control, Data

Peer = Any


class Pod:
    """What is dialled: the pod's ends of connections."""

    def __init__(self) -> None:
        self.dialled: list[int] = []
        self.ends: list[socket.socket] = []

    async def dial(self, port: int) -> socket.socket:
        self.dialled.append(port)
        if port == 81:
            raise RuntimeFailure("nobody listens")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.ends.append(theirs)
        return ours


@pytest.fixture
async def pod(peer: Peer) -> AsyncIterator[Pod]:
    made = Pod()
    task = asyncio.create_task(PortForward(peer.wire, made.dial, "web_default", "u-1").run())
    yield made
    peer.hang_up()
    async with asyncio.timeout(5):
        await task
    for end in made.ends:
        end.close()


def kinds(sent: list[Any]) -> list[int]:
    return [f.type for f in sent if isinstance(f, Control)]


async def data_of(peer: Peer, stream: int, *, to_the_end: bool = False) -> bytes:
    """What comes on a stream: something, or everything."""
    seen, ended = b"", False
    async with asyncio.timeout(5):
        while not ended and not (seen and not to_the_end):
            for frame in await peer.frames():
                if isinstance(frame, Data) and frame.stream == stream:
                    seen += frame.payload
                    ended |= bool(frame.flags & frames.FIN)
            await asyncio.sleep(0.001)
    return seen


async def received(end: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(end, 1000)


@pytest.mark.parametrize("numbered", [True, False])
async def test_pairs_and_half_closed_connections(peer: Peer, pod: Pod, numbered: bool) -> None:
    """Clients of old do not number their requests, but open the error stream just before."""
    for n in range(2):
        request = {"requestid": str(n)} if numbered else {}
        error = peer.open(streamtype="error", port="80", **request)
        data = peer.open(streamtype="data", port="80", **request)
    peer.data(data, b"question", fin=True)
    await peer.frames()
    assert pod.dialled == [80, 80]
    assert await received(pod.ends[1]) == b"question"
    assert await received(pod.ends[1]) == b""  # the client's end of input, and only that
    pod.ends[1].send(b"answer")
    pod.ends[1].close()
    assert await data_of(peer, data, to_the_end=True) == b"answer"
    peer.data(error, b"", fin=True)
    pod.ends[0].send(b"still open")
    assert await data_of(peer, data - 4) == b"still open"


async def test_a_failure_is_told_on_the_error_stream(peer: Peer, pod: Pod) -> None:
    error = peer.open(streamtype="error", port="81", requestid="1")
    data = peer.open(streamtype="data", port="81", requestid="1")
    said = await data_of(peer, error, to_the_end=True)
    assert said == b"error forwarding port 81 to pod web_default, uid u-1: nobody listens"
    peer.data(data, b"crosses it")
    assert frames.GOAWAY not in kinds(await peer.frames())


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "other", "port": "80", "requestid": "1"},
        {"streamtype": "data", "port": "0", "requestid": "1"},
        {"streamtype": "data", "port": "65536", "requestid": "1"},
        {"streamtype": "data", "port": "-1", "requestid": "1"},
        {"streamtype": "data", "requestid": "1"},
    ],
)
async def test_nonsense_is_refused(peer: Peer, pod: Pod, headers: dict[str, str]) -> None:
    peer.open(**headers)
    assert kinds(await peer.frames()) == [frames.RST_STREAM]
    assert pod.dialled == []


async def test_two_streams_of_a_kind_are_no_pair(peer: Peer, pod: Pod) -> None:
    for _ in range(2):
        peer.open(streamtype="data", port="80", requestid="1")
    assert kinds(await peer.frames()) == [frames.SYN_REPLY, frames.RST_STREAM]


async def test_a_stream_that_stays_alone_is_given_up(peer: Peer, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.server.portforward._PARTNER_WITHIN_S", 0.01)
    peer.open(streamtype="error", port="80", requestid="1")
    sent: list[Any] = []
    async with asyncio.timeout(5):
        while frames.RST_STREAM not in kinds(sent):
            sent += await peer.frames()
            await asyncio.sleep(0.001)


async def test_a_connection_that_breaks_is_no_clean_end(peer: Peer) -> None:
    """A truncated download must not look like a whole one."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    async def dial(port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        return sock

    forward = PortForward(peer.wire, dial, "web_default", "u-1")
    task = asyncio.create_task(forward.run())
    with contextlib.closing(listener):
        peer.open(streamtype="error", port="80", requestid="1")
        data = peer.open(streamtype="data", port="80", requestid="1")
        await peer.frames()
        theirs, _ = await asyncio.to_thread(listener.accept)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close means RST
        theirs.close()
        sent: list[Any] = []
        async with asyncio.timeout(5):
            while frames.RST_STREAM not in kinds(sent):
                sent += await peer.frames()
                await asyncio.sleep(0.001)
        assert not any(isinstance(f, Data) and f.stream == data and f.flags & frames.FIN for f in sent)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
