"""exec and attach over WebSocket: Kubernetes' remotecommand channels, v5 and v4, plain or base64.

Each message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size; in v5, channel
255 followed by 0 closes stdin. Two coroutines pump, each waiting for the other side to take what it sent: memory stays
the same however much flows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

from nodeagent.runtime.interface import ExecSession, RuntimeFailure
from nodeagent.server.websocket import WebSocket, WebSocketClosed

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 32 * 1024


async def pump(socket: WebSocket, session: ExecSession, *, stdin: bool, stdout: bool, stderr: bool) -> None:
    """Connect the two until the process ends or the client leaves; then close both."""
    channels = _Channels(socket)
    # Tell the client that the connection stands, as Kubernetes does: an empty message.
    await channels.send(STDOUT if stdout else STDERR if stderr else ERROR, b"")
    incoming = asyncio.ensure_future(_feed(channels, session, stdin=stdin))
    outgoing = asyncio.ensure_future(_drain(channels, session, stdout=stdout, stderr=stderr))
    try:
        await asyncio.wait((incoming, outgoing), return_when=asyncio.FIRST_COMPLETED)
        if not outgoing.done():
            return  # the client has left
        outgoing.result()
        code = await session.wait()
        await channels.send(ERROR, json.dumps(exit_status(code)).encode())
        await socket.close()
    except (OSError, WebSocketClosed):
        pass
    finally:
        for task in (incoming, outgoing):
            task.cancel()
        await asyncio.gather(incoming, outgoing, return_exceptions=True)
        with contextlib.suppress(RuntimeFailure, OSError):
            await session.close()


async def refuse(socket: WebSocket, message: str) -> None:
    """Tell on an accepted connection that the process could not be started."""
    with contextlib.suppress(OSError):
        await _Channels(socket).send(ERROR, json.dumps(failure_status(message)).encode())
        await socket.close()


def exit_status(code: int) -> dict[str, Any]:
    """The Status that ends an exec, which kubectl turns into its own exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


class _Channels:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._base64 = "base64" in socket.protocol

    async def send(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send(b"%d" % channel + base64.b64encode(data))
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def receive(self) -> tuple[int, bytes]:
        while True:
            message = await self._socket.receive()
            if not message:
                continue
            if self._base64:
                return message[0] - 48, base64.b64decode(message[1:])
            return message[0], message[1:]


async def _feed(channels: _Channels, session: ExecSession, *, stdin: bool) -> None:
    """From the client to the process, until the client leaves."""
    open_stdin = stdin
    try:
        while True:
            channel, data = await channels.receive()
            if channel == STDIN and open_stdin and data:
                try:
                    await session.write(data)
                except (OSError, RuntimeFailure):
                    open_stdin = False  # the process does not read any more
            elif channel == RESIZE:
                with contextlib.suppress(ValueError, KeyError, TypeError, RuntimeFailure, OSError):
                    size = json.loads(data)
                    await session.resize(int(size["Width"]), int(size["Height"]))
            elif channel == CLOSE and data[:1] == b"\0" and open_stdin:
                open_stdin = False
                with contextlib.suppress(OSError, RuntimeFailure):
                    await session.close_stdin()
    except WebSocketClosed:
        return


async def _drain(channels: _Channels, session: ExecSession, *, stdout: bool, stderr: bool) -> None:
    """From the process to the client, until there is no more output."""
    wanted = {STDOUT: stdout, STDERR: stderr}
    while (chunk := await session.read()) is not None:
        channel, data = chunk
        if not wanted.get(channel):
            continue
        for start in range(0, len(data), _CHUNK):
            await channels.send(channel, data[start : start + _CHUNK])
