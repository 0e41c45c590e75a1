"""A SPDY/3.1 connection: streams come and go on one wire, and no peer makes us keep much.

The agent is mostly the accepting side; `client=True` is the other, which opens streams itself (towards the streaming
server of a foreign runtime) and takes none.

Flow control, both ways, a window a stream and one for the session (SPDY/3.1):

- *Receiving.* What a reader has taken is granted again (WINDOW_UPDATE). client-go's SPDY, which most peers are, neither
  sends nor heeds windows; so a stream with more than `_CROWDED` unread bytes stops the reading of the whole connection,
  and TCP stops the peer. Its other streams then wait, too: that is the price of a peer without windows.
- *Sending.* Windows are heeded from the moment the peer has shown that it knows them (a WINDOW_UPDATE, or an initial
  window in SETTINGS). Before that they are only counted, because a peer that never grants anything would starve.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from nodeagent.server.spdy import frames
from nodeagent.server.spdy.errors import GoAway, ProtocolError, Reset, StreamError
from nodeagent.server.spdy.frames import FIN, INITIAL_WINDOW, UNIDIRECTIONAL, Control, Data
from nodeagent.server.spdy.headers import Compressor, Decompressor
from nodeagent.server.spdy.stream import Stream

log = logging.getLogger(__name__)

_CROWDED = 1024 * 1024
_MAX_STREAMS = 2000
_LARGEST_WINDOW = 0x7FFFFFFF
_UNLIMITED = 1 << 30


class Wire(Protocol):
    """What carries the bytes: a connection after its upgrade, or a WebSocket as a tunnel."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end. Raises OSError."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Until the wire has taken what was written. Raises OSError."""


class Refused(Exception):
    """Raised by whoever is offered a stream and does not want it: the peer gets a RST_STREAM."""


class Connection:
    """`opened(stream)` is called for each stream of the peer, before its SYN_REPLY; it must not block."""

    def __init__(self, wire: Wire, opened: Callable[[Stream], None], *, client: bool = False) -> None:
        self._wire = wire
        self._opened = opened
        self._client = client
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the client's latest stream
        self._decoder = frames.Decoder()
        self._compressor, self._decompressor = Compressor(), Decompressor()
        self._heeds = False  # the peer does flow control
        self._window = INITIAL_WINDOW  # of the session, for what we send
        self._initial = INITIAL_WINDOW  # a new stream's
        self._owed: dict[int, int] = {}  # bytes read and not granted again yet; 0 is the session
        self._relaxed = asyncio.Event()
        self._over = False

    async def run(self) -> None:
        """Serve until the peer has gone or breaks the protocol. All streams are over afterwards. Raises OSError."""
        why = "connection lost"
        try:
            while data := await self._wire.read():
                for frame in self._decoder.feed(data):
                    if isinstance(frame, Data):
                        self._data(frame)
                    else:
                        self._control(frame)
                await self._wire.drain()
                while any(s.buffered > _CROWDED for s in self._streams.values()):
                    self._relaxed.clear()
                    await self._relaxed.wait()
        except ProtocolError as error:
            why = str(error)
            log.info("spdy_broken error=%s", error)
            with contextlib.suppress(OSError):
                self._goaway(GoAway.PROTOCOL_ERROR)
        finally:
            self._over = True
            for stream in list(self._streams.values()):
                stream.fail(why)
            self._streams.clear()

    async def close(self) -> None:
        """Say that no stream is welcome any more, and let what was written go out. The wire's owner closes it."""
        if not self._over:
            self._goaway(GoAway.OK)
            await self._wire.drain()

    async def open(self, headers: Mapping[str, str]) -> Stream:
        """A new stream of ours (a client's). Raises StreamError if the connection is over, OSError."""
        if self._over:
            raise StreamError("connection lost")
        self._last += 2 if self._last else 1
        stream = self._streams[self._last] = Stream(self, self._last, headers, self._initial)
        body = struct.pack("!IIBB", stream.id, 0, 0, 0) + self._compressor.pack(headers)
        self._write(frames.control(frames.SYN_STREAM, body))
        await self._wire.drain()
        return stream

    # --- for streams ----------------------------------------------------------------------------------------------

    def room(self, stream: Stream) -> int:
        return min(stream.window, self._window) if self._heeds else _UNLIMITED

    async def send_data(self, identity: int, data: memoryview) -> None:
        self._window -= len(data)
        self._wire.write(frames.data_head(identity, len(data)) + data)
        await self._wire.drain()

    async def send_fin(self, stream: Stream) -> None:
        self._write(frames.data_head(stream.id, 0, FIN))
        self._forget_if_over(stream)
        await self._wire.drain()

    async def send_reset(self, identity: int, why: Reset) -> None:
        self._streams.pop(identity, None)
        self._relaxed.set()
        self._reset(identity, why)
        await self._wire.drain()

    def consumed(self, stream: Stream, count: int) -> None:
        """The reader has taken `count` bytes: grant them again, half a window at a time."""
        if stream.buffered <= _CROWDED:
            self._relaxed.set()
        if not stream.remote_done:
            self._grant(stream.id, count)
        self._grant(0, count)

    # --- frames ---------------------------------------------------------------------------------------------------

    def _data(self, frame: Data) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None or stream.remote_done or stream.failed:
            if frame.stream > self._last or not frame.stream & 1:
                raise ProtocolError(f"data for stream {frame.stream}, which was never opened")
            self._grant(0, len(frame.payload))  # it crossed our reset
            return
        if frame.payload:
            stream.received(frame.payload)
        if frame.flags & FIN:
            stream.ended()
            self._forget_if_over(stream)

    def _control(self, frame: Control) -> None:
        body = frame.body
        match frame.type:
            case frames.SYN_STREAM:
                self._open(frame)
            case frames.RST_STREAM:
                identity, code = frames.numbers(body, 2)
                if stream := self._streams.pop(identity, None):
                    stream.fail(f"reset by the peer: {code}")
                    self._relaxed.set()
            case frames.SETTINGS:
                for identity, value in frames.settings(body):
                    if identity == frames.SETTINGS_INITIAL_WINDOW_SIZE:
                        self._resize_windows(value)
            case frames.PING:
                (identity,) = struct.unpack_from("!I", body) if len(body) >= 4 else (0,)
                if bool(identity & 1) != self._client:
                    self._write(frames.control(frames.PING, body[:4]))
            case frames.HEADERS | frames.SYN_REPLY:  # of no use to us, but the compression context needs them
                self._decompressor.unpack(body[4:])
            case frames.WINDOW_UPDATE:
                self._enlarge(*frames.numbers(body, 2))
            case _:
                pass  # GOAWAY: it opens no more streams; and what we do not know must be ignored (section 2.2.1)

    def _open(self, frame: Control) -> None:
        identity, _ = frames.numbers(frame.body, 2)
        headers = self._decompressor.unpack(frame.body[10:])
        if self._client or not identity & 1 or identity <= self._last:
            raise ProtocolError(f"stream {identity} after stream {self._last}")
        self._last = identity
        if len(self._streams) >= _MAX_STREAMS:
            self._reset(identity, Reset.REFUSED_STREAM)
            return
        stream = Stream(self, identity, headers, self._initial)
        stream.local_done = bool(frame.flags & UNIDIRECTIONAL)
        self._streams[identity] = stream
        try:
            self._opened(stream)
        except Refused as refused:
            log.info("spdy_stream_refused stream=%d reason=%s", identity, refused)
            del self._streams[identity]
            stream.fail(str(refused))
            self._reset(identity, Reset.REFUSED_STREAM)
            return
        reply = struct.pack("!I", identity) + self._compressor.pack({})
        self._write(frames.control(frames.SYN_REPLY, reply, FIN if stream.local_done else 0))
        if frame.flags & FIN:
            stream.ended()
            self._forget_if_over(stream)

    def _resize_windows(self, size: int) -> None:
        if size > _LARGEST_WINDOW:
            raise ProtocolError("initial window too large")
        self._heeds = True
        change, self._initial = size - self._initial, size
        for stream in self._streams.values():
            stream.window += change
            stream.wake()

    def _enlarge(self, identity: int, delta: int) -> None:
        self._heeds = True
        if identity == 0:
            self._window += delta
            if self._window > _LARGEST_WINDOW:
                raise ProtocolError("session window too large")
            for stream in self._streams.values():
                stream.wake()
        elif stream := self._streams.get(identity):  # type: ignore[assignment]
            stream.window += delta
            if stream.window > _LARGEST_WINDOW:
                raise ProtocolError(f"window of stream {identity} too large")
            stream.wake()

    # --- small things ---------------------------------------------------------------------------------------------

    def _grant(self, identity: int, count: int) -> None:
        owed = self._owed.pop(identity, 0) + count
        if owed < INITIAL_WINDOW // 2:
            self._owed[identity] = owed
        elif not self._over:
            self._write(frames.control(frames.WINDOW_UPDATE, struct.pack("!II", identity, owed)))

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.local_done and stream.remote_done:
            self._streams.pop(stream.id, None)
            self._owed.pop(stream.id, None)

    def _reset(self, identity: int, why: Reset) -> None:
        self._owed.pop(identity, None)
        self._write(frames.control(frames.RST_STREAM, struct.pack("!II", identity, why)))

    def _goaway(self, why: GoAway) -> None:
        self._over = True
        self._write(frames.control(frames.GOAWAY, struct.pack("!II", self._last, why)))

    def _write(self, data: bytes) -> None:
        self._wire.write(data)
