"""gRPC's server on a Unix socket that only root can open. Methods are functions from bytes to bytes, or to many bytes.

A call's deadline (grpc-timeout) cancels it, and so does a client that resets it or leaves. What raises GrpcError ends
with its code; anything else is INTERNAL, and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from nodeagent.cri.grpc.connection import Connection, Inbox
from nodeagent.cri.grpc.status import Code, GrpcError, timeout_seconds, trailers

log = logging.getLogger(__name__)

Unary = Callable[[bytes], Awaitable[bytes]]
Many = Callable[[bytes], AsyncIterator[bytes]]
_RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]


class _Call(Inbox):
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        self.headers = headers
        self.messages: list[bytes] = []
        self.task: asyncio.Task[None] | None = None


class _ServerConnection(Connection):
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, unary: Mapping[str, Unary],
        many: Mapping[str, Many],
    ) -> None:  # fmt: skip
        super().__init__(reader, writer, client=False)
        self._unary, self._many = unary, many
        self._calls: dict[int, _Call] = {}

    def headers(self, stream: int, headers: dict[str, str]) -> None:
        if stream in self._calls:
            return  # trailers of a client: gRPC has none
        if not headers.get("content-type", "").startswith("application/grpc"):
            self.send_headers(stream, [(":status", "415")], end=True)
        elif headers.get(":method") != "POST":
            self.send_headers(stream, [(":status", "405")], end=True)
        else:
            self._calls[stream] = _Call(headers)

    def data(self, stream: int, data: bytes) -> None:
        if (call := self._calls.get(stream)) and call.task is None:
            try:
                call.messages += call.feed(data)
            except GrpcError as error:
                del self._calls[stream]
                self._refuse(stream, error)
                self.cancel(stream)

    def ended(self, stream: int) -> None:
        if call := self._calls.get(stream):
            call.task = asyncio.get_running_loop().create_task(self._serve(stream, call))
            call.task.add_done_callback(lambda _: self._over(stream))

    def _over(self, stream: int) -> None:
        self._calls.pop(stream, None)
        self._begun.discard(stream)

    def reset(self, stream: int, code: int) -> None:
        if (call := self._calls.pop(stream, None)) and call.task is not None:
            call.task.cancel()

    def lost(self, why: str) -> None:
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()

    async def _serve(self, stream: int, call: _Call) -> None:
        path = call.headers.get(":path", "")
        try:
            if len(call.messages) != 1 or call.partial:
                raise GrpcError(Code.INTERNAL, "a request must be one whole message")
            await self._answer(stream, path, call)
        except GrpcError as error:
            self._refuse(stream, error)
        except OSError:
            pass  # the client went away
        except Exception as error:
            log.exception("cri_call_failed method=%s", path)
            self._refuse(stream, GrpcError(Code.INTERNAL, f"{type(error).__name__}: {error}"))

    async def _answer(self, stream: int, path: str, call: _Call) -> None:
        try:
            deadline = timeout_seconds(call.headers.get("grpc-timeout", ""))
        except ValueError as error:
            raise GrpcError(Code.INTERNAL, str(error)) from error
        try:
            async with asyncio.timeout(deadline) as limit:
                if path in self._unary:
                    answer = await self._unary[path](call.messages[0])
                    self.send_headers(stream, _RESPONSE)
                    await self.send_message(stream, answer)
                elif path in self._many:
                    self.send_headers(stream, _RESPONSE)  # at once: a client may wait for them before it listens
                    async with contextlib.aclosing(self._many[path](call.messages[0])) as answers:  # type: ignore[type-var]
                        async for answer in answers:
                            await self.send_message(stream, answer)
                else:
                    _, service, method = (*path.split("/", 2), "", "")[:3]
                    raise GrpcError(Code.UNIMPLEMENTED, f"unknown method {method} for service {service}")
        except TimeoutError:
            if not limit.expired():
                raise
            raise GrpcError(Code.DEADLINE_EXCEEDED, "context deadline exceeded") from None
        self.send_headers(stream, trailers(Code.OK), end=True)

    def _refuse(self, stream: int, error: GrpcError) -> None:
        """End with an error, whether or not the response has begun."""
        ending = trailers(error.code, str(error))
        begun = stream in self._begun
        self.send_headers(stream, ending if begun else [*_RESPONSE, *ending], end=True)


class Server:
    """Serves `unary` and `many`, methods by path."""

    def __init__(self, unary: Mapping[str, Unary], many: Mapping[str, Many]) -> None:
        self._unary, self._many = unary, many
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._path = ""

    async def listen(self, path: str) -> None:
        """Raises OSError. The socket of a server that was killed is replaced."""
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)  # from its first moment the socket is root's alone
        try:
            sock.bind(path)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        self._listener = await asyncio.start_unix_server(self._connected, sock=sock)
        self._path = path

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _ServerConnection(reader, writer, self._unary, self._many)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
