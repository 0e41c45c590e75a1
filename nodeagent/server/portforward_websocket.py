"""Port forwarding over plain WebSocket channels, as the official Python and Java clients do it.

The ports are named in the request; port number i has channel 2i for data and 2i + 1 for errors, each of which begins
with the port in two bytes, lowest first. There is one connection a port, and no end of input but the end of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence

from nodeagent.runtime.interface import RuntimeFailure
from nodeagent.server import portforward
from nodeagent.server.portforward import Dial
from nodeagent.server.remote_websocket import Channels
from nodeagent.server.remotecommand import LINGER_S
from nodeagent.server.spdy.errors import Reset
from nodeagent.server.websocket import WebSocket, WebSocketClosed

PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")


class _Port:
    """`portforward.Client` on a channel. The queue holds one message: who sends more waits, and so do other ports."""

    def __init__(self, channels: Channels, channel: int) -> None:
        self._channels, self._channel = channels, channel
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(1)
        self.over = False

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        await self._channels.send(self._channel, data)

    async def close(self) -> None:
        """The pod closed the connection; there is no way to say so to the client, nor use in reading on."""
        self.over = True
        self.drop()
        self.incoming.put_nowait(b"")

    def drop(self) -> None:
        """Let go of what nobody will read, and of who waits to add to it."""
        while not self.incoming.empty():
            self.incoming.get_nowait()

    async def reset(self, why: Reset = Reset.CANCEL) -> None:
        pass


async def serve(socket: WebSocket, ports: Sequence[int], dial: Dial, pod: str, uid: str) -> None:
    """Until the client leaves, or no connection is left."""
    channels = Channels(socket)
    clients = [_Port(channels, 2 * i) for i in range(len(ports))]

    async def forward(i: int, port: int) -> None:
        try:
            await portforward.join(clients[i], await dial(port))
        except RuntimeFailure as failure:
            text = portforward.failure_text(port, pod, uid, failure)
            with contextlib.suppress(OSError):
                await channels.send(2 * i + 1, text.encode())
        finally:
            clients[i].over = True
            clients[i].drop()

    async def receive() -> None:
        with contextlib.suppress(WebSocketClosed):
            while True:
                channel, data = await channels.receive()
                if channel % 2 == 0 and 0 <= channel // 2 < len(clients) and data and not clients[channel // 2].over:
                    await clients[channel // 2].incoming.put(data)

    with contextlib.suppress(OSError):
        for i, port in enumerate(ports):
            for channel in (2 * i, 2 * i + 1):
                await channels.send(channel, struct.pack("<H", port))
    connections = asyncio.gather(*(forward(i, port) for i, port in enumerate(ports)))
    incoming = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((connections, incoming), return_when=asyncio.FIRST_COMPLETED)
        if not incoming.done():
            await channels.close()
            await asyncio.wait([incoming], timeout=LINGER_S)
    finally:
        connections.cancel()
        incoming.cancel()
        await asyncio.gather(connections, incoming, return_exceptions=True)
