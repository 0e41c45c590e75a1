"""Schemas as trees of nodes that can check and repair a value: the machine behind validate.py.

Built from the definitions lazily: a kind's node the first time it is asked for, an object's fields at the first value
that has one, because schemas are large and their use is not. Every node has a `fits` that only says yes or no, and a
`repair` that knows where it is. How both are used, and what the answers mean, is validate.py's.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from controlplane.api import quantity
from controlplane.api.definitions import INT_OR_STRING, MICRO_TIME, QUANTITY, TIME, Definitions, Schema, load, ref_name
from controlplane.api.status import quote

Object = dict[str, Any]
Fits = Callable[[Any], bool]


class WrongType(ValueError):
    """A value that the decoder cannot take, in its words."""


class Node(Protocol):
    """A place in a schema."""

    go_type: str

    def fits(self, value: Any) -> bool:
        """Whether the value can stay as it is."""

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        """The value as it must be; unknown fields go to `report`. Raises WrongType."""


def structure(schema: str, definitions: Definitions | None = None) -> Node:
    """The node of a definition, compiled once. KeyError if there is no such definition."""
    source = definitions or load()
    nodes = _compiled.setdefault(id(source), (source, {}))[1]
    return _named(schema, source, nodes)


# Keyed by identity; the Definitions are kept beside their nodes so that the id stays theirs.
_compiled: dict[int, tuple[Definitions, dict[str, Node]]] = {}


def below(path: str, key: str) -> str:
    """The path of a field: "spec" and "replicas" -> "spec.replicas"."""
    return f"{path}.{key}" if path else key


def word(value: Any) -> str:
    """What Go calls the type of a JSON value."""
    kinds = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _wrong(value: Any, go_type: str, path: str, shown: str = "") -> WrongType:
    field = re.sub(r"\[\d+\]", "", path)
    return WrongType(f"json: cannot unmarshal {shown or word(value)} into Go struct field {field} of type {go_type}")


class _Any:
    go_type = "interface {}"

    def fits(self, value: Any) -> bool:
        return True

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        return value


class _Scalar:
    """A string, boolean or number."""

    def __init__(self, python: type, go_type: str) -> None:
        self.python = python
        self.go_type = go_type

    def fits(self, value: Any) -> bool:
        return type(value) is self.python

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return self.python()
        if type(value) is not self.python:
            raise _wrong(value, self.go_type, path)
        return value


class _Integer:
    def __init__(self, bits: int) -> None:
        self.go_type = f"int{bits}"
        self.limit: int = 1 << (bits - 1)

    def fits(self, value: Any) -> bool:
        return type(value) is int and -self.limit <= value < self.limit

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return 0
        if not self.fits(value):
            number = type(value) in (int, float)
            raise _wrong(value, self.go_type, path, f"number {value}" if number else "")
        return value


class _Number:
    go_type = "float64"

    def fits(self, value: Any) -> bool:
        return type(value) in (float, int)

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return 0
        if not self.fits(value):
            raise _wrong(value, self.go_type, path)
        return value


class _IntOrString:
    go_type = "intstr.IntOrString"

    def fits(self, value: Any) -> bool:
        return type(value) is str or (type(value) is int and -(1 << 31) <= value < 1 << 31)

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return 0
        if not self.fits(value):
            shown = f"number {value}" if type(value) in (int, float) else ""
            raise WrongType(f"json: cannot unmarshal {shown or word(value)} into Go value of type int32")
        return value


class _Quantity:
    go_type = "resource.Quantity"

    def fits(self, value: Any) -> bool:
        try:
            return type(value) is str and quantity.canonical(value) == value
        except ValueError:
            return False

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return "0"
        if type(value) not in (str, int, float):
            raise _wrong(value, self.go_type, path)
        try:
            return str(quantity.of(value))
        except ValueError as error:
            raise WrongType(str(error)) from None


class _Bytes:
    go_type = "[]uint8"

    def fits(self, value: Any) -> bool:
        if type(value) is not str:
            return False
        try:
            a2b_base64(value, strict_mode=True)
        except (Base64Error, ValueError):
            return not value
        return True

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return ""
        if type(value) is not str:
            raise _wrong(value, self.go_type, path)
        joined = value.replace("\n", "").replace("\r", "")
        if not self.fits(joined):
            at = next((i for i, char in enumerate(joined) if not (char.isalnum() or char in "+/=")), len(joined))
            raise WrongType(f"illegal base64 data at input byte {at}")
        return joined


_IS_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII).fullmatch
_IS_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII).fullmatch
_IS_ANY_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch


class _Time:
    """metav1.Time or MicroTime: text in UTC with whole seconds, or with six decimals."""

    def __init__(self, micro: bool) -> None:
        self.go_type = "v1.MicroTime" if micro else "v1.Time"
        self._canonical = _IS_MICRO_TIME if micro else _IS_TIME
        self._timespec = "microseconds" if micro else "seconds"

    def fits(self, value: Any) -> bool:
        if type(value) is not str or not self._canonical(value):
            return False
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return False
        return True

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return None
        if type(value) is not str:
            raise _wrong(value, "string", path)
        try:
            if not _IS_ANY_TIME(value):
                raise ValueError("not a time")
            moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            layout = "2006-01-02T15:04:05Z07:00"
            raise WrongType(f'parsing time {quote(value)} as "{layout}": cannot parse {quote(value)}') from None
        return moment.replace(tzinfo=None).isoformat(timespec=self._timespec) + "Z"


class _List:
    def __init__(self, item: Node) -> None:
        self.item = item
        self.go_type = f"[]{item.go_type}"
        self._only = {str} if isinstance(item, _Scalar) and item.python is str else None

    def fits(self, value: Any) -> bool:
        if type(value) is not list:
            return False
        if self._only:
            return not value or set(map(type, value)) == self._only
        fits = self.item.fits
        for each in value:  # noqa: SIM110 (a generator costs more than the checks)
            if not fits(each):
                return False
        return True

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if type(value) is not list:
            raise _wrong(value, self.go_type, path)
        for index, each in enumerate(value):
            value[index] = self.item.repair(each, f"{path}[{index}]", report)
        return value


class _Map:
    def __init__(self, item: Node) -> None:
        self.item = item
        self.go_type = f"map[string]{item.go_type}"
        self._only = {str} if isinstance(item, _Scalar) and item.python is str else None

    def fits(self, value: Any) -> bool:
        if type(value) is not dict:
            return False
        if self._only:
            return not value or set(map(type, value.values())) == self._only
        fits = self.item.fits
        for each in value.values():  # noqa: SIM110
            if not fits(each):
                return False
        return True

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if type(value) is not dict:
            raise _wrong(value, self.go_type, path)
        for key, each in value.items():
            try:
                value[key] = self.item.repair(each, f"{path}.{key}", report)
            except WrongType:
                if isinstance(self.item, _Scalar):
                    raise _wrong(each, self.item.go_type, path) from None
                raise
        return value


class _SchemaOr:
    """A JSONSchemaProps, or another thing in its place: a boolean, a list of schemas."""

    go_type = "apiextensions.JSONSchemaProps"

    def __init__(self, schema: Node, other: type, inner: Node | None = None) -> None:
        self._schema = schema
        self._other = other
        self._inner = inner

    def _of(self, value: Any) -> Node | None:
        return self._schema if type(value) is dict else self._inner

    def fits(self, value: Any) -> bool:
        if type(value) is not dict and type(value) is not self._other:
            return False
        node = self._of(value)
        return node is None or node.fits(value)

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if type(value) is not dict and type(value) is not self._other:
            words = "boolean or JSON schema expected" if self._other is bool else "JSON schema or array expected"
            raise WrongType(words)
        node = self._of(value)
        return value if node is None else node.repair(value, path, report)


class _Object:
    """An object with known fields. They are compiled at the first value that has one: schemas are large, use is not."""

    def __init__(self, name: str, source: Definitions, nodes: dict[str, Node]) -> None:
        parts = name.rsplit(".", 2)
        self.name = parts[-1]
        self.go_type = ".".join(parts[-2:])
        self._full_name = name
        self._source = source
        self._nodes = nodes
        self._types: dict[str, type] = {}
        self._fits: dict[str, Fits] = {}
        self._fields: dict[str, Node] = {}

    def fits(self, value: Any) -> bool:
        if type(value) is not dict:
            return False
        types, checks = self._types, self._fits
        for key, each in value.items():
            if types.get(key) is type(each):
                continue
            fits = checks.get(key)
            if fits is None:
                if self._fields:
                    return False
                self._compile()
                return self.fits(value)
            if not fits(each):
                return False
        return True

    def repair(self, value: Any, path: str, report: list[str]) -> Any:
        if value is None:
            return {}
        if type(value) is not dict:
            raise _wrong(value, self.go_type, path)
        if not self._fields:
            self._compile()
        for key, each in list(value.items()):
            node = self._fields.get(key)
            if node is None:
                report.append(f"unknown field {quote(below(path, key))}")
                del value[key]
            elif each is None:
                del value[key]
            else:
                try:
                    value[key] = node.repair(each, below(path, key), report)
                except WrongType as wrong:
                    raise self._named(wrong) from None
        return value

    def _named(self, wrong: WrongType) -> WrongType:
        # Go says the struct that the field is in, once, before the path: "PodSpec.spec.nodeName".
        text = str(wrong)
        return WrongType(re.sub(r"Go struct field (?=[a-z$])", f"Go struct field {self.name}.", text, count=1))

    def _compile(self) -> None:
        for key, schema in self._source.schemas[self._full_name].get("properties", {}).items():
            node = _node(schema, self._source, self._nodes)
            self._fields[key] = node
            if isinstance(node, _Scalar):
                self._types[key] = node.python
            self._fits[key] = node.fits


_ANY = _Any()
_STRING = _Scalar(str, "string")
_SPECIAL: dict[str, Node] = {
    QUANTITY: _Quantity(),
    INT_OR_STRING: _IntOrString(),
    TIME: _Time(micro=False),
    MICRO_TIME: _Time(micro=True),
}
_OF_TYPE: dict[tuple[str, str], Node] = {
    ("string", ""): _STRING,
    ("string", "byte"): _Bytes(),
    ("boolean", ""): _Scalar(bool, "bool"),
    ("integer", "int32"): _Integer(32),
    ("integer", "int64"): _Integer(64),
    ("number", "double"): _Number(),
}
_ANY_OBJECT = _Map(_ANY)


def _named(name: str, source: Definitions, nodes: dict[str, Node]) -> Node:
    node = nodes.get(name)
    if node is None:
        node = nodes[name] = _SPECIAL.get(name) or _definition(name, source, nodes)
    return node


def _definition(name: str, source: Definitions, nodes: dict[str, Node]) -> Node:
    schema = source.schemas[name]
    head, _, union = name.rpartition("JSONSchemaPropsOr")
    if head:
        props = _named(f"{head}JSONSchemaProps", source, nodes)
        return _SchemaOr(props, bool) if union == "Bool" else _SchemaOr(props, list, _List(props))
    return _Object(name, source, nodes) if schema.get("properties") else _node(schema, source, nodes)


def _node(schema: Schema, source: Definitions, nodes: dict[str, Node]) -> Node:
    if (ref := schema.get("$ref")) is not None:
        return _named(ref_name(ref), source, nodes)
    kind = schema.get("type")
    if kind == "array":
        return _List(_node(schema.get("items", {}), source, nodes))
    if kind == "object":
        values = schema.get("additionalProperties")
        return _Map(_node(values, source, nodes)) if isinstance(values, dict) else _ANY_OBJECT
    if kind is None:
        return _ANY
    node = _OF_TYPE.get((kind, schema.get("format", ""))) or _OF_TYPE.get((kind, ""))
    return node or (_Integer(64) if kind == "integer" else _Number())
