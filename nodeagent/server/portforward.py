"""Port forwarding: connections to a pod's localhost, each joined to a stream of the client's.

Over SPDY/3.1 (bare, or as a tunnel inside a WebSocket) a connection is a pair of streams: `data`, and `error`, on which
we say why it failed; headers `port` and `requestID` tell which belong together. `portforward_websocket.py` is the older
form of a few clients. Messages are kubelet's (k8s.io/kubelet/pkg/cri/streaming/portforward) and containerd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from nodeagent.runtime.interface import RuntimeFailure
from nodeagent.server.spdy.connection import Connection, Refused, Wire
from nodeagent.server.spdy.errors import Reset, StreamError
from nodeagent.server.spdy.stream import Stream

log = logging.getLogger(__name__)

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
_CHUNK = 64 * 1024
_HIGH_WATER = 256 * 1024
_PARTNER_WITHIN_S = 30.0

Dial = Callable[[int], Awaitable[socket.socket]]
"""A connection to a port of the pod's localhost. Raises RuntimeFailure."""


class Client(Protocol):
    """The client's side of one connection."""

    async def read(self) -> bytes:
        """Empty at the end. Raises StreamError."""

    async def write(self, data: bytes) -> None:
        """Raises StreamError, OSError."""

    async def close(self) -> None:
        """The pod has said its last word."""

    async def reset(self, why: Reset = Reset.CANCEL) -> None: ...


def failure_text(port: int, pod: str, uid: str, failure: Exception) -> str:
    return f"error forwarding port {port} to pod {pod}, uid {uid}: {failure}"


async def join(client: Client, sock: socket.socket) -> None:
    """Copy both ways until both are at their end, or one breaks. Each end of input is passed on by itself."""
    reader, writer = await asyncio.open_connection(sock=sock, limit=_CHUNK)
    writer.transport.set_write_buffer_limits(high=_HIGH_WATER)
    tasks = [asyncio.ensure_future(_to_pod(client, writer)), asyncio.ensure_future(_to_client(reader, client))]
    try:
        await asyncio.gather(*tasks)
    except (OSError, StreamError):
        with contextlib.suppress(OSError):
            await client.reset()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()


async def _to_pod(client: Client, writer: asyncio.StreamWriter) -> None:
    while data := await client.read():
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _to_client(reader: asyncio.StreamReader, client: Client) -> None:
    while data := await reader.read(_CHUNK):
        await client.write(data)
    await client.close()


class PortForward:
    """All the connections of one client. `pod` is namespace/name and `uid` the pod's, for messages."""

    def __init__(self, wire: Wire, dial: Dial, pod: str, uid: str) -> None:
        self._dial, self._pod, self._uid = dial, pod, uid
        self._connection = Connection(wire, self._opened)
        self._waiting: dict[str, tuple[Stream, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the client leaves."""
        try:
            with contextlib.suppress(OSError):
                await self._connection.run()
        finally:
            for _, timer in self._waiting.values():
                timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _opened(self, stream: Stream) -> None:
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in ("data", "error"):
            raise Refused(f"invalid stream type {kind!r}")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise Refused(f"port {port!r} must be between 1 and 65535")
        # Clients of old do not number their requests; they open the error stream just before the data stream.
        request = stream.headers.get("requestid") or f"stream {stream.id if kind == 'error' else stream.id - 2}"
        known = self._waiting.pop(request, None)
        if known is None:
            timer = asyncio.get_running_loop().call_later(_PARTNER_WITHIN_S, self._give_up, request)
            self._waiting[request] = stream, timer
            return
        other, timer = known
        timer.cancel()
        if other.headers.get("streamtype") == kind:
            raise Refused(f"request {request} has two {kind} streams")
        data, error = (stream, other) if kind == "data" else (other, stream)
        self._start(self._serve(int(port), data, error))

    def _give_up(self, request: str) -> None:
        stream, _ = self._waiting.pop(request)
        log.info("portforward_stream_alone request=%r pod=%s", request, self._pod)
        self._start(stream.reset())

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, port: int, data: Stream, error: Stream) -> None:
        error.discard()
        try:
            sock = await self._dial(port)
        except RuntimeFailure as failure:
            text = failure_text(port, self._pod, self._uid, failure)
            log.info("portforward_failed pod=%s port=%d error=%s", self._pod, port, failure)
            data.discard()
            await error.write(text.encode())
            await error.close()
            await data.close()
            return
        await join(data, sock)
        await error.close()


async def _quietly(work: Awaitable[None]) -> None:
    with contextlib.suppress(OSError, StreamError):
        await work
