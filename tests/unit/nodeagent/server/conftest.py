"""The other end of a wire in memory: a SPDY client that a test drives frame by frame."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from nodeagent.server.spdy import frames
from nodeagent.server.spdy.connection import Connection
from nodeagent.server.spdy.dictionary import DICTIONARY
from nodeagent.server.spdy.frames import Control, Data
from nodeagent.server.spdy.stream import Stream


class Wire:
    """`spdy.connection.Wire`, and the peer's end of it."""

    def __init__(self) -> None:
        self.to_us: asyncio.Queue[bytes] = asyncio.Queue()
        self.written = bytearray()
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return await self.to_us.get()

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        await asyncio.sleep(0)


class Peer:
    """A client. `frames()`: what we have sent it since it last asked."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.decoder = frames.Decoder()
        self.packer = zlib.compressobj(zdict=DICTIONARY)
        self.unpacker = zlib.decompressobj(zdict=DICTIONARY)
        self.next = 1

    def send(self, data: bytes) -> None:
        self.wire.to_us.put_nowait(data)

    def hang_up(self) -> None:
        self.send(b"")

    def block(self, headers: dict[str, str]) -> bytes:
        raw = struct.pack("!I", len(headers))
        for text in (word.encode() for pair in headers.items() for word in pair):
            raw += struct.pack("!I", len(text)) + text
        return self.packer.compress(raw) + self.packer.flush(zlib.Z_SYNC_FLUSH)

    def open(self, *, flags: int = 0, **headers: str) -> int:
        identity, self.next = self.next, self.next + 2
        body = struct.pack("!IIH", identity, 0, 0) + self.block(headers)
        self.send(frames.control(frames.SYN_STREAM, body, flags))
        return identity

    def data(self, stream: int, payload: bytes, *, fin: bool = False) -> None:
        self.send(frames.data_head(stream, len(payload), int(fin)) + payload)

    def grant(self, stream: int, count: int) -> None:
        self.send(frames.control(frames.WINDOW_UPDATE, struct.pack("!II", stream, count)))

    async def frames(self) -> list[Control | Data]:
        await settle()
        sent = bytes(self.wire.written)
        self.wire.written.clear()
        return list(self.decoder.feed(sent))

    async def received(self, stream: int) -> bytes:
        """The data among what we have sent on `stream` since it last asked."""
        return b"".join(f.payload for f in await self.frames() if isinstance(f, Data) and f.stream == stream)


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def connect(peer: Peer) -> AsyncIterator[Callable[..., Any]]:
    """Serves the peer: gives the list of its streams, to be filled, and the running connection."""
    tasks: list[asyncio.Task[None]] = []

    def start(opened: Callable[[Stream], None] | None = None) -> tuple[list[Stream], asyncio.Task[None], Connection]:
        streams: list[Stream] = []
        connection = Connection(peer.wire, opened or streams.append)
        task = asyncio.create_task(connection.run())
        tasks.append(task)
        return streams, task, connection

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def peers() -> type[Peer]:
    """For tests with several."""
    return Peer
