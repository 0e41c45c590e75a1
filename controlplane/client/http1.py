"""One HTTP/1.1 connection, the client's side: send a request, read its answer whole or as it comes.

An asyncio Protocol with a parser for what an API server sends: a status line, headers, and a body by Content-Length,
by chunks or until the end of the connection. One request at a time; a body that nobody reads stops the peer (the
transport is paused above `_HIGH_WATER`). It is not a general client: no redirects, cookies, compression, proxies or
pipelining. It exists beside aiohttp because every daemon carries it: see README.md for what that saves.
"""

import asyncio
from collections import deque
from typing import cast

from controlplane.client.errors import Unreachable

_HIGH_WATER = 4 << 20
_MAX_HEAD = 64 << 10


class Connection(asyncio.Protocol):
    """`send`, then `read_head`, then `read` until it returns nothing (or `read_all`). `reusable` tells whether
    another request may follow."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reusable = True
        self.heard = False
        """Whether any byte of an answer to the current request came."""
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Unreachable | None = None
        self._state = "idle"  # idle, head, length, chunks, until-close, done
        self._left = 0  # bytes missing of the body or of the current chunk (-1: its size line comes next)

    # --- the user's side

    def send(self, method: str, target: str, headers: str, body: bytes) -> None:
        """Write a request. `headers`: ready lines, each ended by CRLF. Raises Unreachable if the connection is gone."""
        if self._error:
            raise self._error
        self._state, self.heard, self.status = "head", False, 0
        length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT", "PATCH") else ""
        head = f"{method} {target} HTTP/1.1\r\n{headers}{length}\r\n".encode("latin-1")
        cast(asyncio.Transport, self._transport).write(head + body)

    async def read_head(self) -> int:
        """The status code, when the head is here; `headers` is set. Raises Unreachable."""
        while self._state == "head":
            await self._more()
        return self.status

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises Unreachable if it was cut short."""
        while not self._parts:
            if self._state == "done":
                return b""
            await self._more()
        data = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._paused and self._transport:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self) -> bytes:
        """The whole body."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def idle(self) -> bool:
        """Whether the last answer was read to its end and the connection can take another request."""
        return self.reusable and self._error is None and self._state in ("idle", "done") and not self._parts

    def close(self) -> None:
        """Drop the connection now."""
        self.reusable = False
        if self._transport:
            self._transport.abort()

    async def _more(self) -> None:
        if self._error:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._state == "until-close" and exc is None:
            self._state = "done"
        self._error = Unreachable(f"connection lost: {exc or 'closed by the peer'}")
        self._transport = None
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self._buffer += data
        try:
            self._parse()
        except (ValueError, IndexError) as error:
            self._error = Unreachable(f"not HTTP: {error}")
            self.close()
        if self._state == "done" and self._buffer:
            self.reusable = False  # more than we asked for: never take it for the next answer
        if self._held > _HIGH_WATER and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _parse(self) -> None:
        if self._state == "head":
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MAX_HEAD:
                    raise ValueError("head too large")
                return
            self._parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._state == "head":  # it was a 1xx: the real head follows
                self._parse()
                return
        if self._state == "length":
            self._take(self._left)
            if not self._left:
                self._state = "done"
        elif self._state == "until-close":
            self._take(len(self._buffer))
        elif self._state == "chunks":
            self._parse_chunks()
        elif self._buffer:
            raise ValueError("bytes after the answer")

    def _parse_head(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ", 2)[:2]
        if not version.startswith("HTTP/1."):
            raise ValueError(f"version {version!r}")
        self.status = int(status)
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if 100 <= self.status < 200:
            return
        self.headers = headers
        if headers.get("connection", "").lower() == "close" or version == "HTTP/1.0":
            self.reusable = False
        if self.status in (204, 304):
            self._state = "done"
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            self._state, self._left = "chunks", -1
        elif "content-length" in headers:
            self._left = int(headers["content-length"])
            self._state = "length" if self._left else "done"
        else:
            self._state, self.reusable = "until-close", False

    def _take(self, count: int) -> None:
        """Move up to `count` bytes from the buffer to the body."""
        part = bytes(self._buffer[:count])
        if part:
            del self._buffer[: len(part)]
            self._parts.append(part)
            self._held += len(part)
            self._left -= len(part)

    def _parse_chunks(self) -> None:
        while self._buffer:
            if self._left > 0:
                self._take(self._left)
                if self._left:
                    return
            if self._left == 0:  # after a chunk's bytes
                if len(self._buffer) < 2:
                    return
                if self._buffer[:2] != b"\r\n":
                    raise ValueError("chunk without an end")
                del self._buffer[:2]
                self._left = -1
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return
            size = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            if size == 0:  # the last chunk; trailers, which nobody sends us, would precede an empty line
                tail = self._buffer.find(b"\r\n\r\n", end)
                if tail < 0:
                    return
                del self._buffer[: tail + 4]
                self._state = "done"
                return
            del self._buffer[: end + 2]
            self._left = size
