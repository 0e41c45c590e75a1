"""One SPDY stream as its user sees it: bytes to read until the end, bytes to write, two halves that close apart.

Nothing waits in memory without bound: what the peer sends ahead of the reader is limited by the window that we grant,
and by the connection, which stops reading altogether for a peer that heeds no windows (connection.py); what we write
waits for the peer's window and for the connection to take it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nodeagent.server.spdy.errors import Reset, StreamError

if TYPE_CHECKING:
    from nodeagent.server.spdy.connection import Connection

_FRAME = 64 * 1024


class Stream:
    """Made by a Connection. `headers`: the opening frame's, names in lower case."""

    def __init__(self, connection: Connection, identity: int, headers: Mapping[str, str], window: int) -> None:
        self.id = identity
        self.headers = headers
        self.buffered = 0  # bytes received and not read yet
        self.window = window  # bytes that the peer takes now
        self.failed = ""  # why it ended before its end
        self.local_done = False  # we have said our last word
        self.remote_done = False  # the peer has
        self._connection = connection
        self._discarding = False
        self._chunks: deque[bytes] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    async def read(self) -> bytes:
        """What has arrived, at least a byte; empty at the end. Raises StreamError when there will be no proper end."""
        while not self._chunks:
            if self.failed:
                raise StreamError(self.failed)
            if self.remote_done:
                return b""
            self._readable.clear()
            await self._readable.wait()
        chunk = self._chunks.popleft()
        self.buffered -= len(chunk)
        self._connection.consumed(self, len(chunk))
        return chunk

    def discard(self) -> None:
        """Nobody reads any more: what comes is taken and thrown away, so that it holds up no other stream."""
        self._discarding = True
        waste, self.buffered = self.buffered, 0
        self._chunks.clear()
        if waste:
            self._connection.consumed(self, waste)

    async def write(self, data: bytes) -> None:
        """Send; returns when the connection has taken all of it. Raises StreamError, OSError."""
        view = memoryview(data)
        while view:
            size = min(len(view), _FRAME, await self._room())
            self.window -= size
            await self._connection.send_data(self.id, view[:size])
            view = view[size:]

    async def close(self) -> None:
        """Our half is over (FIN). Once; what the peer still sends can be read."""
        if not self.local_done and not self.failed:
            self.local_done = True
            await self._connection.send_fin(self)

    async def reset(self, why: Reset = Reset.CANCEL) -> None:
        """Both halves are over, now."""
        if not self.failed and not (self.local_done and self.remote_done):
            self.fail(f"reset: {why.name}")
            await self._connection.send_reset(self.id, why)

    async def _room(self) -> int:
        """How much may be sent now, at least one byte."""
        while True:
            if self.failed or self.local_done:
                raise StreamError(self.failed or "stream is closed")
            room = self._connection.room(self)
            if room > 0:
                return room
            self._writable.clear()
            await self._writable.wait()

    # For the connection.

    def received(self, data: bytes) -> None:
        if self._discarding:
            self._connection.consumed(self, len(data))
            return
        self._chunks.append(data)
        self.buffered += len(data)
        self._readable.set()

    def ended(self) -> None:
        self.remote_done = True
        self._readable.set()

    def fail(self, why: str) -> None:
        """No more of it, either way; what has arrived can still be read."""
        self.failed = self.failed or why
        self._readable.set()
        self._writable.set()

    def wake(self) -> None:
        """The peer's window has grown."""
        self._writable.set()
