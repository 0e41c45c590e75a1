"""From the JSON form of an object to protobuf, as Kubernetes' own server answers those who prefer it.

Each message is compiled, when it is first met, to a dict from JSON name to a function that turns a value into the
field's bytes with its tag; encoding is a walk over what the object has, so absent fields cost nothing. A value that
does not fit its field's type is left out rather than failing the whole answer: what is stored went through validate.py,
so that only happens where two Kubernetes versions disagree about a type.

Objects without a message (custom resources) have no protobuf form: `message_of` says so.
"""

import struct
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from controlplane.api.wire.table import MAGIC, Field, table

Object = Mapping[str, Any]
Encode = Callable[[Any], bytes]

_to_json = msgspec.json.Encoder().encode
_MISFITS = (ValueError, TypeError, AttributeError, KeyError, Base64Error, struct.error)


@lru_cache(maxsize=1024)
def message_of(api_version: str, kind: str) -> str | None:
    """The message of a kind, None if it has none."""
    return table().find(api_version, kind)


def message(name: str, obj: Object) -> bytes:
    """`obj` as the message `name`, without kind and apiVersion. KeyError for a message that there is not."""
    return _compiled(name)(obj)


def encode(obj: Object) -> bytes | None:
    """A whole body: `obj`, or a list of such, in its envelope. None if its kind has no message."""
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    name = message_of(api_version, kind)
    if name is not None:
        return envelope(api_version, kind, message(name, obj))
    name = message_of(api_version, kind.removesuffix("List"))
    if name is None:
        return None
    # Every list has these two fields: that is why numbers.txt has no messages for them.
    parts = [sized(1, message("meta.v1.ListMeta", obj.get("metadata") or {}))]
    parts += [sized(2, message(name, item)) for item in obj.get("items") or ()]
    return envelope(api_version, kind, b"".join(parts))


def framed(raw: bytes) -> bytes:
    """A message as field 2 of another: so it lies in its envelope (`raw`) and, the same bytes, in a list (`items`)."""
    return b"\x12%b%b" % (varint(len(raw)), raw)


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """A message as a body of its own."""
    return enveloped(api_version, kind, framed(raw))


def enveloped(api_version: str, kind: str, item: bytes) -> bytes:
    """The same for a message that is `framed` already. The two empty fields are what Go writes too."""
    return b"%b%b\x1a\x00\x22\x00" % (_head(api_version, kind), item)


@lru_cache(maxsize=1024)
def _head(api_version: str, kind: str) -> bytes:
    return MAGIC + sized(1, sized(1, api_version.encode()) + sized(2, kind.encode()))


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= 0xFFFFFFFFFFFFFFFF
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = tuple(_varint(value) for value in range(16_384))


def varint(value: int) -> bytes:
    """A number; a negative one as the ten bytes of its two's complement."""
    return _SMALL[value] if 0 <= value < 16_384 else _varint(value)


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def sized(number: int, content: bytes) -> bytes:
    """A field that has a length: text, bytes or a message."""
    return tag(number, 2) + varint(len(content)) + content


# --- compilation -----------------------------------------------------------------------------------------------------

_messages: dict[str, Encode] = {}


def _compiled(name: str) -> Encode:
    known = _messages.get(name)
    if known is None:
        known = _messages[name] = _SPECIAL.get(name) or _message(name)
    return known


def _message(name: str) -> Encode:
    fields: dict[str, Encode] = {}
    inlined: list[Encode] = []

    def encoded(obj: Object) -> bytes:
        if not fields and not inlined:
            _fill(name, fields, inlined)
        parts = []
        for key, value in obj.items():
            field = fields.get(key)
            if field is not None and value is not None:
                try:
                    parts.append(field(value))
                except _MISFITS:
                    continue
        for each in inlined:
            parts.append(each(obj))
        return b"".join(parts)

    return encoded


