"""Frames on the wire (sections 2.2 and 2.6): bytes in, frames out; frames in, bytes out. No I/O, no state but bytes.

control  |1|version:15|type:16|flags:8|length:24| ...        data  |0|stream:31|flags:8|length:24| ...
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nodeagent.server.spdy.errors import ProtocolError

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN, UNIDIRECTIONAL = 1, 2
SETTINGS_INITIAL_WINDOW_SIZE = 7
INITIAL_WINDOW = 64 * 1024
_LONGEST_CONTROL = 64 * 1024
_HEAD = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Control:
    """A control frame. `body` is what follows the eight bytes that all have in common."""

    type: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """Part of a data frame: `last` of the frame's parts carries its flags. A frame may have 16 MiB, a part has what
    has arrived, so that nothing must be kept until a frame is whole."""

    stream: int
    flags: int
    payload: bytes


class Decoder:
    """Turns received bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream = 0  # the data frame under way, and what is missing of it
        self._flags = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[Control | Data]:
        """The frames that are complete with `data`. To be read to its end. Raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        while buffer:
            if self._left:
                part = bytes(buffer[: self._left])
                del buffer[: self._left]
                self._left -= len(part)
                yield Data(self._stream, 0 if self._left else self._flags, part)
                continue
            if len(buffer) < 8:
                return
            first, second = _HEAD.unpack_from(buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first & 0x80000000:
                del buffer[:8]
                if length:
                    self._stream, self._flags, self._left = first, flags, length
                else:
                    yield Data(first, flags, b"")
                continue
            if (first >> 16) & 0x7FFF != VERSION:
                raise ProtocolError(f"SPDY version {(first >> 16) & 0x7FFF} instead of 3")
            if length > _LONGEST_CONTROL:
                raise ProtocolError(f"control frame of {length} bytes")
            if len(buffer) < 8 + length:
                return
            body = bytes(buffer[8 : 8 + length])
            del buffer[: 8 + length]
            yield Control(first & 0xFFFF, flags, body)


def control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return _HEAD.pack(0x80000000 | VERSION << 16 | kind, flags << 24 | len(body)) + body


def data_head(stream: int, length: int, flags: int = 0) -> bytes:
    """The eight bytes before `length` bytes of data."""
    return _HEAD.pack(stream, flags << 24 | length)


def numbers(body: bytes, count: int) -> tuple[int, ...]:
    """The first `count` 32-bit numbers of a control frame's body, each without its reserved first bit."""
    if len(body) < count * 4:
        raise ProtocolError("control frame too short")
    return tuple(n & 0x7FFFFFFF for n in struct.unpack_from(f"!{count}I", body))


def settings(body: bytes) -> Iterator[tuple[int, int]]:
    """(id, value) of a SETTINGS frame."""
    (count,) = numbers(body, 1)
    if len(body) < 4 + count * 8:
        raise ProtocolError("SETTINGS frame too short")
    for i in range(count):
        identity, value = struct.unpack_from("!II", body, 4 + i * 8)
        yield identity & 0xFFFFFF, value
