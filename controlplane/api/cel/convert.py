"""JSON as CEL sees it through a schema: numbers are doubles, bytes are bytes, awkward field names are escaped.

Source: kubernetes.io/docs "CustomResourceDefinitions", validation rules: the table of types, and property names. A
value whose schema needs none of it is handed over as it is. Times and durations stay texts, because the library takes
them only at the top level; library.py gives texts the operators of timestamps and durations instead.
"""

from base64 import b64decode
from typing import Any

from controlplane.api.schema.structural import Node

_RESERVED = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip


def escaped(name: str) -> str:
    """A field's name as an identifier: "a-b" -> "a__dash__b", "namespace" -> "__namespace__"."""
    if name in _RESERVED:
        return f"__{name}__"
    return (
        name.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )


def converts(node: Node) -> bool:
    """Whether values of `node` differ in CEL from what they are in JSON."""
    return (
        node.type == "number"
        or (node.type == "string" and node.raw.get("format") == "byte")
        or any(escaped(key) != key for key in node.properties)
        or any(converts(each) for each in node.children())
    )


def to_cel(value: Any, node: Node) -> Any:
    """`value` for CEL. Values that do not fit their schema stay as they are."""
    if value is None:
        return value
    if type(value) is dict:
        result = {}
        for key, each in value.items():
            inner = node.child(key)
            name = escaped(key) if key in node.properties else key
            result[name] = each if inner is None else to_cel(each, inner)
        return result
    if type(value) is list:
        return value if node.items is None else [to_cel(each, node.items) for each in value]
    if type(value) is int and node.type == "number":
        return float(value)
    if type(value) is str and node.type == "string" and node.raw.get("format") == "byte":
        try:
            return b64decode(value, validate=True)
        except ValueError:
            return value
    return value
