"""From protobuf to the JSON form of an object, as Go clients send it since Kubernetes 1.32.

The result is what the same client would have sent as JSON, and goes on through validate.py like that.
"""

import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from controlplane.api.status import bad_request
from controlplane.api.wire.table import MAGIC, Field, table

Object = dict[str, Any]
_DEPTH = 64  # JSONSchemaProps nests itself; nothing else is nearly as deep


class _Malformed(ValueError):
    """Bytes that are not protobuf, or not of this message."""


def decode(body: bytes) -> Object:
    """The object in a protobuf request body, with apiVersion and kind. Raises StatusError 400."""
    if not body.startswith(MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = _message("machinery.runtime.Unknown", memoryview(body)[len(MAGIC) :], 0, raw=True)
        type_meta = envelope.get("typeMeta", {})
        api_version, kind = type_meta.get("apiVersion", ""), type_meta.get("kind", "")
        if envelope.get("contentEncoding"):
            raise _Malformed(f"unsupported encoding {envelope['contentEncoding']}")
        name = table().find(api_version, kind)
        if name is None:
            raise bad_request(f'no kind "{kind}" is registered for version "{api_version}" in scheme')
        found = _message(name, memoryview(envelope.get("raw", b"")), 0)
    except (ValueError, msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise bad_request(f"unable to decode the protobuf body: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **found}


_numbered: dict[str, dict[int, Field]] = {}


def _by_number(name: str) -> dict[int, Field]:
    known = _numbered.get(name)
    if known is None:
        known = _numbered[name] = {field.number: field for field in table().fields(name)}
    return known


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("unexpected end of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field; the value is an int or, for anything with a length, a memoryview."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            size = 8 if kind == 1 else 4
            if kind == 2:
                size, at = _varint(data, at)
            if at + size > len(data):
                raise _Malformed("unexpected end of a field")
            value = data[at : at + size]
            at += size
        else:
            raise _Malformed(f"illegal wire type {kind}")
        if key >> 3 == 0:
            raise _Malformed("illegal field number 0")
        yield key >> 3, kind, value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _scalar(kind: str, wire: int, value: Any, raw: bool) -> Any:
    expected = {"s": 2, "y": 2, "d": 1}.get(kind, 0)
    if wire != expected:
        raise _Malformed(f"wrong wire type {wire}")
    if kind == "s":
        return str(value, "utf-8")
    if kind == "y":
        return bytes(value) if raw else b64encode(value).decode()
    if kind == "b":
        return value != 0
    if kind == "d":
        number = struct.unpack("<d", value)[0]
        return int(number) if number == int(number) else number
    return _signed(value)


_PACKABLE = frozenset("bild")


def _packed(kind: str, data: memoryview) -> Iterator[Any]:
    """Repeated numbers in one field: other languages' encoders write them like that, and every decoder must take it."""
    at = 0
    while at < len(data):
        if kind == "d":
            if at + 8 > len(data):
                raise _Malformed("unexpected end of a number")
            yield _scalar(kind, 1, data[at : at + 8], False)
            at += 8
        else:
            number, at = _varint(data, at)
            yield _scalar(kind, 0, number, False)


def _message(name: str, data: memoryview, depth: int, raw: bool = False) -> Object:
    """A message as a JSON object. `raw`: bytes stay bytes."""
    if depth > _DEPTH:
        raise _Malformed("nested too deeply")
    fields = _by_number(name)
    result: Object = {}
    for number, wire, value in _fields(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.flag == "%":
            result.setdefault(field.name, {}).update(_entry(field.type, wire, value, depth))
            continue
        if wire == 2 and field.flag == "*" and field.type in _PACKABLE:
            result.setdefault(field.name, []).extend(_packed(field.type, value))
            continue
        decoded = _value(field.type, wire, value, depth, raw)
        if field.flag == "*":
            result.setdefault(field.name, []).append(decoded)
        elif field.flag == "^":
            result.update(decoded)
        elif decoded is None or (not decoded and (field.flag == "-" or (field.flag != "+" and field.type in "sy"))):
            continue
        else:
            result[field.name] = decoded
    return result


def _value(kind: str, wire: int, value: Any, depth: int, raw: bool = False) -> Any:
    if len(kind) == 1:
        return _scalar(kind, wire, value, raw)
    if wire != 2:
        raise _Malformed(f"wrong wire type {wire}")
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(kind, value, depth)
    return _message(kind, value, depth + 1)


_ZERO: dict[str, Any] = {"s": "", "y": "", "b": False, "i": 0, "l": 0, "d": 0}


def _entry(kind: str, wire: int, data: Any, depth: int) -> Object:
    if wire != 2:
        raise _Malformed(f"wrong wire type {wire}")
    key = ""
    value: Any = _ZERO[kind] if len(kind) == 1 else None
    for number, inner, part in _fields(data):
        if number == 1:
            key = _scalar("s", inner, part, False)
        elif number == 2:
            value = _value(kind, inner, part, depth)
    if value is None:
        value = _value(kind, 2, memoryview(b""), depth)
    return {key: value}


# --- messages that are something else in JSON ------------------------------------------------------------------------


def _only(kind: str, data: memoryview) -> dict[int, Any]:
    return {number: value for number, _, value in _fields(data)}


def _quantity(kind: str, data: memoryview, depth: int) -> str:
    return str(_bytes(_only(kind, data).get(1)), "utf-8") or "0"


def _int_or_string(kind: str, data: memoryview, depth: int) -> int | str:
    parts = _only(kind, data)
    if parts.get(1, 0) == 1:
        return str(_bytes(parts.get(3)), "utf-8")
    return _signed(_number(parts.get(2)))


def _moment(data: memoryview) -> datetime | None:
    parts = _only("", data)
    seconds, nanos = _signed(_number(parts.get(1))), _number(parts.get(2))
    if not seconds and not nanos:
        return None  # Go's zero time, sent for a creationTimestamp that is not set
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _time(kind: str, data: memoryview, depth: int) -> str | None:
    moment = _moment(data)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _micro_time(kind: str, data: memoryview, depth: int) -> str | None:
    moment = _moment(data)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def _json(kind: str, data: memoryview, depth: int) -> Any:
    raw = bytes(_bytes(_only(kind, data).get(1)))
    return msgspec.json.decode(raw) if raw else None


def _items(kind: str, data: memoryview, depth: int) -> list[Any]:
    return [str(_bytes(value), "utf-8") for number, _, value in _fields(data) if number == 1]


_PROPS = "apiextensions.v1.JSONSchemaProps"


def _props_or_bool(kind: str, data: memoryview, depth: int) -> Any:
    parts = _only(kind, data)
    return _message(_PROPS, _bytes(parts[2]), depth + 1) if 2 in parts else bool(parts.get(1, 0))


def _props_or_array(kind: str, data: memoryview, depth: int) -> Any:
    found = [(number, _message(_PROPS, _bytes(value), depth + 1)) for number, _, value in _fields(data)]
    many = [schema for number, schema in found if number == 2]
    return many or next((schema for number, schema in found if number == 1), None)


def _props_or_strings(kind: str, data: memoryview, depth: int) -> Any:
    parts = list(_fields(data))
    for number, _, value in parts:
        if number == 1:
            return _message(_PROPS, _bytes(value), depth + 1)
    return [str(_bytes(value), "utf-8") for number, _, value in parts if number == 2]


def _bytes(value: Any) -> memoryview:
    if value is None:
        return memoryview(b"")
    if not isinstance(value, memoryview):
        raise _Malformed("wrong wire type 0")
    return value


def _number(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int):
        raise _Malformed("wrong wire type 2")
    return value


_SPECIAL: dict[str, Callable[[str, memoryview, int], Any]] = {
    "machinery.api.resource.Quantity": _quantity,
    "machinery.util.intstr.IntOrString": _int_or_string,
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.FieldsV1": _json,
    "machinery.runtime.RawExtension": _json,
    "apiextensions.v1.JSON": _json,
    "apiextensions.v1.JSONSchemaPropsOrBool": _props_or_bool,
    "apiextensions.v1.JSONSchemaPropsOrArray": _props_or_array,
    "apiextensions.v1.JSONSchemaPropsOrStringArray": _props_or_strings,
    "meta.v1.Verbs": _items,
    "authentication.v1.ExtraValue": _items,
    "authentication.v1.AttestationValue": _items,
    "authorization.v1.ExtraValue": _items,
    "certificates.v1.ExtraValue": _items,
}
