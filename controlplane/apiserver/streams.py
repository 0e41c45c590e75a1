"""Answers that go on: pieces that many connections share, and streams that are pushed rather than pulled.

A watch is pushed: one event goes to a thousand connections by a thousand plain calls, and no task wakes up for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

SLOW_BYTES = 8 << 20
"""A watcher that has so much waiting for it is given up."""


class Chunk:
    """A piece of a stream that many connections may share: its HTTP framing is made once."""

    __slots__ = ("_framed", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._framed = b""

    @property
    def framed(self) -> bytes:
        """In HTTP/1.1's chunked encoding."""
        if not self._framed:
            self._framed = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return self._framed


class Sink(Protocol):
    """Where a stream that is pushed goes."""

    def write(self, chunk: Chunk) -> bool:
        """Send, without waiting. False if the receiver is gone or too far behind: there is no use in more."""

    async def drain(self) -> None:
        """Wait until the receiver has taken most of what was written."""


class Feed:
    """A stream that is pushed: `run(sink)` writes it, from whatever task or callback, and returns when it ends.
    Transports that would rather pull iterate over it."""

    def __init__(self, run: Callable[[Sink], Awaitable[None]]) -> None:
        self.run = run
        self._task: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        sink = _Queue()
        self._task = asyncio.ensure_future(self.run(sink))
        self._task.add_done_callback(lambda _: sink.chunks.put_nowait(None))
        return self._pull(sink)

    async def aclose(self) -> None:
        """Stop pulling: the stream ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _pull(self, sink: _Queue) -> AsyncIterator[bytes]:
        try:
            while (chunk := await sink.chunks.get()) is not None:
                sink.waiting -= len(chunk.data)
                yield chunk.data
        finally:
            await self.aclose()


class _Queue:
    """A Sink that is read from."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self.waiting = 0

    def write(self, chunk: Chunk) -> bool:
        self.waiting += len(chunk.data)
        self.chunks.put_nowait(chunk)
        return self.waiting < SLOW_BYTES

    async def drain(self) -> None:
        await asyncio.sleep(0)
