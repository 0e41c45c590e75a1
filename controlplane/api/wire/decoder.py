"""From protobuf to the JSON form of an object, as Go clients send it since Kubernetes 1.32.

The result is what the same client would have sent as JSON, and goes on through validate.py like that. Each message is
compiled, when it is first met, to a dict from tag (number and wire type) to a function that puts the field's value into
the result; bytes are read where they lie, and only texts are copied out.
"""

import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from controlplane.api.status import bad_request
from controlplane.api.wire import special
from controlplane.api.wire.reader import Malformed, fields, signed, varint
from controlplane.api.wire.table import MAGIC, Field, table

Object = dict[str, Any]
Value = Callable[[bytes, int, int, int], Any]
"""The value of what lies between two places; the last argument says how deep we are."""
Put = Callable[[Object, bytes, int, int, int], None]
PutNumber = Callable[[Object, int], None]

_DEPTH = 64  # JSONSchemaProps nests itself; nothing else is nearly as deep


def decode(body: bytes) -> Object:
    """The object in a protobuf request body, with apiVersion and kind. Raises StatusError 400."""
    if not body.startswith(MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        api_version, kind, start, end = _envelope(body)
        name = table().find(api_version, kind)
        if name is None:
            raise bad_request(f'no kind "{kind}" is registered for version "{api_version}" in scheme')
        found = message(name)(body, start, end, 0)
    except (ValueError, msgspec.DecodeError, OverflowError, RecursionError, struct.error) as error:
        raise bad_request(f"unable to decode the protobuf body: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **found}


def _envelope(body: bytes) -> tuple[str, str, int, int]:
    """runtime.Unknown: apiVersion, kind, and where the object's message lies."""
    api_version = kind = ""
    start = end = len(body)
    for number, wire, first, last in fields(body, len(MAGIC), len(body)):
        if wire != 2:
            raise Malformed(f"wrong wire type {wire}")
        if number == 1:
            for part, inner, at, stop in fields(body, first, last):
                if inner == 2 and part == 1:
                    api_version = body[at:stop].decode()
                elif inner == 2 and part == 2:
                    kind = body[at:stop].decode()
        elif number == 2:
            start, end = first, last
        elif number == 3 and first != last:
            raise Malformed(f"unsupported encoding {body[first:last].decode()}")
    return api_version, kind, start, end


# --- compilation -----------------------------------------------------------------------------------------------------

_messages: dict[str, Value] = {}


def message(name: str) -> Value:
    """What reads a message, which gives a JSON object, or what the message is instead in JSON."""
    known = _messages.get(name)
    if known is None:
        known = _messages[name] = special.VALUES.get(name) or _PROPS.get(name) or _compiled(name)
    return known


def _compiled(name: str) -> Value:
    sized: dict[int, Put] = {}
    numbers: dict[int, PutNumber] = {}
    known: set[int] = set()

    def read(data: bytes, at: int, end: int, depth: int) -> Object:
        if not known:
            _fill(name, sized, numbers, known)
        if depth > _DEPTH:
            raise Malformed("nested too deeply")
        result: Object = {}
        while at < end:
            key = data[at]
            at += 1
            if key > 127:
                key, at = varint(data, at - 1, end)
            wire = key & 7
            if wire == 2:
                if at >= end:
                    raise Malformed("unexpected end of a number")
                size = data[at]
                at += 1
                if size > 127:
                    size, at = varint(data, at - 1, end)
                stop = at + size
                if stop > end:
                    raise Malformed("unexpected end of a field")
                put = sized.get(key)
                if put is not None:
                    put(result, data, at, stop, depth)
                elif key >> 3 in known:
                    raise Malformed(f"wrong wire type {wire}")
                at = stop
            elif wire == 0:
                if at < end and data[at] < 128:
                    value = data[at]
                    at += 1
                else:
                    value, at = varint(data, at, end)
                count = numbers.get(key)
                if count is not None:
                    count(result, value)
                elif key >> 3 in known:
                    raise Malformed(f"wrong wire type {wire}")
            elif wire in (1, 5):
                stop = at + (8 if wire == 1 else 4)
                if stop > end:
                    raise Malformed("unexpected end of a field")
                put = sized.get(key)
                if put is not None:
                    put(result, data, at, stop, depth)
                elif key >> 3 in known:
                    raise Malformed(f"wrong wire type {wire}")
                at = stop
            else:
                raise Malformed(f"illegal wire type {wire}")
            if key < 8:
                raise Malformed("illegal field number 0")
        return result

    return read


def _fill(name: str, sized: dict[int, Put], numbers: dict[int, PutNumber], known: set[int]) -> None:
    # Only at the first value, and not when the message is first mentioned: JSONSchemaProps contains itself.
    known.add(0)  # also a message without fields is filled
    for field in table().fields(name):
        known.add(field.number)
        if field.type in ("b", "i", "l") and field.flag != "%":
            numbers[field.number << 3] = _number(field)
            if field.flag == "*":
                sized[field.number << 3 | 2] = _packed(field)
        elif field.flag == "%":
            sized[field.number << 3 | 2] = _map(field)
        else:
            sized[field.number << 3 | (1 if field.type == "d" else 2)] = _put(field, _value(field.type))


def _number(field: Field) -> PutNumber:
    name, kind = field.name, field.type

    def of(value: int) -> Any:
        return value != 0 if kind == "b" else value if value < 1 << 63 else value - (1 << 64)

    if field.flag == "*":
        return lambda result, value: result.setdefault(name, []).append(of(value))
    if field.flag == "-":

        def put(result: Object, value: int) -> None:
            if value:
                result[name] = of(value)

        return put

    def keep(result: Object, value: int) -> None:
        result[name] = of(value)

    return keep


def _packed(field: Field) -> Put:
    """Repeated numbers in one field: other languages' encoders write them so, and every decoder must take it."""
    put_one = _number(field)

    def put(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        while at < end:
            value, at = varint(data, at, end)
            put_one(result, value)

    return put


def _put(field: Field, value_of: Value) -> Put:
    name = field.name

    def append(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        result.setdefault(name, []).append(value_of(data, at, end, depth))

    def inline(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        result.update(value_of(data, at, end, depth))

    def keep(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        value = value_of(data, at, end, depth)
        if value is not None:
            result[name] = value

    def unless_empty(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        if at != end:
            result[name] = value_of(data, at, end, depth)

    def text(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        if at != end:
            result[name] = data[at:end].decode()

    if field.flag == "*":
        return append
    if field.flag == "^":
        return inline
    if field.flag == "+":
        return keep
    if field.type == "s":
        return text
    return unless_empty if field.type == "y" else keep


def _value(kind: str) -> Value:
    if kind == "s":
        return lambda data, at, end, depth: data[at:end].decode()
    if kind == "y":
        return lambda data, at, end, depth: b64encode(data[at:end]).decode()
    if kind == "d":
        return _double
    read = message(kind)
    return lambda data, at, end, depth: read(data, at, end, depth + 1)


def _double(data: bytes, at: int, end: int, depth: int) -> float | int:
    number: float = struct.unpack_from("<d", data, at)[0]
    return int(number) if number == int(number) else number


_ZERO: dict[str, Any] = {"s": "", "y": "", "b": False, "i": 0, "l": 0, "d": 0}


def _texts(data: bytes, at: int, end: int) -> tuple[str, str] | None:
    """A map's entry of two short texts, as every encoder writes it (key = 1, value = 2); None for any other."""
    if end - at < 4 or data[at] != 0x0A:
        return None
    middle = at + 2 + data[at + 1]
    if middle + 2 > end or data[middle] != 0x12 or data[at + 1] > 127 or data[middle + 1] > 127:
        return None
    if middle + 2 + data[middle + 1] != end:
        return None
    return data[at + 2 : middle].decode(), data[middle + 2 : end].decode()


def _map(field: Field) -> Put:
    name, kind = field.name, field.type
    wanted = {"b": 0, "i": 0, "l": 0, "d": 1}.get(kind, 2)
    value_of = None if wanted == 0 else _value(kind)

    def put(result: Object, data: bytes, at: int, end: int, depth: int) -> None:
        if kind == "s" and (pair := _texts(data, at, end)) is not None:
            result.setdefault(name, {})[pair[0]] = pair[1]
            return
        key, value = "", _ZERO.get(kind)
        for number, wire, first, last in fields(data, at, end):
            if number == 1 and wire == 2:
                key = data[first:last].decode()
            elif number == 2 and wire == wanted:
                if value_of is not None:
                    value = value_of(data, first, last, depth)
                else:
                    value = first != 0 if kind == "b" else signed(first)
            elif number in (1, 2):
                raise Malformed(f"wrong wire type {wire}")
        if value is None and value_of is not None:
            value = value_of(b"", 0, 0, depth)
        result.setdefault(name, {})[key] = value

    return put


# --- the parts of a schema that are one thing or another -------------------------------------------------------------

_SCHEMA = "apiextensions.v1.JSONSchemaProps"


def _props_or_bool(data: bytes, at: int, end: int, depth: int) -> Any:
    allowed = False
    for number, wire, first, last in fields(data, at, end):
        if number == 2 and wire == 2:
            return message(_SCHEMA)(data, first, last, depth + 1)
        if number == 1 and wire == 0:
            allowed = first != 0
    return allowed


def _props_or_array(data: bytes, at: int, end: int, depth: int) -> Any:
    one, many = None, []
    for number, wire, first, last in fields(data, at, end):
        if wire != 2:
            raise Malformed(f"wrong wire type {wire}")
        schema = message(_SCHEMA)(data, first, last, depth + 1)
        if number == 2:
            many.append(schema)
        elif number == 1:
            one = schema
    return many or one


def _props_or_strings(data: bytes, at: int, end: int, depth: int) -> Any:
    texts = []
    for number, wire, first, last in fields(data, at, end):
        if wire != 2:
            raise Malformed(f"wrong wire type {wire}")
        if number == 1:
            return message(_SCHEMA)(data, first, last, depth + 1)
        texts.append(data[first:last].decode())
    return texts


_PROPS: dict[str, Value] = {
    "apiextensions.v1.JSONSchemaPropsOrBool": _props_or_bool,
    "apiextensions.v1.JSONSchemaPropsOrArray": _props_or_array,
    "apiextensions.v1.JSONSchemaPropsOrStringArray": _props_or_strings,
}
