"""A small HTTP/1.1 server over TLS: enough for the API server and for curl, and it hands over the bare connection.

A library would do, at a price that every node would pay all day (aiohttp's server adds 15 MB to an agent of 30) for a
few requests an hour; and exec needs the raw connection after an upgrade. So: one coroutine a connection, bodies by
Content-Length only (1 MiB at most), answers whole or chunked, keep-alive, nothing else. It is not meant to face the
world: everything but /healthz asks for a client certificate (auth.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from controlplane.api.status import StatusError, bad_request, too_large

log = logging.getLogger(__name__)

_LONGEST_HEAD = 32 * 1024
_LONGEST_BODY = 1024 * 1024
_IDLE_S = 120.0
_GOODBYE_S = 5.0
_HIGH_WATER = 256 * 1024
_TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Request:
    """One request. `user` and `groups` are of the client's certificate; empty without one."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    user: str = ""
    groups: tuple[str, ...] = ()

    def first(self, name: str, default: str = "") -> str:
        values = self.query.get(name)
        return values[0] if values else default

    def flag(self, *names: str) -> bool:
        """Whether one of these parameters says yes."""
        return any(self.first(name).lower() in ("1", "true", "t") for name in names)


@dataclass(slots=True)
class Response:
    """An answer: `body`, or a `stream` that is sent in chunks as it comes. `taken`: the handler has used the connection
    itself, and it is over."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    taken: bool = False


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """Serves `handler` on one address. StatusError from it becomes its code and its message in plain
    text (as with kubelet: the API server makes a Status of it); anything else becomes 500."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._closing = False

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Start serving; the port (that of the system's choice for 0). Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host, port, ssl=context, limit=_LONGEST_HEAD)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """End every connection; a client that does not take its last bytes at once does not get them."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=_HIGH_WATER)
        user, groups = _identity(writer)
        connection = writer.get_extra_info("socket")
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    request = await _read(reader, writer)
                if request is None:
                    return
                request.user, request.groups = user, groups
                response = await self._answer(request)
                if response.taken or not await _send(request, response):
                    return
        except StatusError as error:
            with contextlib.suppress(OSError):
                text = error.message.encode()
                writer.write(_head(error.code, len(text), _TEXT, close=True) + text)
        except (OSError, EOFError, TimeoutError, ssl.SSLError):
            pass  # the client went away
        finally:
            # Abort after a graceful attempt: a peer that does not read must not hold the connection.
            try:
                with contextlib.suppress(OSError, RuntimeError, TimeoutError, ssl.SSLError):
                    async with asyncio.timeout(_GOODBYE_S if not self._closing else _GOODBYE_S / 20):
                        writer.close()
                        await writer.wait_closed()
            finally:
                _abort(writer, connection)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except StatusError as error:
            return Response(error.code, error.message.encode(), _TEXT)
        except (OSError, EOFError):
            raise
        except Exception as error:
            log.exception("request_failed method=%s path=%s", request.method, request.path)
            return Response(500, f"{type(error).__name__}: {error}".encode(), _TEXT)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request; None when the client has finished. Raises StatusError for what is not HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise bad_request("incomplete request") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise bad_request("request head too large") from error
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise bad_request("malformed request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise bad_request("malformed header")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers:
        raise bad_request("chunked request bodies are not supported")
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise bad_request("malformed Content-Length")
    if int(length) > _LONGEST_BODY:
        raise too_large(f"request body of {length} bytes is larger than {_LONGEST_BODY}")
    body = await reader.readexactly(int(length)) if int(length) else b""
    target = urlsplit(words[1])
    query = parse_qs(target.query, keep_blank_values=True)
    return Request(words[0], unquote(target.path), query, headers, body, reader, writer)


async def _send(request: Request, response: Response) -> bool:
    """Send the answer; whether the connection can serve another request."""
    writer = request.writer
    close = request.headers.get("connection", "").lower() == "close"
    if response.stream is None:
        head = _head(response.status, len(response.body), response.content_type, response.headers, close=close)
        writer.write(head if request.method == "HEAD" else head + response.body)
        await writer.drain()
        return not close
    writer.write(_head(response.status, None, response.content_type, response.headers))
    watcher = asyncio.ensure_future(request.reader.read(1))  # nothing more comes: end-of-file means the client left
    stream = response.stream
    try:
        while True:
            chunk_task = asyncio.ensure_future(anext(stream, None))
            await asyncio.wait((chunk_task, watcher), return_when=asyncio.FIRST_COMPLETED)
            if not chunk_task.done():
                chunk_task.cancel()
                await asyncio.gather(chunk_task, return_exceptions=True)
                return False
            chunk = chunk_task.result()
            if chunk is None:
                break
            if chunk:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return False
    finally:
        watcher.cancel()
        close_stream = getattr(stream, "aclose", None)
        if close_stream is not None:
            await close_stream()


def _head(
    status: int, length: int | None, content_type: str, headers: Mapping[str, str] | None = None, *, close: bool = False
) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if close or length is None:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _abort(writer: asyncio.StreamWriter, connection: socket.socket) -> None:
    try:
        writer.transport.abort()
    except AttributeError:  # a TLS transport that was closed twice forgets what is below it (Python 3.11)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _identity(writer: asyncio.StreamWriter) -> tuple[str, tuple[str, ...]]:
    """Common name and organisations of the client's certificate, which TLS has verified."""
    certificate = writer.get_extra_info("peercert") or {}
    user, groups = "", []
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                user = value
            elif name == "organizationName":
                groups.append(value)
    return user, tuple(groups)
