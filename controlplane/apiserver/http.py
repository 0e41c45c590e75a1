"""The seam between HTTP and the API: one request type, one response type, and the aiohttp adapter behind them.

Everything above this file knows only `Request` and `Response`, so what speaks HTTP can be changed here, and the
in-process transport of the client library can call the same handler without a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane import clock
from controlplane.api import status
from controlplane.api.status import bad_request, internal
from controlplane.apiserver.streams import SLOW_BYTES, Chunk, Feed

log = logging.getLogger(__name__)

JSON = "application/json"
_LINGER_S = 30.0


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: the outcome of authentication. `extra` as in TokenReview."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Request:
    """One request. `user` and `info` are filled in by the pipeline before handlers see it."""

    def __init__(
        self,
        method: str,
        path: str,
        query_string: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        peer: User | None = None,
        transport_request: Any = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers: Mapping[str, str] = headers if headers is not None else CIMultiDictProxy(CIMultiDict())
        self.body = body
        self.peer = peer  # from a verified client certificate
        self.transport_request = transport_request  # aiohttp's own, for upgrades only
        self.user: User = peer or User("system:anonymous", ("system:unauthenticated",))
        self.impersonator: User | None = None  # who asks in the name of `user`
        self.audit: Any = None  # what the audit log keeps of it between its stages
        self.info: Any = None
        self.warnings: list[str] = []
        self.annotations: dict[str, str] = {}  # for the audit log

    @cached_property
    def query(self) -> dict[str, str]:
        """Parameters, the first value of each."""
        return {key: values[0] for key, values in self.query_lists.items()}

    @cached_property
    def query_lists(self) -> dict[str, list[str]]:
        return parse_qs(self.query_string, keep_blank_values=True) if self.query_string else {}

    def flag(self, name: str) -> bool:
        """A boolean parameter, as Kubernetes reads it: present and not "false" or "0"."""
        value = self.query.get(name)
        return value is not None and value.lower() not in ("false", "0")


def header_values(request: Request, name: str) -> list[str]:
    """Every value of a header that may come several times."""
    headers = request.headers
    if isinstance(headers, CIMultiDictProxy | CIMultiDict):
        return list(headers.getall(name, ()))
    return [headers[name]] if name in headers else []


class Response:
    """A status, headers, and one of: `body`, `pieces` of a large body, a `stream`, or `takeover` (the handler owns the
    connection)."""

    __slots__ = ("_body", "content_type", "headers", "pieces", "status", "stream", "takeover")

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        *,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        pieces: Sequence[bytes] = (),
        stream: AsyncGenerator[bytes, None] | Feed | None = None,
        takeover: Callable[[Any], Awaitable[web.StreamResponse]] | None = None,
    ) -> None:
        self.status = status
        self._body = body
        self.content_type = content_type
        self.headers = headers
        self.pieces = pieces
        self.stream = stream
        self.takeover = takeover

    @property
    def body(self) -> bytes:
        """The whole body, also if it is in pieces."""
        if self.pieces:
            self._body, self.pieces = b"".join(self.pieces), ()
        return self._body

    @body.setter
    def body(self, body: bytes) -> None:
        self._body, self.pieces = body, ()


Handler = Callable[[Request], Awaitable[Response]]


class _Connection:
    """A Sink that is an HTTP connection whose answer has begun. It writes past aiohttp's own writer, which would frame
    and copy a chunk again for each connection."""

    def __init__(self, raw: web.BaseRequest) -> None:
        self._raw = raw
        self._transport = raw.transport

    def write(self, chunk: Chunk) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.write(chunk.framed)
        return transport.get_write_buffer_size() < SLOW_BYTES

    async def drain(self) -> None:
        await self._raw.writer.drain()


def peer_user(transport: asyncio.BaseTransport | None) -> User | None:
    """CN and O of the verified client certificate, if one was shown."""
    certificate = transport.get_extra_info("peercert") if transport else None
    if not certificate:
        return None
    name, groups = "", []
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, "system:authenticated")) if name else None


class _Protocol(RequestHandler):
    """aiohttp's, with its own error pages (for what is no HTTP) replaced by a Status, and with little patience for who
    connects and then asks nothing. It knows whose connection it is, and until when: a certificate that ends while the
    connection is open opens nothing more on it."""

    first_request_s = 0.0
    served = False
    peer: User | None = None
    until = float("inf")
    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = peer_user(transport)
        if self.peer is not None:
            self.until = ssl.cert_time_to_seconds(transport.get_extra_info("peercert")["notAfter"])
        self._silence = asyncio.get_running_loop().call_later(self.first_request_s, self._still_silent, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(exc)

    def _still_silent(self, transport: asyncio.BaseTransport) -> None:
        if not self.served:
            log.debug("connection closed: no request within %g s", self.first_request_s)
            transport.close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: nothing else can be said")
        if status < 500:
            log.info("no http request: status=%d reason=%s", status, type(exc).__name__)
            error = bad_request("the request is malformed")
        else:
            log.error("request failed method=%s path=%s", request.method, request.path, exc_info=exc)
            error = internal("an error on the server prevented the request from succeeding")
        answer = _whole(error_response(error))
        answer.force_close()
        return answer


class _Server(web.Server):
    first_request_s = 0.0

    def __call__(self) -> RequestHandler:
        protocol = _Protocol(self, loop=self._loop, **self._kwargs)
        protocol.first_request_s = self.first_request_s
        return protocol


class HttpServer:
    """Serves `handler` over TLS on aiohttp. `first_request_s`: how long a connection may be silent at first, so that
    those who only connect do not use up what connections cost."""

    def __init__(self, handler: Handler, *, max_body_bytes: int, first_request_s: float = 30.0) -> None:
        self._handler = handler
        self._first_request_s = first_request_s
        self._limit = max_body_bytes
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the port (chosen by the kernel for 0). Raises OSError if it is taken."""
        server = _Server(self._serve, access_log=None, keepalive_timeout=3600, handler_cancellation=True)
        server.first_request_s = self._first_request_s
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context, backlog=1024, reuse_address=True)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        raw.protocol.served = True  # type: ignore[attr-defined]
        try:
            body = await self._body(raw)
        except status.StatusError as error:
            # The rest of the body is not read: the connection cannot be used again.
            answer = _whole(error_response(error))
            answer.force_close()
            return answer
        connection = cast(_Protocol, raw.protocol)
        if connection.until <= clock.wall_time():
            answer = _whole(error_response(status.unauthorized()))
            answer.force_close()
            return answer
        path, query_string = _target(raw)
        request = Request(
            raw.method, path, query_string, raw.headers, body, peer=connection.peer, transport_request=raw
        )
        response = await self._handler(request)
        if raw.method == "HEAD":
            return await _head(response)
        if response.takeover is not None:
            return await response.takeover(raw)
        if response.stream is not None:
            return await _streamed(raw, response)
        if response.pieces:
            return await _in_pieces(raw, response)
        if response.headers or response.status not in _PLAIN or raw.version != HttpVersion11 or not raw.keep_alive:
            return _whole(response)
        return cast(web.StreamResponse, _Answer(response))

    async def _body(self, raw: web.BaseRequest) -> bytes:
        if not raw.can_read_body:
            return b""
        if (raw.content_length or 0) > self._limit:
            raise status.too_large(f"limit is {self._limit}")
        content = raw.content
        if content.is_eof():  # all of it came with the head, as most do
            body = content.read_nowait()
            if len(body) > self._limit:
                raise status.too_large(f"limit is {self._limit}")
            return body
        chunks: list[bytes] = []
        size = 0
        async for chunk in content.iter_any():
            size += len(chunk)
            if size > self._limit:
                raise status.too_large(f"limit is {self._limit}")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _target(raw: web.BaseRequest) -> tuple[str, str]:
    """The path, decoded, and the query string as it came."""
    target = raw.raw_path
    if target[:1] != "/" or "%" in target or "#" in target or not target.isascii():
        return raw.rel_url.path, raw.rel_url.raw_query_string
    path, _, query_string = target.partition("?")
    return path, query_string


