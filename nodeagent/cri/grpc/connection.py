"""One HTTP/2 connection with gRPC's messages on it, whichever side: h2's state machine joined to asyncio's streams.

Sending waits for the peer's windows and for the socket; what has been received is granted again at once, and bounded by
the longest message. Who owns the connection subclasses it and is told of headers, messages and ends, by stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from nodeagent.cri.grpc.status import Code, GrpcError

LONGEST_MESSAGE = 16 * 1024 * 1024  # the CRI's own limit
_WINDOW = 1024 * 1024
_CHUNK = 64 * 1024
Headers = Sequence[tuple[str, str]]


class Inbox:
    """What has come on one stream: messages cut out of its bytes, and headers."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete with `data`. Raises GrpcError for one that is too long or compressed."""
        self._bytes += data
        found = []
        while len(self._bytes) >= 5:
            if self._bytes[0]:
                raise GrpcError(Code.UNIMPLEMENTED, "compressed messages are not supported")
            size = int.from_bytes(self._bytes[1:5], "big")
            if size > LONGEST_MESSAGE:
                message = f"received message larger than max ({size} vs. {LONGEST_MESSAGE})"
                raise GrpcError(Code.RESOURCE_EXHAUSTED, message)
            if len(self._bytes) < 5 + size:
                break
            found.append(bytes(self._bytes[5 : 5 + size]))
            del self._bytes[: 5 + size]
        return found

    @property
    def partial(self) -> bool:
        return bool(self._bytes)


class Connection:
    """The common part. `run` until the peer leaves; then `lost` is called."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self._reader, self._writer = reader, writer
        config = h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._begun: set[int] = set()  # streams that we have sent headers on
        self._room: dict[int, asyncio.Event] = {}  # who waits for the peer's window, by stream
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW)
        self._flush()

    # For subclasses to fill in.

    def headers(self, stream: int, headers: dict[str, str]) -> None: ...

    def data(self, stream: int, data: bytes) -> None: ...

    def ended(self, stream: int) -> None:
        """The peer has said its last word on this stream."""

    def reset(self, stream: int, code: int) -> None: ...

    def lost(self, why: str) -> None: ...

    # What they use.

    async def run(self) -> None:
        why = "the connection was closed"
        try:
            while data := await self._reader.read(_CHUNK):
                for event in self._h2.receive_data(data):
                    self._happened(event)
                self._flush()
                await self._writer.drain()
        except (OSError, h2.exceptions.ProtocolError) as error:
            why = str(error) or type(error).__name__
            with contextlib.suppress(OSError):
                self._flush()
        finally:
            self._writer.transport.abort()
            for waiting in self._room.values():
                waiting.set()
            self.lost(why)

    @property
    def open(self) -> bool:
        return not self._writer.is_closing()

    async def send_message(self, stream: int, message: bytes, *, end: bool = False) -> None:
        """Raises OSError when the connection is lost, GrpcError (CANCELLED) when the stream is."""
        view = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
        try:
            while view:
                size = min(await self._space(stream), len(view), self._h2.max_outbound_frame_size)
                self._h2.send_data(stream, bytes(view[:size]), end_stream=end and size == len(view))
                view = view[size:]
                self._flush()
                await self._writer.drain()
        except h2.exceptions.ProtocolError as error:
            raise GrpcError(Code.CANCELLED, f"the stream was closed: {error}") from error

    def send_headers(self, stream: int, headers: Headers, *, end: bool = False) -> None:
        """Does nothing if the stream is closed."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.send_headers(stream, headers, end_stream=end)
            self._begun.discard(stream) if end else self._begun.add(stream)
            self._flush()

    def cancel(self, stream: int) -> None:
        """Say that nobody waits for this stream any more (RST_STREAM CANCEL)."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream, 8)
            self._flush()

    def close(self) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.close_connection()
            self._flush()
        self._writer.close()

    async def _space(self, stream: int) -> int:
        while (size := self._h2.local_flow_control_window(stream)) <= 0:
            event = self._room.setdefault(stream, asyncio.Event())
            event.clear()
            try:
                await event.wait()
            finally:
                self._room.pop(stream, None)
            if not self.open:
                raise ConnectionResetError("the connection was closed")
        return size

    def _happened(self, event: Any) -> None:
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.headers(event.stream_id, {str(n): str(v) for n, v in event.headers or ()})
            case h2.events.DataReceived():
                if event.flow_controlled_length:
                    with contextlib.suppress(h2.exceptions.ProtocolError):
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.data(event.stream_id, event.data or b"")
            case h2.events.StreamEnded():
                self.ended(event.stream_id)
            case h2.events.StreamReset():
                if waiting := self._room.get(event.stream_id):
                    waiting.set()
                self.reset(event.stream_id, int(event.error_code or 0))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for waiting in self._room.values():
                    waiting.set()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(data)
