"""gRPC's client: calls over one connection to a Unix socket, made at the first call and again after a loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nodeagent.cri.grpc.connection import Connection, Inbox
from nodeagent.cri.grpc.status import Code, GrpcError, from_headers, timeout_header

_USER_AGENT = "wherry"


class _Call(Inbox):
    def __init__(self) -> None:
        super().__init__()
        self.messages: asyncio.Queue[bytes | GrpcError | None] = asyncio.Queue()


class _ClientConnection(Connection):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer, client=True)
        self._calls: dict[int, _Call] = {}
        self.running = asyncio.ensure_future(self.run())

    def begin(self, path: str, timeout_s: float | None) -> tuple[int, _Call]:
        stream, call = self._h2.get_next_available_stream_id(), _Call()
        self._calls[stream] = call
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", _USER_AGENT),
        ]  # fmt: skip
        if timeout_s is not None:
            headers.append(("grpc-timeout", timeout_header(timeout_s)))
        self.send_headers(stream, headers)
        return stream, call

    def forget(self, stream: int) -> None:
        if self._calls.pop(stream, None) is not None and self.open:
            self.cancel(stream)

    def headers(self, stream: int, headers: dict[str, str]) -> None:
        if call := self._calls.get(stream):
            call.headers.update(headers)

    def data(self, stream: int, data: bytes) -> None:
        if call := self._calls.get(stream):
            try:
                for message in call.feed(data):
                    call.messages.put_nowait(message)
            except GrpcError as error:
                self.forget(stream)
                call.messages.put_nowait(error)

    def ended(self, stream: int) -> None:
        if call := self._calls.pop(stream, None):
            code, message = from_headers(call.headers)
            call.messages.put_nowait(GrpcError(code, message) if code else None)

    def reset(self, stream: int, code: int) -> None:
        if call := self._calls.pop(stream, None):
            call.messages.put_nowait(GrpcError(Code.UNAVAILABLE, f"the server reset the call with code {code}"))

    def lost(self, why: str) -> None:
        for call in self._calls.values():
            call.messages.put_nowait(GrpcError(Code.UNAVAILABLE, why))
        self._calls.clear()


class Channel:
    """Calls to one server. `path` is the socket's."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: _ClientConnection | None = None
        self._connecting = asyncio.Lock()

    async def unary(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """The only answer to one request. Raises GrpcError; UNAVAILABLE if there is nobody at the socket."""
        try:
            async with asyncio.timeout(timeout_s):
                answer: bytes | None = None
                async for message in self._messages(method, request, timeout_s):
                    answer = message
        except TimeoutError:
            raise GrpcError(Code.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s") from None
        if answer is None:
            raise GrpcError(Code.INTERNAL, "an answer without a message")
        return answer

    def stream(self, method: str, request: bytes) -> AsyncIterator[bytes]:
        """All answers to one request, until the server ends them. Raises GrpcError."""
        return self._messages(method, request, None)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            connection.running.cancel()
            await asyncio.gather(connection.running, return_exceptions=True)

    async def _messages(self, method: str, request: bytes, timeout_s: float | None) -> AsyncIterator[bytes]:
        connection = await self._connected()
        stream, call = connection.begin(method, timeout_s)
        try:
            try:
                await connection.send_message(stream, request, end=True)
            except (OSError, GrpcError) as error:
                if call.messages.empty():  # else the server has said why it does not want to read on
                    raise GrpcError(Code.UNAVAILABLE, str(error)) from error
            while (message := await call.messages.get()) is not None:
                if isinstance(message, GrpcError):
                    raise message
                yield message
        finally:
            connection.forget(stream)

    async def _connected(self) -> _ClientConnection:
        async with self._connecting:
            if self._connection is None or not self._connection.open:
                try:
                    reader, writer = await asyncio.open_unix_connection(self.path)
                except OSError as error:
                    text = f"cannot connect to {self.path}: {error.strerror or error}"
                    raise GrpcError(Code.UNAVAILABLE, text) from error
                self._connection = _ClientConnection(reader, writer)
            return self._connection
