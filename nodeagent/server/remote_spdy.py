"""exec and attach over SPDY/3.1, protocol versions 1 to 5: a stream for each of stdin, stdout, stderr, the error that
ends it all, and terminal sizes.

The client opens all streams itself, named by a `streamType` header; the process starts when those that it asked for are
there. Version 3 added terminal sizes, version 4 a Status in JSON; 5 differs from 4 only over WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nodeagent.runtime.interface import ExecSession, RuntimeFailure
from nodeagent.server import remotecommand
from nodeagent.server.remotecommand import STDERR, STDOUT, ClientLeft, Options
from nodeagent.server.spdy.connection import Connection, Refused, Wire
from nodeagent.server.spdy.errors import StreamError
from nodeagent.server.spdy.stream import Stream

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_STREAMS_WITHIN_S = 30.0
_GOODBYE_S = 0.5
_LONGEST_SIZE = 1024


class SpdyRemote:
    """`remotecommand.Remote`."""

    def __init__(self, wire: Wire, protocol: str, options: Options) -> None:
        self._version = int(protocol[1]) if protocol.startswith("v") else 1
        wanted = {"error": True, "stdin": options.stdin, "stdout": options.stdout, "stderr": options.stderr}
        wanted["resize"] = options.tty and self._version >= 3
        self._missing = {kind for kind, is_wanted in wanted.items() if is_wanted}
        self._streams: dict[str, Stream] = {}
        self._complete = asyncio.Event()
        self.connection = Connection(wire, self._opened)
        self._running = asyncio.ensure_future(self.connection.run())

    def _opened(self, stream: Stream) -> None:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._missing:
            raise Refused(f"invalid stream type {kind!r}")
        self._missing.discard(kind)
        self._streams[kind] = stream
        if not self._missing:
            self._complete.set()

    async def prepare(self) -> None:
        """Until the client has opened its streams. Raises TimeoutError, ClientLeft."""
        waiting = asyncio.ensure_future(self._complete.wait())
        try:
            async with asyncio.timeout(_STREAMS_WITHIN_S):
                await asyncio.wait((waiting, self._running), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self._complete.is_set():
            raise ClientLeft

    async def send(self, channel: int, data: bytes) -> None:
        try:
            await self._streams[{STDOUT: "stdout", STDERR: "stderr"}[channel]].write(data)
        except StreamError as error:
            raise ClientLeft from error

    async def feed(self, session: ExecSession) -> None:
        tasks = []
        if stdin := self._streams.get("stdin"):
            tasks.append(asyncio.ensure_future(_feed(stdin, session)))
        if sizes := self._streams.get("resize"):
            tasks.append(asyncio.ensure_future(_resize(sizes, session)))
        try:
            await asyncio.wait([self._running])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self, status: dict[str, Any]) -> None:
        try:
            if text := remotecommand.render(status, self._version):
                await self._streams["error"].write(text)
            for stream in self._streams.values():
                await stream.close()
        except StreamError as error:
            raise ClientLeft from error

    async def close(self) -> None:
        """Let go of the connection, which its owner closes. A client that reads nothing is not waited for."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self.connection.close()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


async def _feed(stdin: Stream, session: ExecSession) -> None:
    """Standard input, to its end. A process that does not read any more loses the rest, as at the end of a pipe."""
    with contextlib.suppress(StreamError):
        try:
            while data := await stdin.read():
                await session.write(data)
            await session.close_stdin()
        except (OSError, RuntimeFailure):
            stdin.discard()


async def _resize(sizes: Stream, session: ExecSession) -> None:
    """JSON documents one after the other; client-go sends each, with a newline, as one frame."""
    rest = b""
    with contextlib.suppress(StreamError):
        while data := await sizes.read():
            *complete, rest = (rest + data).replace(b"}", b"}\n").split(b"\n")
            for document in filter(None, (part.strip() for part in complete)):
                await remotecommand.resize(session, document)
            if len(rest) > _LONGEST_SIZE:
                sizes.discard()
                return
