"""The general rule for kinds without rules of their own: fields that the schema requires must be there.

Kubernetes states such rules by hand, and so do the modules beside this one for the kinds that matter most.
Only the spec (or what stands in its place) is looked at: status is the controllers'.
"""

from typing import Any

from controlplane.api import definitions
from controlplane.api.definitions import ref_name
from controlplane.api.status import Cause, required

_SKIPPED = frozenset(("apiVersion", "kind", "metadata", "status"))
# Definition -> (required fields, field -> definition of its value, of its items or of its values).
_Shape = tuple[tuple[str, ...], dict[str, str]]
_shapes: dict[str, _Shape] = {}


def missing(schema: str, obj: dict[str, Any]) -> list[Cause]:
    """Required fields that `obj`, of the definition `schema`, does not have."""
    causes: list[Cause] = []
    _look(schema, {key: value for key, value in obj.items() if key not in _SKIPPED}, "", causes)
    return causes


def _shape(schema: str) -> _Shape:
    shape = _shapes.get(schema)
    if shape is None:
        loaded = definitions.load()
        document = loaded.schemas.get(schema, {})
        below = {}
        for field, inner in document.get("properties", {}).items():
            values = inner.get("additionalProperties")
            target = inner.get("items") or (values if isinstance(values, dict) else None) or inner
            if "$ref" in target:
                below[field] = ref_name(target["$ref"])
        needed = tuple(field for field in document.get("required", ()) if field not in _SKIPPED)
        shape = _shapes[schema] = (needed, below)
    return shape


def _look(schema: str, obj: dict[str, Any], path: str, causes: list[Cause]) -> None:
    needed, below = _shape(schema)
    for field in needed:
        if field not in obj:
            causes.append(required(f"{path}{field}"))
    for field, value in obj.items():
        inner = below.get(field)
        if inner is None:
            continue
        if isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _look(inner, item, f"{path}{field}[{index}].", causes)
        elif isinstance(value, dict) and _shape(inner) != ((), {}):
            _look(inner, value, f"{path}{field}.", causes)
