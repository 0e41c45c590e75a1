"""The shape of custom objects: unknown fields go, nulls that mean nothing go, defaults come.

All of it changes a freshly decoded object in place. The order on a write is `prune`, `drop_nulls`, `fill`; a stored
object that is read under a newer schema goes the same way. Rules: kubernetes.io/docs "Extend the Kubernetes API with
CustomResourceDefinitions", sections on pruning, defaulting and nullable.
"""

from typing import Any

from controlplane.api.definitions import OBJECT_META, Definitions
from controlplane.api.schema.structural import MISSING, Node
from controlplane.api.status import quote
from controlplane.api.structure import WrongType, below, structure, word

HEAD = frozenset(("apiVersion", "kind", "metadata"))
"""What every object has, whatever its schema says."""


def prune(value: Any, node: Node, path: str, report: list[str], *, root: bool = False) -> None:
    """Drop the fields that the schema does not know, and tell in `report`: 'unknown field "spec.x"'."""
    if type(value) is dict:
        keep = HEAD if root or node.embedded else ()
        properties, additional = node.properties, node.additional
        unknown = []
        for key, each in value.items():
            if key in keep:
                continue
            inner = properties.get(key)
            if inner is None:
                if additional is None:
                    if not node.preserve and not node.additional_any:
                        unknown.append(key)
                    continue
                inner = additional
            if type(each) is dict or type(each) is list:
                prune(each, inner, below(path, key), report)
        for key in unknown:
            report.append(f"unknown field {quote(below(path, key))}")
            del value[key]
    elif type(value) is list and node.items is not None:
        for index, each in enumerate(value):
            if type(each) is dict or type(each) is list:
                prune(each, node.items, f"{path}[{index}]", report)


def drop_nulls(value: Any, node: Node) -> None:
    """Drop nulls from fields that are not nullable: they mean the same as an absent field."""
    if type(value) is dict:
        gone = []
        for key, each in value.items():
            inner = node.properties.get(key) or node.additional
            if inner is None:
                continue
            if each is None:
                if not inner.nullable:
                    gone.append(key)
            else:
                drop_nulls(each, inner)
        for key in gone:
            del value[key]
    elif type(value) is list and node.items is not None:
        for each in value:
            drop_nulls(each, node.items)


def fill(value: Any, node: Node) -> None:
    """Put defaults where a field is absent, also inside objects that a default brought."""
    if not node.has_defaults:
        return
    if type(value) is dict:
        for key, inner in node.properties.items():
            if not inner.has_defaults:
                continue
            if key not in value and (default := inner.default()) is not MISSING:
                value[key] = default
            if key in value:
                fill(value[key], inner)
        if node.additional is not None and node.additional.has_defaults:
            for key, each in value.items():
                if key not in node.properties:
                    fill(each, node.additional)
    elif type(value) is list and node.items is not None:
        for each in value:
            fill(each, node.items)


def check_head(obj: dict[str, Any], path: str, report: list[str], definitions: Definitions | None) -> None:
    """The head of an object or embedded object: its metadata must be an ObjectMeta. Raises WrongType."""
    for key in ("apiVersion", "kind"):
        if key in obj and type(obj[key]) is not str:
            raise WrongType(
                f"json: cannot unmarshal {word(obj[key])} into Go struct field .{below(path, key)} of type string"
            )
    meta = obj.get("metadata")
    if meta is None:
        obj.pop("metadata", None)
        return
    node = structure(OBJECT_META, definitions)
    if not node.fits(meta):
        obj["metadata"] = node.repair(meta, below(path, "metadata"), report)


def check_embedded(
    value: Any, node: Node, path: str, report: list[str], definitions: Definitions | None = None
) -> None:
    """The heads of all embedded objects in `value`. Raises WrongType."""
    if type(value) is dict:
        if node.embedded:
            check_head(value, path, report, definitions)
        for key, each in value.items():
            inner = node.properties.get(key) or node.additional
            if inner is not None and type(each) in (dict, list):
                check_embedded(each, inner, below(path, key), report, definitions)
    elif type(value) is list and node.items is not None:
        for index, each in enumerate(value):
            check_embedded(each, node.items, f"{path}[{index}]", report, definitions)
