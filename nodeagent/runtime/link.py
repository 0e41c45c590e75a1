"""The agent's end of a connection to the zygote or to a shim: requests with answers, and what comes unasked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from nodeagent.runtime import wire
from nodeagent.runtime.interface import RuntimeFailure

Message = dict[str, Any]


class Link:
    """`heard(message, fds)` gets what answers no request; `lost()` is called once when the peer is gone."""

    def __init__(
        self,
        path: str,
        heard: Callable[[Message], None] | None = None,
        lost: Callable[[], None] | None = None,
        sock: wire.Socket | None = None,
    ) -> None:
        """Connect to `path`, or take over `sock`, which is connected there. Raises OSError."""
        self._sock = sock or wire.connect(path)
        self._sock.setblocking(False)
        self._path = path
        self._heard, self._lost = heard, lost
        self._asked: dict[int, asyncio.Future[tuple[Message, list[int]]]] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self.open = True
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def peer_pid(self) -> int:
        """The peer's pid, as our own PID namespace has it."""
        data = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(data[:4], "little")

    async def request(self, message: Message, fds: Sequence[int] = ()) -> Message:
        """The answer to `message`. Raises RuntimeFailure if it is an error, or the peer goes away."""
        reply, received = await self.request_fds(message, fds)
        for fd in received:
            os.close(fd)
        return reply

    async def request_fds(self, message: Message, fds: Sequence[int] = ()) -> tuple[Message, list[int]]:
        """As `request`, with the descriptors that came with the answer: the caller's to close."""
        if not self.open:
            raise RuntimeFailure(f"{message['op']}: no connection to {self._path}")
        self._next += 1
        number = self._next
        future: asyncio.Future[tuple[Message, list[int]]] = self._loop.create_future()
        self._asked[number] = future
        try:
            await self._send({**message, "n": number}, list(fds))
            reply, received = await future
        finally:
            self._asked.pop(number, None)
        if "error" in reply:
            raise RuntimeFailure(f"{message['op']}: {reply['error']}")
        return reply, received

    async def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send what is not answered here. Raises RuntimeFailure if the peer is gone."""
        if not self.open:
            raise RuntimeFailure(f"{message['op']}: no connection to {self._path}")
        await self._send(message, list(fds))

    async def _send(self, message: Message, fds: list[int]) -> None:
        while True:
            try:
                wire.send(self._sock, message, fds)
                return
            except BlockingIOError:
                writable: asyncio.Future[None] = self._loop.create_future()
                self._loop.add_writer(self._sock.fileno(), _setter(writable))
                try:
                    await writable
                finally:
                    self._loop.remove_writer(self._sock.fileno())
            except OSError as error:
                raise RuntimeFailure(f"{message['op']}: {self._path}: {error.strerror}") from error

    def _readable(self) -> None:
        while self.open:
            try:
                received = wire.receive(self._sock)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                received = None
            if received is None:
                self.close()
                if self._lost:
                    self._lost()
                return
            message, fds = received
            number = message.get("re")
            future = self._asked.get(number) if isinstance(number, int) else None
            if future is not None and not future.done():
                future.set_result((message, fds))
                continue
            for fd in fds:
                os.close(fd)
            if future is None and "re" not in message and self._heard:
                self._heard(message)

    def close(self) -> None:
        """Hang up; requests under way fail."""
        if not self.open:
            return
        self.open = False
        self._loop.remove_reader(self._sock.fileno())
        with contextlib.suppress(OSError):
            self._sock.close()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(RuntimeFailure(f"{self._path}: the connection was lost"))


def _setter(future: asyncio.Future[None]) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(None)
