"""Upgrading a request to SPDY/3.1: Kubernetes' own handshake (apimachinery's httpstream), and the wire beneath.

The client offers protocols in `X-Stream-Protocol-Version`, in its order of preference; we answer with the first that we
serve. A client that offers none gets the oldest. (WebSocket's handshake is in websocket.py.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from controlplane.api.status import StatusError, bad_request
from nodeagent.server.http import Request

_HEADER = "X-Stream-Protocol-Version"
_CHUNK = 64 * 1024


class Wire:
    """`spdy.connection.Wire` over the bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(_CHUNK)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()


def negotiate(request: Request, served: Sequence[str]) -> str:
    """The protocol to speak; empty if the client offers none. Raises StatusError: 400 for a request that asks for no
    upgrade that we know, 403 when no protocol is common."""
    upgrade, connection = request.headers.get("upgrade", ""), request.headers.get("connection", "")
    if upgrade.lower() != "spdy/3.1" or "upgrade" not in connection.lower():
        asked = f"Connection: {connection!r}, Upgrade: {upgrade!r}"
        raise bad_request(f"unable to upgrade: missing upgrade headers in request: {asked}")
    offered = [p.strip() for p in request.headers.get(_HEADER.lower(), "").split(",") if p.strip()]
    if not offered:
        return ""
    chosen = next((p for p in offered if p in served), None)
    if chosen is None:
        ours = " ".join(served)
        message = f"unable to upgrade: unable to negotiate protocol: client supports [{' '.join(offered)}], "
        raise StatusError(403, "Forbidden", message + f"server accepts [{ours}]")
    return chosen


def accept(request: Request, protocol: str) -> Wire:
    """Answer 101; what follows is SPDY."""
    head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    head += f"{_HEADER}: {protocol}\r\n\r\n" if protocol else "\r\n"
    request.writer.write(head.encode())
    return Wire(request.reader, request.writer)
