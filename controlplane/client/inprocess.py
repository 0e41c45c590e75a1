"""The transport without a socket: requests handed straight to an API server in the same process.

    transport = InProcessTransport(server.handle, partial(Request, peer=User("admin", ("system:masters",))))

It calls the seam that the server's HTTP front calls, so everything above it (authentication apart: the caller says who
it is) runs as over HTTPS. It imports nothing of the server: the handler and a maker of its requests are given. For
tests and for simulations of whole clusters on virtual time; as a whole answer is made before it is read, there is no
back-pressure but a watch's own.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

from controlplane.client.errors import Unreachable
from controlplane.client.transport import Answer, Stream


class ServerResponse(Protocol):
    """What a handler answers: a body, or a stream of chunks."""

    status: int
    body: bytes
    headers: Mapping[str, str] | None
    stream: Any


MakeRequest = Callable[[str, str, str, Mapping[str, str], bytes], Any]
"""(method, path, query string, headers, body) -> a request of the server's own type."""
Handle = Callable[[Any], Awaitable[Any]]


class InProcessTransport:
    """A `Transport` to `handle`."""

    def __init__(self, handle: Handle, make_request: MakeRequest) -> None:
        self._handle, self._make = handle, make_request
        self._streams: set[_InProcessStream] = set()

    async def request(
        self, method: str, target: str, body: bytes = b"", *, content_type: str = "application/json", timeout: float
    ) -> Answer:
        headers = {"Content-Type": content_type} if body else {}
        response = await self._call(method, target, headers, body, timeout)
        if response.stream is None:
            return Answer(response.status, _lower(response.headers), response.body)
        stream = _InProcessStream(response, timeout, self._streams)
        parts = []
        try:
            while part := await stream.read():
                parts.append(part)
        finally:
            stream.close()
        return Answer(response.status, stream.headers, b"".join(parts))

    async def stream(self, target: str, *, timeout: float, silence: float) -> Stream:
        response = await self._call("GET", target, {}, b"", timeout)
        return _InProcessStream(response, silence, self._streams)

    def reload(self) -> None:
        pass

    async def close(self) -> None:
        for stream in list(self._streams):
            stream.close()

    async def _call(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> ServerResponse:
        path, _, query = target.partition("?")
        request = self._make(method, unquote(path), query, {"Accept": "application/json", **headers}, body)
        try:
            async with asyncio.timeout(timeout):
                response: ServerResponse = await self._handle(request)
        except TimeoutError:
            raise Unreachable(f"{method}: no answer within {timeout:g} s") from None
        return response


def _lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}


class _InProcessStream:
    """A `Stream` over a response's chunks. Its own task takes them, since only that may end the generator."""

    def __init__(self, response: ServerResponse, silence: float, all: "set[_InProcessStream]") -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _lower(response.headers)
        self._silence, self._all = silence, all
        self._parts: asyncio.Queue[bytes | BaseException] = asyncio.Queue(64)
        self._task: asyncio.Task[None] | None = None
        if response.stream is None:
            for part in (response.body, b""):
                self._parts.put_nowait(part)
        else:
            self._task = asyncio.ensure_future(self._pump(response.stream))
            all.add(self)

    async def _pump(self, stream: AsyncGenerator[bytes, None]) -> None:
        try:
            async for part in stream:
                if part:  # an empty one only makes HTTP send the head
                    await self._parts.put(part)
            await self._parts.put(b"")
        except Exception as error:
            await self._parts.put(error)
        finally:
            await stream.aclose()

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(self._silence):
                part = await self._parts.get()
        except TimeoutError:
            raise Unreachable(f"nothing heard for {self._silence:g} s") from None
        if isinstance(part, BaseException):
            raise Unreachable(f"the stream failed: {part!r}") from part
        if not part:
            self._parts.put_nowait(b"")  # the end stays the end
        return part

    def close(self) -> None:
        self._all.discard(self)
        if self._task:
            self._task.cancel()
