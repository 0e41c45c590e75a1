"""OpenAPI v2 as protobuf, the only form of it that kubectl reads (for `kind: List` files, and for old clients).

A schema's fields by their numbers in gnostic's openapiv2/OpenAPIv2.proto; extensions and enum values are YAML texts
there, for which JSON will do. Paths are left out: no client looks for them in this form.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

Schema = Mapping[str, Any]
CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ACCEPTED = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", CONTENT_TYPE)

_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16}
_COUNTS = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18}


def document(version: str, definitions: Mapping[str, Schema]) -> bytes:
    """The whole document, of `definitions` whose references begin with "#/definitions/"."""
    named = b"".join(_message(1, _named(name, _schema(schema))) for name, schema in definitions.items())
    info = _text(1, "Kubernetes") + _text(2, version)
    return _text(1, "2.0") + _message(2, info) + _message(8, b"") + _message(9, named)


def _schema(schema: Schema) -> bytes:
    parts: list[bytes] = []
    for key, value in schema.items():
        if key in _TEXTS:
            parts.append(_text(_TEXTS[key], value))
        elif key in _FLAGS:
            parts.append(_number(_FLAGS[key], int(value)))
        elif key in _COUNTS:
            parts.append(_number(_COUNTS[key], value))
        elif key == "type":
            parts.append(_message(22, _text(1, value)))
        elif key == "required":
            parts += [_text(19, each) for each in value]
        elif key == "enum":
            parts += [_message(20, _yaml(each)) for each in value]
        elif key == "default":
            parts.append(_message(5, _yaml(value)))
        elif key == "items":
            parts.append(_message(23, _message(1, _schema(value))))
        elif key == "allOf":
            parts += [_message(24, _schema(each)) for each in value]
        elif key == "properties":
            parts.append(_message(25, b"".join(_message(1, _named(n, _schema(s))) for n, s in value.items())))
        elif key == "additionalProperties":
            content = _number(2, int(value)) if isinstance(value, bool) else _message(1, _schema(value))
            parts.append(_message(21, content))
        elif key.startswith("x-"):
            parts.append(_message(31, _named(key, _yaml(value))))
    return b"".join(parts)


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _message(2, value)


def _yaml(value: Any) -> bytes:
    return _text(2, msgspec.json.encode(value).decode() + "\n")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
