"""Upgraded connections to a node: exec, attach, port-forward, over WebSocket or SPDY alike.

The client's upgrade request goes to the node agent as it is (other path, no credentials). When the agent answers 101,
its answer goes back and from then on bytes are relayed both ways, unread: what is spoken inside is the client's and
the agent's business. Each direction stops reading while the other side cannot take more, so a relay holds at most some
hundred kilobytes however fast a sender is.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web

from controlplane.apiserver.http import Request, header_values

log = logging.getLogger(__name__)
_CHUNK = 64 * 1024
_HEAD_LIMIT = 64 * 1024
_DIAL_S = 10.0
_FORWARDED = (
    "Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions",
    "X-Stream-Protocol-Version", "User-Agent",
)  # fmt: skip
_TOKEN_PROTOCOL = "base64url.bearer."


class Answer(NamedTuple):
    """The agent's answer to an upgrade request. `takeover` relays the connection, if it is 101; else `body` tells."""

    status: int
    body: str
    takeover: Callable[[web.BaseRequest], Any] | None


def wanted(request: Request) -> bool:
    """Whether the client asks for an upgrade."""
    return "upgrade" in request.headers.get("Connection", "").lower() and bool(request.headers.get("Upgrade"))


async def dial(request: Request, host: str, port: int, target: str, context: ssl.SSLContext) -> Answer:
    """Send the upgrade request to the agent at `host`:`port`. Raises OSError, TimeoutError if it cannot be reached."""
    async with asyncio.timeout(_DIAL_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host, limit=_HEAD_LIMIT)
    try:
        writer.write(_head(request, host, port, target))
        async with asyncio.timeout(_DIAL_S * 3):  # the agent answers when its runtime has started the process
            head = await reader.readuntil(b"\r\n\r\n")
            code = int(head.split(b" ", 2)[1])
            if code != 101:
                body = await reader.read(_HEAD_LIMIT)
                writer.close()
                return Answer(code, _text(head, body), None)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        writer.close()
        raise ConnectionError(f"the node's answer to an upgrade request is not HTTP: {error}") from error
    except BaseException:
        writer.close()
        raise

    async def takeover(raw: web.BaseRequest) -> web.StreamResponse:
        return await _relay(raw, head, reader, writer)

    return Answer(101, "", takeover)


def _head(request: Request, host: str, port: int, target: str) -> bytes:
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {host}:{port}"]
    for name in _FORWARDED:
        lines += [f"{name}: {value}" for value in header_values(request, name)]
    offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if protocols := [p for p in offered if p and not p.startswith(_TOKEN_PROTOCOL)]:
        lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
    if request.method != "GET":
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode()


def _text(head: bytes, body: bytes) -> str:
    if b"transfer-encoding: chunked" in head.lower():
        body = b"".join(part for i, part in enumerate(body.split(b"\r\n")) if i % 2)
    return body.decode(errors="replace").strip()


class _Relayed(web.StreamResponse):
    """Tells aiohttp that the answer was sent and that the connection is no longer its own."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


class _Upstream:
    """What aiohttp hands the client's bytes to, in place of its HTTP parser."""

    def __init__(self, client: asyncio.Transport, node: asyncio.StreamWriter, ended: Callable[[], None]) -> None:
        self._client, self._node, self._ended = client, node, ended
        self._draining: asyncio.Task[None] | None = None

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._node.write(data)
        if self._draining is None and self._node.transport.get_write_buffer_size() > _CHUNK:
            self._client.pause_reading()
            self._draining = asyncio.ensure_future(self._drain())
        return False, b""

    async def _drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._node.drain()
        self._draining = None
        if not self._client.is_closing():
            self._client.resume_reading()

    def feed_eof(self) -> None:
        self._ended()

    def set_exception(self, *_: Any) -> None:
        self._ended()

    def stop(self) -> None:
        if self._draining is not None:
            self._draining.cancel()


async def _relay(
    raw: web.BaseRequest, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> web.StreamResponse:
    client: Any = raw.transport  # an asyncio.Transport by its methods; uvloop's are no subclass of it
    answer = _Relayed(status=101)
    answer.force_close()
    if client is None or client.is_closing():
        writer.close()
        return answer
    writer.transport.set_write_buffer_limits(high=_CHUNK)
    gone = asyncio.Event()
    upstream = _Upstream(client, writer, gone.set)
    # aiohttp does the same for its own WebSockets; whatever has a parser's two methods will do.
    raw.protocol.set_parser(upstream)  # type: ignore[arg-type]
    client.write(head)
    down = asyncio.ensure_future(_downstream(reader, raw, client))
    left = asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait((down, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        upstream.stop()
        for task in (down, left):
            task.cancel()
        await asyncio.gather(down, left, return_exceptions=True)
        writer.close()
    return answer


async def _downstream(reader: asyncio.StreamReader, raw: web.BaseRequest, client: asyncio.Transport) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            if client.is_closing():
                return
            client.write(data)
            await raw.writer.drain()
