"""From schemas to types: the published definitions (with references), and structural schemas (without).

The rules are Kubernetes': a list says what it is by x-kubernetes-list-type, else by its patch strategy (merge with a
key: items; without: a set), else it is an atom; an object is granular unless x-kubernetes-map-type says atomic. What
has no schema is deduced from its values.

A Root is what writes ask: the whole kind for applying, and the part whose owners are kept for comparing. Nobody owns
what the server decides (names, times, versions), and a write to one side of a kind (the object, /status) does not own
the other, because the server puts that back ("reset fields").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.api.apply.fieldset import LEAF, FieldSet, difference, without_below
from controlplane.api.apply.types import ATOM, DEDUCED, Items, Map, Struct, Type, Values
from controlplane.api.definitions import INT_OR_STRING, MICRO_TIME, OBJECT_META, QUANTITY, TIME, Definitions, ref_name

Schema = Mapping[str, Any]

_ATOMIC = {QUANTITY: ATOM, INT_OR_STRING: ATOM, TIME: ATOM, MICRO_TIME: ATOM}
# Keys that the published definitions give no default for, though the types have one.
_KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP", "name": ""}
_NOBODYS_METADATA = (
    "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
    "resourceVersion",
)  # fmt: skip
NOBODYS: FieldSet = {
    "f:apiVersion": LEAF, "f:kind": LEAF,
    "f:metadata": {".": LEAF, **{f"f:{name}": LEAF for name in _NOBODYS_METADATA}},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Root:
    """A kind as writes see it. `whole`: every field. `owned`: those that a write of this side can own."""

    whole: Struct
    owned: Struct
    hidden: tuple[str, ...]

    def owners_kept(self, fields: FieldSet) -> FieldSet:
        """Those of `fields` that a write of this side can own."""
        return difference(without_below(fields, *self.hidden), NOBODYS)


def of_definition(name: str, definitions: Definitions, subresource: str = "", *, has_status: bool = False) -> Root:
    """The root of a published kind, compiled once for each side. KeyError if there is no such definition."""
    cache = _caches.setdefault(id(definitions), (definitions, {}, {}))
    known = cache[2].get((name, subresource, has_status))
    if known is None:
        whole = _named(name, definitions, cache[1])
        assert isinstance(whole, Struct)
        known = cache[2][name, subresource, has_status] = root(whole, subresource, has_status=has_status)
    return known


def of_structural(schema: Schema, subresource: str = "", *, has_status: bool = False) -> Root:
    """The root of a custom resource's version, from its schema (openAPIV3Schema). The caller keeps it."""
    properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **schema.get("properties", {})}
    properties["metadata"] = {"$ref": "#/$defs/" + OBJECT_META}
    whole = _type({**schema, "properties": properties}, None, {})
    assert isinstance(whole, Struct)
    # Unlike a built-in kind's, a custom object's metadata does not change through /status.
    return root(whole, subresource, has_status=has_status, status_writes=("status",))


def root(
    whole: Struct, subresource: str, *, has_status: bool, status_writes: tuple[str, ...] = ("metadata", "status")
) -> Root:
    """`whole` seen from the object itself (subresource "") or from a subresource."""
    hidden: tuple[str, ...] = ()
    if subresource == "status":
        hidden = tuple(name for name in whole.entries if name not in status_writes)
    elif not subresource and has_status:
        hidden = ("status",)

    def owned() -> dict[str, Type]:
        fields = {name: entry[1] for name, entry in whole.entries.items()}
        metadata = fields.get("metadata")
        if isinstance(metadata, Struct):
            kept = metadata
            fields["metadata"] = Struct(
                lambda: {name: of for name, (_, of) in kept.entries.items() if name not in _NOBODYS_METADATA}
            )
        return {name: of for name, of in fields.items() if name not in nobodys}

    nobodys = ("apiVersion", "kind", *hidden)
    return Root(whole, Struct(owned, whole.other, nobodys), hidden)


# Keyed by identity; the Definitions are kept beside so that the id stays theirs.
_caches: dict[int, tuple[Definitions, dict[str, Type], dict[tuple[str, str, bool], Root]]] = {}


def _named(name: str, source: Definitions | None, types: dict[str, Type]) -> Type:
    known = types.get(name) or _ATOMIC.get(name)
    if known is None:
        if source is None:
            from controlplane.api.definitions import load

            source = load()
        known = types[name] = _type(source.schemas[name], source, types)
    return known


def _type(schema: Schema, source: Definitions | None, types: dict[str, Type]) -> Type:
    if schema.get("x-kubernetes-map-type") == "atomic":
        return ATOM
    if (ref := schema.get("$ref")) is not None:
        return _named(ref_name(ref), source, types)
    if schema.get("x-kubernetes-int-or-string"):
        return ATOM
    kind = schema.get("type")
    if kind == "array":
        return _list(schema, source, types)
    free = DEDUCED if schema.get("x-kubernetes-preserve-unknown-fields") else None
    if properties := schema.get("properties"):
        return Struct(lambda: {name: _type(each, source, types) for name, each in _fields(schema, properties)}, free)
    if kind == "object":
        values = schema.get("additionalProperties")
        return Map(_type(values, source, types)) if isinstance(values, dict) and values else DEDUCED
    return DEDUCED if kind is None else ATOM


def _fields(schema: Schema, properties: Mapping[str, Schema]) -> list[tuple[str, Schema]]:
    if schema.get("x-kubernetes-embedded-resource"):
        own: dict[str, Schema] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        return list({**own, "metadata": {"$ref": "#/$defs/" + OBJECT_META}, **properties}.items())
    return list(properties.items())


def _list(schema: Schema, source: Definitions | None, types: dict[str, Type]) -> Type:
    kind = schema.get("x-kubernetes-list-type")
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    if kind is None and "merge" in schema.get("x-kubernetes-patch-strategy", "").split(","):
        merge_key = schema.get("x-kubernetes-patch-merge-key")
        kind, keys = ("map", (merge_key,)) if merge_key else ("set", ())
    items = schema.get("items", {})
    if kind == "set":
        return Values(_type(items, source, types))
    if kind != "map" or not keys:
        return ATOM
    described = source.resolve(dict(items)) if source is not None else items
    required, properties = described.get("required", ()), described.get("properties", {})
    defaults = {}
    for key in keys:
        default = properties.get(key, {}).get("default")
        if default is None and source is not None and key not in required:
            default = _KEY_DEFAULTS.get(key)
        if default is not None:
            defaults[key] = default
    return Items(_type(items, source, types), keys, defaults)
