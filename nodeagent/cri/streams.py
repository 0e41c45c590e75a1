"""The client's side of a runtime's streaming server: exec, attach and port-forward over SPDY/3.1.

A CRI runtime answers Exec, Attach and PortForward with a URL of a server of its own; kubelet and we speak to it as
kubectl would (k8s.io/kubelet/pkg/cri/streaming). SPDY and not WebSocket, because only SPDY has an end of standard input
in every version. What happens before the process runs (no such program) is told on the error stream, after the fact:
`RemoteSession.wait` raises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from nodeagent.runtime.interface import RuntimeFailure
from nodeagent.server import portforward, remotecommand
from nodeagent.server.spdy.connection import Connection, Refused
from nodeagent.server.spdy.errors import Reset, StreamError
from nodeagent.server.spdy.stream import Stream
from nodeagent.server.upgrade import Wire

_EXEC_PROTOCOL = "v4.channel.k8s.io"
_CONNECT_S = 10.0
_REFUSAL_S = 0.05  # within which a refused connection to a port is known, even on a busy machine
_LONGEST_ERROR = 64 * 1024
_KILLED = 137


def _no_streams(stream: Stream) -> None:
    raise Refused("a streaming server opens no streams")


class _Remote:
    """An upgraded connection and what keeps it going."""

    def __init__(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        self.connection = connection
        self._writer = writer
        self._running = asyncio.ensure_future(connection.run())

    async def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self.connection.close()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self._writer.transport.abort()


async def _upgrade(url: str, protocol: str) -> _Remote:
    """Raises RuntimeFailure."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "127.0.0.1", parts.scheme == "https"
    context = None
    if secure:  # runtimes have certificates that they signed themselves; the URL came over a root-only socket
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(host, parts.port or (443 if secure else 80), ssl=context)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            writer.write(
                f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = head.split(" ", 2)[1] if head.startswith("HTTP/1.") else ""
            if status != "101":
                body = (await reader.read(1024)).decode("utf-8", "replace").strip()
                writer.transport.abort()
                raise RuntimeFailure(f"the runtime's streaming server answered {head.splitlines()[0]!r}: {body}")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        text = f"the runtime's streaming server at {parts.netloc} cannot be reached: {error or 'timed out'}"
        raise RuntimeFailure(text) from error
    return _Remote(Connection(Wire(reader, writer), _no_streams, client=True), writer)


class RemoteSession:
    """`ExecSession` of a process that a foreign runtime runs."""

    def __init__(self, remote: _Remote, streams: Mapping[str, Stream]) -> None:
        self._remote, self._streams = remote, streams
        self._chunks: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(1)
        outputs = {"stdout": remotecommand.STDOUT, "stderr": remotecommand.STDERR}
        self._readers = [
            asyncio.ensure_future(self._pump(number, streams[name]))
            for name, number in outputs.items()
            if name in streams
        ]
        self._outcome = asyncio.ensure_future(_outcome(streams["error"]))
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._outcome.add_done_callback(self._ended)

    def _ended(self, outcome: asyncio.Future[int]) -> None:
        if outcome.cancelled():
            self._exit.set_result(_KILLED)  # we hung up: it is over as far as we shall ever know
        elif error := outcome.exception():
            self._exit.set_exception(error)
            self._exit.exception()  # whoever wants to know asks
        else:
            self._exit.set_result(outcome.result())

    async def _pump(self, number: int, stream: Stream) -> None:
        with contextlib.suppress(StreamError):
            while data := await stream.read():
                await self._chunks.put((number, data))

    async def read(self) -> tuple[int, bytes] | None:
        while True:
            if not self._chunks.empty():
                return self._chunks.get_nowait()
            waiting = [task for task in self._readers if not task.done()]
            if not waiting:
                return None
            chunk = asyncio.ensure_future(self._chunks.get())
            try:
                await asyncio.wait((chunk, *waiting), return_when=asyncio.FIRST_COMPLETED)
                if chunk.done():
                    return chunk.result()
            finally:
                if not chunk.done():
                    chunk.cancel()

    async def write(self, data: bytes) -> None:
        try:
            if stdin := self._streams.get("stdin"):
                await stdin.write(data)
        except StreamError as error:
            raise RuntimeFailure(f"exec: {error}") from error

    async def close_stdin(self) -> None:
        if stdin := self._streams.get("stdin"):
            await stdin.close()

    async def resize(self, width: int, height: int) -> None:
        if sizes := self._streams.get("resize"):
            with contextlib.suppress(StreamError):
                await sizes.write(json.dumps({"Width": width, "Height": height}).encode() + b"\n")

    async def wait(self) -> int:
        """See ExecSession.wait. Raises RuntimeFailure if the process could not be started."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Hang up. A CRI runtime lets the process run on; for us it is over."""
        await self._remote.close()
        for task in (*self._readers, self._outcome):
            task.cancel()
        await asyncio.gather(*self._readers, self._outcome, return_exceptions=True)


async def _outcome(errors: Stream) -> int:
    """What the error stream says at the end: nothing, or a Status in JSON."""
    text = bytearray()
    try:
        while data := await errors.read():
            text += data[: _LONGEST_ERROR - len(text)]
    except StreamError as error:  # Go's servers hang up without ending the stream; what they said counts
        if not text:
            raise RuntimeFailure(f"the runtime's streaming server hung up: {error}") from error
    return _exit_code(bytes(text))


def _exit_code(text: bytes) -> int:
    """Raises RuntimeFailure for a Status that is not about an exit code."""
    if not text:
        return 0
    try:
        status: dict[str, Any] = json.loads(text)
    except ValueError:
        raise RuntimeFailure(text.decode("utf-8", "replace")) from None
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"])
    raise RuntimeFailure(str(status.get("message") or "the runtime did not say why"))


async def session(url: str, *, stdin: bool, tty: bool, stderr: bool = True) -> RemoteSession:
    """Exec or attach at `url`. Raises RuntimeFailure."""
    remote = await _upgrade(url, _EXEC_PROTOCOL)
    wanted = ["error", *(["stdin"] if stdin else []), "stdout", *(["stderr"] if stderr and not tty else [])]
    try:
        streams = {kind: await remote.connection.open({"streamtype": kind}) for kind in wanted}
        if tty:
            streams["resize"] = await remote.connection.open({"streamtype": "resize"})
        await streams["error"].close()
    except (StreamError, OSError) as error:
        await remote.close()
        raise RuntimeFailure(f"the runtime's streaming server hung up: {error}") from error
    return RemoteSession(remote, streams)


async def forward(url: str, port: int, tasks: set[asyncio.Task[None]]) -> socket.socket:
    """One end of a pair of sockets, whose other is `port` of the sandbox behind `url`; the copying is a task in
    `tasks`. Raises RuntimeFailure, also for a port that refuses at once; a later refusal is a closed connection."""
    remote = await _upgrade(url, portforward.PROTOCOL)
    try:
        about = {"port": str(port), "requestid": "0"}
        errors = await remote.connection.open({"streamtype": "error", **about})
        await errors.close()
        data = await remote.connection.open({"streamtype": "data", **about})
    except (StreamError, OSError) as error:
        await remote.close()
        raise RuntimeFailure(f"the runtime's streaming server hung up: {error}") from error
    refusal = asyncio.ensure_future(_refusal(errors))
    await asyncio.wait([refusal], timeout=_REFUSAL_S)
    if refusal.done() and (why := refusal.result()):
        await remote.close()
        raise RuntimeFailure(why)
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    task = asyncio.get_running_loop().create_task(_carry(remote, data, refusal, theirs))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return ours


async def _refusal(errors: Stream) -> str:
    text = bytearray()
    with contextlib.suppress(StreamError):
        while part := await errors.read():
            text += part[: _LONGEST_ERROR - len(text)]
    return text.decode("utf-8", "replace")


async def _carry(remote: _Remote, data: Stream, refusal: asyncio.Future[str], end: socket.socket) -> None:
    try:
        await portforward.join(_Forwarded(data), end)
    finally:
        refusal.cancel()
        await asyncio.gather(refusal, return_exceptions=True)
        await remote.close()


class _Forwarded:
    """`portforward.Client` of a stream that we opened."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()

    async def reset(self, why: Reset = Reset.CANCEL) -> None:
        await self._stream.reset(why)
