"""exec and attach over WebSocket: Kubernetes' remotecommand channels, version 5, 4 and the nameless first, all but the
newest also in base64.

Each message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 the end, 4 terminal size. In version 5, channel 255
followed by a channel's number closes that channel; before, a client had no way to close only its standard input.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import Any

from nodeagent.runtime.interface import ExecSession, RuntimeFailure
from nodeagent.server import remotecommand
from nodeagent.server.remotecommand import ERROR, RESIZE, STDERR, STDIN, STDOUT, Options
from nodeagent.server.websocket import WebSocket, WebSocketClosed

PROTOCOLS = (
    "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io", "",
)  # fmt: skip
"""In our order of preference; the last: a client that names none."""
CLOSE = 255


class Channels:
    """Messages that begin with a channel, over a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._base64 = "base64" in socket.protocol

    async def send(self, channel: int, data: bytes) -> None:
        """Raises OSError."""
        if self._base64:
            await self._socket.send_text(b"%d" % channel + base64.b64encode(data))
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def receive(self) -> tuple[int, bytes]:
        """Raises WebSocketClosed."""
        while True:
            message = await self._socket.receive()
            if not message:
                continue
            if not self._base64:
                return message[0], message[1:]
            try:
                return message[0] - 48, base64.b64decode(message[1:], validate=True)
            except binascii.Error as error:
                await self._socket.close()
                raise WebSocketClosed(f"not base64: {error}") from error

    async def close(self) -> None:
        """Say goodbye; the other side's goodbye ends `receive`."""
        await self._socket.close()


class WebSocketRemote:
    """`remotecommand.Remote`."""

    def __init__(self, socket: WebSocket, options: Options) -> None:
        self._channels = Channels(socket)
        self._options = options
        self._version = int(socket.protocol[1]) if socket.protocol.startswith("v") else 1

    async def greet(self) -> None:
        """Tell the client that the connection stands, as kubelet does: an empty message on its first channel."""
        first = STDOUT if self._options.stdout else STDERR if self._options.stderr else ERROR
        await self._channels.send(first, b"")

    async def send(self, channel: int, data: bytes) -> None:
        await self._channels.send(channel, data)

    async def feed(self, session: ExecSession) -> None:
        stdin = self._options.stdin
        try:
            while True:
                channel, data = await self._channels.receive()
                if channel == STDIN and stdin and data:
                    try:
                        await session.write(data)
                    except (OSError, RuntimeFailure):
                        stdin = False  # the process does not read any more
                elif channel == RESIZE and self._options.tty:
                    await remotecommand.resize(session, data)
                elif channel == CLOSE and self._version >= 5 and data[:1] == b"\0" and stdin:
                    stdin = False
                    with contextlib.suppress(OSError, RuntimeFailure):
                        await session.close_stdin()
        except WebSocketClosed:
            return

    async def finish(self, status: dict[str, Any]) -> None:
        text = remotecommand.render(status, self._version)
        if text:
            await self._channels.send(ERROR, text)
        await self._channels.close()
