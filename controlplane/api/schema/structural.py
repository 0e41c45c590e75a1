"""A structural schema as a tree of nodes: read once when a CustomResourceDefinition comes, used by every write.

A node carries what pruning, defaulting and validation ask at each value, with the questions that can be answered
beforehand answered (`has_defaults`, `has_rules`, `plain`). Schemas inside allOf, anyOf, oneOf and not are nodes too;
they only ever validate.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema. Not here: whether a schema is structural
(validation/schemas.py).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

Schema = Mapping[str, Any]
"""A JSONSchemaProps as JSON."""

MISSING: Any = type("Missing", (), {"__slots__": (), "__repr__": lambda self: "MISSING"})()
"""No value: not null."""


class Node:
    """One place in a schema. `raw` is its JSON."""

    __slots__ = (
        "_default", "additional", "additional_any", "all_of", "any_of", "embedded", "enum", "has_defaults",
        "has_rules", "int_or_string", "items", "list_type", "map_keys", "map_type", "negated", "nullable", "one_of",
        "pattern", "preserve", "properties", "raw", "required", "rules", "type",
    )  # fmt: skip

    def __init__(self, raw: Schema) -> None:
        self.raw = raw
        self.type: str = raw.get("type", "")
        self.properties: dict[str, Node] = {k: Node(v) for k, v in (raw.get("properties") or {}).items()}
        additional = raw.get("additionalProperties")
        self.additional: Node | None = Node(additional) if isinstance(additional, Mapping) else None
        self.additional_any: bool = additional is True
        self.items: Node | None = Node(raw["items"]) if isinstance(raw.get("items"), Mapping) else None
        self.preserve: bool = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
        self.embedded: bool = bool(raw.get("x-kubernetes-embedded-resource"))
        self.int_or_string: bool = bool(raw.get("x-kubernetes-int-or-string"))
        self.nullable: bool = bool(raw.get("nullable"))
        self.list_type: str = raw.get("x-kubernetes-list-type") or ""
        self.map_keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        self.map_type: str = raw.get("x-kubernetes-map-type") or ""
        self.required: tuple[str, ...] = tuple(raw.get("required") or ())
        self.enum: list[Any] = list(raw.get("enum") or ())
        self.pattern: str = raw.get("pattern") or ""
        self.all_of = [Node(each) for each in raw.get("allOf") or ()]
        self.any_of = [Node(each) for each in raw.get("anyOf") or ()]
        self.one_of = [Node(each) for each in raw.get("oneOf") or ()]
        self.negated: Node | None = Node(raw["not"]) if isinstance(raw.get("not"), Mapping) else None
        self.rules: list[Schema] = list(raw.get("x-kubernetes-validations") or ())
        self._default = raw.get("default", MISSING)
        below = self.children()
        self.has_defaults: bool = self._default is not MISSING or any(node.has_defaults for node in below)
        self.has_rules: bool = bool(self.rules) or any(node.has_rules for node in below)

    def children(self) -> "list[Node]":
        """The nodes of values inside a value of this one."""
        return [
            *self.properties.values(),
            *([self.additional] if self.additional is not None else ()),
            *([self.items] if self.items is not None else ()),
        ]

    def child(self, key: str) -> "Node | None":
        """The node of an object's field."""
        return self.properties.get(key) or self.additional

    def default(self) -> Any:
        """The default, as the caller's own copy; MISSING if there is none."""
        value = self._default
        return msgspec.json.decode(msgspec.json.encode(value)) if isinstance(value, dict | list) else value