_PLAIN = frozenset((200, 201, 202, 403, 404, 409, 422))
_AT_ONCE = 64 << 10
_heads: dict[tuple[int, str], bytes] = {}
_date: tuple[int, bytes] = (0, b"")


class _Answer:
    """A whole answer of the usual kind on a connection that stays: one write, and a head that is made once for all that
    are alike. It stands where aiohttp has a StreamResponse, of which it asks nothing but this; what is special (headers
    of its own, HTTP/1.0, the end of a connection) goes the long way, `_whole`."""

    __slots__ = ("_response",)
    keep_alive = True

    def __init__(self, response: Response) -> None:
        self._response = response

    async def prepare(self, raw: web.BaseRequest) -> None:
        """Send all of it. Raises ConnectionError."""
        transport = raw.transport
        if transport is None or transport.is_closing():
            raise ConnectionError("the client is gone")
        response = self._response
        body = response.body
        head = b"%b%b%d\r\n\r\n" % (_head_of(response.status, response.content_type), _today(), len(body))
        if len(body) <= _AT_ONCE:  # one TLS record rather than two
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    async def write_eof(self) -> None:
        """It has been sent."""


def _head_of(status: int, content_type: str) -> bytes:
    """The head as far as answers share it."""
    found = _heads.get((status, content_type))
    if found is None:
        phrase = HTTPStatus(status).phrase
        found = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {content_type}\r\n".encode(errors="replace")
        if len(_heads) > 100:
            _heads.clear()
        _heads[status, content_type] = found
    return found


