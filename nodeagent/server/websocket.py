"""The server's side of WebSocket (RFC 6455): handshake and frames over an asyncio connection.

Messages in, whole and at most 1 MiB; binary messages out. Pings are answered, fragments joined. No extensions.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct

from controlplane.api.status import bad_request
from nodeagent.server.http import Request

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST = 1024 * 1024
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


class WebSocketClosed(Exception):
    """The peer closed the connection, or broke the protocol."""


def wanted(request: Request) -> bool:
    return (
        request.headers.get("upgrade", "").lower() == "websocket"
        and "upgrade" in request.headers.get("connection", "").lower()
    )


class WebSocket:
    """An accepted WebSocket. `protocol` is the subprotocol agreed on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: str) -> None:
        self.protocol = protocol
        self._reader = reader
        self._writer = writer
        self._closed = False

    @classmethod
    async def accept(cls, request: Request, protocols: tuple[str, ...]) -> WebSocket:
        """Complete the handshake with the first of the client's protocols that we know; ours come in order of
        preference, and an empty one stands for a client that names none. Raises StatusError (400) if there is none."""
        offered = [p.strip() for p in request.headers.get("sec-websocket-protocol", "").split(",") if p.strip()]
        protocol = next((p for p in protocols if p in (offered or [""])), None)
        key = request.headers.get("sec-websocket-key", "")
        if protocol is None or not key:
            raise bad_request(f"unable to upgrade: none of the subprotocols {offered} is served")
        proof = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += f"Sec-WebSocket-Accept: {proof}\r\n"
        head += f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n" if protocol else "\r\n"
        request.writer.write(head.encode())
        return cls(request.reader, request.writer, protocol)

    async def receive(self) -> bytes:
        """The next message. Raises WebSocketClosed."""
        message = bytearray()
        while True:
            final, opcode, payload = await self._frame()
            if opcode == _PING:
                await self._send(_PONG, payload)
            elif opcode == _CLOSE:
                await self.close(payload[:2] or struct.pack("!H", 1000))
                raise WebSocketClosed("closed by the peer")
            elif opcode in (_CONTINUATION, _TEXT, _BINARY):
                message += payload
                if len(message) > _LONGEST:
                    raise WebSocketClosed("message too large")
                if final:
                    return bytes(message)

    async def send(self, payload: bytes) -> None:
        """Send one binary message; returns when the connection took it (back-pressure). Raises OSError."""
        await self._send(_BINARY, payload)

    async def send_text(self, payload: bytes) -> None:
        """As `send`, marked as text."""
        await self._send(_TEXT, payload)

    async def read(self) -> bytes:
        """For a tunnel (spdy.connection.Wire): the next message that is not empty; empty at the end."""
        try:
            while not (message := await self.receive()):
                pass
        except WebSocketClosed:
            return b""
        return message

    def write(self, payload: bytes) -> None:
        """For a tunnel: queue one binary message."""
        self._write(_BINARY, payload)

    async def drain(self) -> None:
        """Until the connection took what was written. Raises OSError."""
        await self._writer.drain()

    async def close(self, reason: bytes = struct.pack("!H", 1000)) -> None:
        """Say goodbye, once."""
        if not self._closed:
            self._closed = True
            try:
                await self._send(_CLOSE, reason)
            except OSError:
                pass

    async def _send(self, opcode: int, payload: bytes) -> None:
        self._write(opcode, payload)
        await self._writer.drain()

    def _write(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        self._writer.write(head + payload)

    async def _frame(self) -> tuple[bool, int, bytes]:
        try:
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
            if size > _LONGEST or not second & 0x80:
                raise WebSocketClosed("frame too large or not masked")
            mask = await self._reader.readexactly(4)
            payload = await self._reader.readexactly(size)
        except (EOFError, OSError) as error:
            raise WebSocketClosed(str(error)) from error
        return bool(first & 0x80), first & 0x0F, unmask(payload, mask)


def unmask(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one big number (a loop would cost a hundred times as much)."""
    size = len(payload)
    if not size:
        return payload
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
