"""CRI messages as dicts, to protobuf and back.

A message is a dict with the names of api.proto. Decoded, it has every scalar, enum, list and map (empty if absent); a
message that was not sent is missing, as proto3 tells the two apart. Enums are their members' names; a number without a
name stays a number in a text. Encoding leaves out what is empty, and knows no field that numbers.txt does not know.

Each message is compiled when it is first met: a dict from tag to reader, a list of writers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from nodeagent.cri.table import Field, table

Message = dict[str, Any]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1
_INTEGERS = ("int32", "int64", "uint32", "uint64")
_DEFAULTS: dict[str, Any] = {"string": "", "bytes": b"", "bool": False, "double": 0.0, **dict.fromkeys(_INTEGERS, 0)}
_NO_MAP: Mapping[str, str] = MappingProxyType({})


class Malformed(ValueError):
    """Bytes that are not this message."""


def decode(name: str, data: bytes) -> Message:
    """The message `name` in `data`. Raises Malformed."""
    try:
        return _decode(name, data, 0, len(data))
    except (IndexError, UnicodeDecodeError, struct.error) as error:
        raise Malformed(f"{name}: {error}") from error


def encode(name: str, message: Mapping[str, Any]) -> bytes:
    """Raises KeyError for a field or enum member that there is not, TypeError for a value of another type."""
    out = bytearray()
    writers = _writers(name)
    for field, value in message.items():
        writer = writers[field]
        if value is not None:
            writer(out, value)
    return bytes(out)


# Reading.


def _decode(name: str, data: bytes, at: int, end: int) -> Message:
    template, readers = _readers(name)
    message = template.copy()
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value, at = (at, at + size), at + size
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            value, at = (at, at + size), at + size
        else:
            raise Malformed(f"{name}: wire type {wire}")
        if at > end:
            raise Malformed(f"{name}: ends too early")
        reader = readers.get(tag)
        if reader is not None:
            reader(message, data, value)
    return message


def _varint(data: bytes, at: int) -> tuple[Any, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at + 1
        shift += 7
        if shift > 63:
            raise Malformed("a number is too long")


Reader = Callable[[Message, bytes, Any], None]


@cache
def _readers(name: str) -> tuple[Message, dict[int, Reader]]:
    """An empty message, and what reads each field, by tag."""
    template: Message = {}
    readers: dict[int, Reader] = {}
    for field in table().messages[name]:
        if field.repeated:
            template[field.name] = ()
        elif field.type == "map":
            template[field.name] = _NO_MAP
        elif field.type in _DEFAULTS:
            template[field.name] = _DEFAULTS[field.type]
        elif field.type in table().enums:
            template[field.name] = _member(field.type, 0)
        wire, value = _value(field)
        if field.type == "map":
            readers[field.number << 3 | _BYTES] = _map_reader(field.name)
        elif field.repeated:
            readers[field.number << 3 | wire] = _list_reader(field.name, value)
            if wire == _VARINT:
                readers[field.number << 3 | _BYTES] = _packed_reader(field.name, value)
        else:
            readers[field.number << 3 | wire] = _reader(field.name, value)
    return template, readers


def _value(field: Field) -> tuple[int, Callable[[bytes, Any], Any]]:
    """The wire type of one value, and what makes a value of it."""
    type_ = field.type
    match type_:
        case "string":
            return _BYTES, lambda data, span: data[span[0] : span[1]].decode()
        case "bytes":
            return _BYTES, lambda data, span: data[span[0] : span[1]]
        case "bool":
            return _VARINT, lambda data, number: number != 0
        case "int32" | "int64":
            return _VARINT, lambda data, number: number - (1 << 64) if number >> 63 else number
        case "uint32" | "uint64":
            return _VARINT, lambda data, number: number
        case "double":
            return _FIXED64, lambda data, span: struct.unpack_from("<d", data, span[0])[0]
    if type_ in table().enums:
        return _VARINT, lambda data, number: _member(type_, number)
    return _BYTES, lambda data, span: _decode(type_, data, *span)


def _member(enum: str, number: int) -> str:
    return _members(enum).get(number) or str(number)


@cache
def _members(enum: str) -> dict[int, str]:
    return {number: name for name, number in table().enums[enum].items()}


def _reader(name: str, value: Callable[[bytes, Any], Any]) -> Reader:
    def read(message: Message, data: bytes, raw: Any) -> None:
        message[name] = value(data, raw)

    return read


def _list_reader(name: str, value: Callable[[bytes, Any], Any]) -> Reader:
    def read(message: Message, data: bytes, raw: Any) -> None:
        if not message[name]:
            message[name] = []
        message[name].append(value(data, raw))

    return read


def _packed_reader(name: str, value: Callable[[bytes, Any], Any]) -> Reader:
    def read(message: Message, data: bytes, raw: Any) -> None:
        at, end = raw
        found = list(message[name])
        while at < end:
            number, at = _varint(data, at)
            found.append(value(data, number))
        message[name] = found

    return read


def _map_reader(name: str) -> Reader:
    def read(message: Message, data: bytes, raw: Any) -> None:
        entry = _decode("MapEntry", data, *raw)
        if not message[name]:
            message[name] = {}
        message[name][entry["key"]] = entry["value"]

    return read


# Writing.

Writer = Callable[[bytearray, Any], None]


@cache
def _writers(name: str) -> dict[str, Writer]:
    return {field.name: _writer(field) for field in table().messages[name]}


def _writer(field: Field) -> Writer:
    tag = _number(field.number << 3 | (_BYTES if field.repeated or field.type == "map" else _wire(field.type)))
    if field.type == "map":
        return lambda out, value: _write_map(out, tag, value)
    one = _bytes_of(field.type)
    if field.repeated and _wire(field.type) == _VARINT:
        return lambda out, values: _write_sized(out, tag, b"".join(map(one, values))) if values else None
    if field.repeated:
        return lambda out, values: _write_list(out, tag, one, values)
    if field.type in table().messages:  # an empty message is still a message
        return lambda out, value: _write_sized(out, tag, one(value))
    sized = _wire(field.type) == _BYTES
    zero = _member(field.type, 0) if field.type in table().enums else None

    def write(out: bytearray, value: Any) -> None:
        if not value or value == zero:
            return
        if sized:
            _write_sized(out, tag, one(value))
        else:
            out += tag + one(value)

    return write


def _wire(type_: str) -> int:
    if type_ == "double":
        return _FIXED64
    return _VARINT if type_ == "bool" or type_ in _INTEGERS or type_ in table().enums else _BYTES


def _bytes_of(type_: str) -> Callable[[Any], bytes]:
    match type_:
        case "string":
            return lambda value: value.encode("utf-8", "replace")
        case "bytes":
            return bytes
        case "double":
            return lambda value: struct.pack("<d", value)
        case "bool" | "int32" | "int64" | "uint32" | "uint64":
            return lambda value: _number(int(value) & _MASK)
    if type_ in table().enums:
        members = table().enums[type_]
        return lambda value: _number(members[value])
    return lambda value: encode(type_, value)


def _write_sized(out: bytearray, tag: bytes, data: bytes) -> None:
    out += tag + _number(len(data)) + data


def _write_list(out: bytearray, tag: bytes, one: Callable[[Any], bytes], values: Any) -> None:
    for value in values:
        _write_sized(out, tag, one(value))


def _write_map(out: bytearray, tag: bytes, value: Mapping[str, str]) -> None:
    for key, text in value.items():
        _write_sized(out, tag, encode("MapEntry", {"key": key, "value": text}))


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