def _today() -> bytes:
    """The date's line, made once a second, and the beginning of the next one."""
    global _date
    second = int(clock.wall_time())
    if second != _date[0]:
        _date = second, f"Date: {formatdate(second, usegmt=True)}\r\nContent-Length: ".encode()
    return _date[1]


def _whole(response: Response) -> web.Response:
    headers = {"Content-Type": response.content_type, **(response.headers or {})}
    return web.Response(status=response.status, body=response.body, headers=headers)


async def _head(response: Response) -> web.StreamResponse:
    """What GET would say, without the body; a stream is not begun."""
    if response.stream is not None:
        await response.stream.aclose()
    return _whole(response)


async def _in_pieces(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
    """A large body: never more of it in the connection's buffers than a few pieces, and others have their turn."""
    answer = web.StreamResponse(
        status=response.status, headers={"Content-Type": response.content_type, **(response.headers or {})}
    )
    answer.content_length = sum(map(len, response.pieces))
    with contextlib.suppress(ConnectionError):
        await answer.prepare(raw)
        for piece in response.pieces:
            await answer.write(piece)
        await answer.write_eof()
    return answer


async def _streamed(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
    answer = web.StreamResponse(
        status=response.status, headers={"Content-Type": response.content_type, **(response.headers or {})}
    )
    answer.enable_chunked_encoding()
    stream = response.stream
    assert stream is not None
    with contextlib.suppress(ConnectionError):  # the client is gone: nobody to tell
        try:
            await answer.prepare(raw)
            if isinstance(stream, Feed):
                await answer.write(b"")  # aiohttp keeps the head back until there is something to send
                await stream.run(_Connection(raw))
            else:
                async for chunk in stream:
                    await answer.write(chunk)
            await _end(raw, answer)
        finally:
            await stream.aclose()
    return answer


async def _end(raw: web.BaseRequest, answer: web.StreamResponse) -> None:
    """End a stream; one whose receiver does not take the rest is not waited for."""
    try:
        async with asyncio.timeout(_LINGER_S):
            await answer.write_eof()
    except TimeoutError:
        if raw.transport is not None:
            raw.transport.abort()


def error_response(error: status.StatusError) -> Response:
    import msgspec

    return Response(error.code, msgspec.json.encode(error.to_dict()), headers=dict(error.headers))
