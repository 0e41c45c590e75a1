"""The primitives of protobuf's wire format: numbers, and a message as a row of fields."""

from collections.abc import Iterator


class Malformed(ValueError):
    """Bytes that are not protobuf, or not of this message."""


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise Malformed("unexpected end of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and either a number and 0, or where the field's content begins and ends."""
    while at < end:
        key, at = varint(data, at, end)
        wire = key & 7
        if key < 8:
            raise Malformed("illegal field number 0")
        if wire == 0:
            value, at = varint(data, at, end)
            yield key >> 3, 0, value, 0
            continue
        if wire not in (1, 2, 5):
            raise Malformed(f"illegal wire type {wire}")
        size = 8 if wire == 1 else 4
        if wire == 2:
            size, at = varint(data, at, end)
        if at + size > end:
            raise Malformed("unexpected end of a field")
        yield key >> 3, wire, at, at + size
        at += size