def _fill(name: str, fields: dict[str, Encode], inlined: list[Encode]) -> None:
    # Only now, and not when the message is first mentioned: JSONSchemaProps contains itself.
    for field in table().fields(name):
        if field.flag == "^":
            inlined.append(_inline(field))
        elif field.flag == "*":
            fields[field.name] = _repeated(_single(field.number, field.type))
        elif field.flag == "%":
            fields[field.name] = _map(field.number, _single(1, "s"), _single(2, field.type))
        else:
            fields[field.name] = _single(field.number, field.type)
    fields.setdefault("", lambda _: b"")  # also a message without fields counts as filled


def _inline(field: Field) -> Encode:
    """Fields of another message that JSON has among this one's. Left out when there are none."""
    start, inner = tag(field.number, 2), _compiled(field.type)

    def encoded(obj: Any) -> bytes:
        content = inner(obj)
        return start + varint(len(content)) + content if content else b""

    return encoded


def _repeated(single: Encode) -> Encode:
    return lambda values: b"".join([single(value) for value in values if value is not None])


def _map(number: int, key_of: Encode, value_of: Encode) -> Encode:
    start = tag(number, 2)

    def encoded(values: Mapping[str, Any]) -> bytes:
        parts = []
        for key in sorted(values):  # as Go does: the same object is the same bytes
            value = values[key]
            entry = key_of(key) if value is None else key_of(key) + value_of(value)
            parts.append(start + varint(len(entry)) + entry)
        return b"".join(parts)

    return encoded


def _single(number: int, kind: str) -> Encode:
    if kind == "s":
        return _text(number)
    if kind == "b":
        yes, no = tag(number, 0) + b"\x01", tag(number, 0) + b"\x00"
        return lambda value: yes if value else no
    if kind in ("i", "l"):
        start = tag(number, 0)
        return lambda value: start + varint(int(value))
    if kind == "d":
        start = tag(number, 1)
        return lambda value: start + struct.pack("<d", value)
    start = tag(number, 2)
    content_of: Encode = a2b_base64 if kind == "y" else _compiled(kind)

    def encoded(value: Any) -> bytes:
        content = content_of(value)
        size = len(content)
        return start + (_SMALL[size] if size < 16_384 else _varint(size)) + content

    return encoded


def _text(number: int) -> Encode:
    start = tag(number, 2)
    short = [start + _SMALL[size] for size in range(128)]

    def encoded(value: str) -> bytes:
        content = value.encode()
        size = len(content)
        return short[size] + content if size < 128 else start + varint(size) + content

    return encoded


# --- messages that are something else in JSON ------------------------------------------------------------------------


def _quantity(value: Any) -> bytes:
    return sized(1, str(value).encode())


def _int_or_string(value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + sized(3, value.encode())
    return b"\x08\x00\x10%b\x1a\x00" % varint(int(value))


def _time(value: str) -> bytes:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return b"\x08%b\x10%b" % (varint(delta.days * 86_400 + delta.seconds), varint(delta.microseconds * 1000))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _json(value: Any) -> bytes:
    return sized(1, _to_json(value))


def _items(value: Any) -> bytes:
    return b"".join([sized(1, each.encode()) for each in value])


def _props_or_bool(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return b"\x08\x01" + sized(2, _compiled(_PROPS)(value))
    return b"\x08\x01" if value else b"\x08\x00"


def _props_or_array(value: Any) -> bytes:
    props = _compiled(_PROPS)
    if isinstance(value, Mapping):
        return sized(1, props(value))
    return b"".join([sized(2, props(each)) for each in value])


def _props_or_strings(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return sized(1, _compiled(_PROPS)(value))
    return b"".join([sized(2, each.encode()) for each in value])


_PROPS = "apiextensions.v1.JSONSchemaProps"
_SPECIAL: dict[str, Encode] = {
    "machinery.api.resource.Quantity": _quantity,
    "machinery.util.intstr.IntOrString": _int_or_string,
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _time,
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
