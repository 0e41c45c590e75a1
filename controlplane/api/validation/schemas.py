"""Rules for the schema of a custom resource: it must be structural, and may only use what Kubernetes understands.

`check` gives the causes of one openAPIV3Schema in the words of apiextensions-apiserver (apis/apiextensions/validation,
apiserver/schema/validation.go and complete.go). Paths are those of the definition: `...properties[spec].items`.
Rules in CEL are in schema_rules.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.api.schema import regex
from controlplane.api.schema.structural import MISSING, Node
from controlplane.api.schema.values import check as check_value
from controlplane.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.api.validation import schema_rules

Schema = Mapping[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_FORBIDDEN_NESTED = {
    "type": "must be empty to be structural",
    "additionalProperties": "must be undefined to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    "externalDocs": "must be undefined to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}
_JUNCTORS = ("allOf", "anyOf", "oneOf")


def check(schema: Schema, path: str) -> list[Cause]:
    """What is wrong with a root schema."""
    causes: list[Cause] = []
    for place, at in _everything(schema, path):
        _keywords(place, at, causes)
    structural: list[Cause] = []
    _invariants(schema, "root", path, structural)
    _completeness(schema, path, structural)
    causes += sorted(structural, key=str)
    _defaults(schema, path, causes)
    if not causes:
        causes += schema_rules.check(schema, path)
    return causes


def _everything(schema: Schema, path: str) -> Iterator[tuple[Schema, str]]:
    """Every schema in a schema, with its path."""
    yield schema, path
    for key in ("items", "additionalProperties", "not"):
        if isinstance(inner := schema.get(key), Mapping):
            yield from _everything(inner, f"{path}.{key}")
    for key, inner in (schema.get("properties") or {}).items():
        yield from _everything(inner, f"{path}.properties[{key}]")
    for junctor in _JUNCTORS:
        for index, inner in enumerate(schema.get(junctor) or ()):
            yield from _everything(inner, f"{path}.{junctor}[{index}]")


# --- which keywords, with which values --------------------------------------------------------------------------------


def _keywords(schema: Schema, path: str, causes: list[Cause]) -> None:
    for key in _UNSUPPORTED:
        if schema.get(key):
            causes.append(forbidden_field(f"{path}.{key}", f"{key} is not supported"))
    kind = schema.get("type", "")
    if kind == "null":
        text = "type cannot be set to null, use nullable as an alternative"
        causes.append(forbidden_field(f"{path}.type", text))
    elif kind and kind not in _TYPES:
        causes.append(not_supported(f"{path}.type", kind, _TYPES))
    if isinstance(schema.get("items"), list):
        causes.append(forbidden_field(f"{path}.items", "items must be a schema object and not an array"))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(forbidden_field(f"{path}.uniqueItems", text))
    additional = schema.get("additionalProperties")
    if additional is False:
        text = "additionalProperties cannot be set to false"
        causes.append(forbidden_field(f"{path}.additionalProperties", text))
    elif isinstance(additional, Mapping) and schema.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        causes.append(forbidden_field(f"{path}.additionalProperties", text))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        at = f"{path}.x-kubernetes-preserve-unknown-fields"
        causes.append(invalid_value(at, False, "must be true or undefined"))
    if pattern := schema.get("pattern"):
        try:
            regex.compiled(pattern)
        except regex.BadPattern as error:
            text = f"must be a valid regular expression, but isn't: error parsing regexp: {error}"
            causes.append(invalid_value(f"{path}.pattern", pattern, text))
    _map_type(schema, path, causes)
    _list_type(schema, path, causes)


def _map_type(schema: Schema, path: str, causes: list[Cause]) -> None:
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is None:
        return
    if map_type not in ("atomic", "granular"):
        causes.append(not_supported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular")))
    if schema.get("type") != "object":
        _must_be(schema, path, "object", "must be object if x-kubernetes-map-type is specified", causes)


def _must_be(schema: Schema, path: str, kind: str, text: str, causes: list[Cause]) -> None:
    if not schema.get("type"):
        causes.append(required(f"{path}.type", text))
    elif schema["type"] != kind:
        causes.append(invalid_value(f"{path}.type", schema["type"], text))


def _list_type(schema: Schema, path: str, causes: list[Cause]) -> None:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    if list_type is not None:
        if list_type not in ("atomic", "set", "map"):
            causes.append(not_supported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map")))
        if schema.get("type") != "array":
            _must_be(schema, path, "array", "must be array if x-kubernetes-list-type is specified", causes)
    items = schema.get("items")
    if keys and list_type != "map":
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        if list_type is None:
            causes.append(required(f"{path}.x-kubernetes-list-type", text))
        else:
            causes.append(invalid_value(f"{path}.x-kubernetes-list-type", list_type, text))
    if not isinstance(items, Mapping):
        return
    if list_type == "map":
        _list_map(schema, items, keys, path, causes)
    elif list_type == "set":
        _list_set(items, f"{path}.items", causes)


def _list_map(schema: Schema, items: Schema, keys: Any, path: str, causes: list[Cause]) -> None:
    at = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        causes.append(required(at, "must not be empty if x-kubernetes-list-type is map"))
    text = "must be object if parent array's x-kubernetes-list-type is map"
    _must_be(items, f"{path}.items", "object", text, causes)
    properties = items.get("properties") or {}
    seen: set[str] = set()
    for index, key in enumerate(keys):
        if key in seen:
            causes.append(duplicate(f"{at}[{index}]", key))
            continue
        seen.add(key)
        inner = properties.get(key)
        if inner is None:
            text = "entries must all be names of item properties"
            causes.append(invalid_value(at, list(keys), text))
            continue
        where = f"{path}.items.properties[{key}]"
        if inner.get("type") in ("array", "object"):
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            causes.append(invalid_value(f"{where}.type", inner["type"], text))
        if inner.get("nullable"):
            text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"  # null would be no key
            causes.append(forbidden_field(f"{where}.nullable", text))
        if key not in (items.get("required") or ()) and "default" not in inner:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            causes.append(required(f"{where}.default", text))


def _list_set(items: Schema, path: str, causes: list[Cause]) -> None:
    if items.get("nullable"):
        text = "cannot be nullable when x-kubernetes-list-type is set"
        causes.append(forbidden_field(f"{path}.nullable", text))
    kind = items.get("type")
    if kind == "object" and items.get("x-kubernetes-map-type") != "atomic":
        text = "must be atomic as item of a list with x-kubernetes-list-type=set"
        causes.append(invalid_value(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-map-type"), text))
    elif kind == "array" and items.get("x-kubernetes-list-type") not in (None, "atomic"):
        text = "must be atomic as item of a list with x-kubernetes-list-type=set"
        causes.append(invalid_value(f"{path}.x-kubernetes-list-type", items["x-kubernetes-list-type"], text))


# --- structural -------------------------------------------------------------------------------------------------------


def _invariants(schema: Schema, level: str, path: str, causes: list[Cause]) -> None:
    kind = schema.get("type", "")
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    preserve, either = schema.get("x-kubernetes-preserve-unknown-fields"), schema.get("x-kubernetes-int-or-string")
    items, additional, properties = schema.get("items"), schema.get("additionalProperties"), schema.get("properties")
    if kind == "array" and items is None:
        causes.append(required(f"{path}.items", "must be specified"))
    if isinstance(items, Mapping):
        _invariants(items, "item", f"{path}.items", causes)
    for key, inner in (properties or {}).items():
        _invariants(inner, "field", f"{path}.properties[{key}]", causes)
    if additional is not None:
        if level == "root":
            causes.append(forbidden_field(f"{path}.additionalProperties", "must not be used at the root"))
        if embedded:
            text = "must not be used if x-kubernetes-embedded-resource is set"
            causes.append(forbidden_field(f"{path}.additionalProperties", text))
        if isinstance(additional, Mapping):
            _invariants(additional, "field", f"{path}.additionalProperties", causes)
    if either and preserve:
        at = f"{path}.x-kubernetes-preserve-unknown-fields"
        causes.append(invalid_value(at, True, "must be false if x-kubernetes-int-or-string is true"))
    if either and embedded:
        at = f"{path}.x-kubernetes-embedded-resource"
        causes.append(invalid_value(at, True, "must be false if x-kubernetes-int-or-string is true"))
    _validations(schema, path, causes, skip=_int_or_string(schema))
    if embedded and kind != "object":
        _must_be(schema, path, "object", "must be object if x-kubernetes-embedded-resource is true", causes)
    elif not kind and not either and not preserve:
        what = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
        causes.append(required(f"{path}.type", f"must not be empty {what[level]}"))
    if level == "root" and kind and kind != "object":
        causes.append(invalid_value(f"{path}.type", kind, "must be object at the root"))
    if level == "root" or embedded:
        _head(schema, level, path, causes)
    if embedded and not preserve and not properties:
        text = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        causes.append(required(f"{path}.properties", text))


def _head(schema: Schema, level: str, path: str, causes: list[Cause]) -> None:
    properties = schema.get("properties") or {}
    for key in ("kind", "apiVersion"):
        if key in properties and properties[key].get("type") != "string":
            at = f"{path}.properties[{key}].type"
            causes.append(invalid_value(at, properties[key].get("type", ""), "must be string"))
    metadata = properties.get("metadata")
    if metadata is None:
        return
    at = f"{path}.properties[metadata]"
    if metadata.get("type") != "object":
        causes.append(invalid_value(f"{at}.type", metadata.get("type", ""), "must be object"))
    if level == "root":
        allowed = set(metadata.get("properties") or {}) <= {"name", "generateName"}
        others = set(metadata) - {"type", "properties", "default"}
        if not allowed or any(metadata[key] for key in others):
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            causes.append(forbidden_field(at, text))


def _int_or_string(schema: Schema) -> str:
    """Where the two alternatives of an int-or-string may be spelt out: "anyOf", "allOf" or ""."""
    if not schema.get("x-kubernetes-int-or-string"):
        return ""
    if schema.get("anyOf") == _INT_OR_STRING:
        return "anyOf"
    first = (schema.get("allOf") or [{}])[0]
    return "allOf" if first.get("anyOf") == _INT_OR_STRING else ""


def _validations(schema: Schema, path: str, causes: list[Cause], skip: str = "") -> None:
    for junctor in ("anyOf", "allOf", "oneOf"):
        if junctor == "anyOf" and skip == "anyOf":
            continue
        for index, inner in enumerate(schema.get(junctor) or ()):
            within = "anyOf" if junctor == skip == "allOf" and index == 0 else ""
            _nested(inner, f"{path}.{junctor}[{index}]", causes, within)
    if isinstance(schema.get("not"), Mapping):
        _nested(schema["not"], f"{path}.not", causes)


def _nested(schema: Schema, path: str, causes: list[Cause], skip: str = "") -> None:
    _validations(schema, path, causes, skip)
    if isinstance(schema.get("items"), Mapping):
        _nested(schema["items"], f"{path}.items", causes)
    for key, inner in (schema.get("properties") or {}).items():
        _nested(inner, f"{path}.properties[{key}]", causes)
    for key, text in _FORBIDDEN_NESTED.items():
        if schema.get(key):
            causes.append(forbidden_field(f"{path}.{key}", text))
    if "metadata" in (schema.get("properties") or {}):
        text = "must not be specified in a nested context"
        causes.append(forbidden_field(f"{path}.properties[metadata]", text))


def _completeness(schema: Schema, path: str, causes: list[Cause]) -> None:
    """What a junctor speaks of must be specified outside of it too."""
    for junctor in _JUNCTORS:
        for index, inner in enumerate(schema.get(junctor) or ()):
            _specified(inner, schema, f"{path}.{junctor}[{index}]", path, causes)
    if isinstance(schema.get("not"), Mapping):
        _specified(schema["not"], schema, f"{path}.not", path, causes)
    for key, inner in (schema.get("properties") or {}).items():
        _completeness(inner, f"{path}.properties[{key}]", causes)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            _completeness(schema[key], f"{path}.{key}", causes)


def _specified(nested: Schema, outer: Schema | None, at: str, path: str, causes: list[Cause]) -> None:
    if outer is None:
        causes.append(required(path, f"because it is defined in {at}"))
        return
    for key, inner in (nested.get("properties") or {}).items():
        found = (outer.get("properties") or {}).get(key)
        if found is None and isinstance(outer.get("additionalProperties"), Mapping):
            found = outer["additionalProperties"]
        _specified(inner, found, f"{at}.properties[{key}]", f"{path}.properties[{key}]", causes)
    if isinstance(nested.get("items"), Mapping):
        found = outer.get("items")
        _specified(
            nested["items"], found if isinstance(found, Mapping) else None, f"{at}.items", f"{path}.items", causes
        )
    for junctor in _JUNCTORS:
        for index, inner in enumerate(nested.get(junctor) or ()):
            _specified(inner, outer, f"{at}.{junctor}[{index}]", path, causes)
    if isinstance(nested.get("not"), Mapping):
        _specified(nested["not"], outer, f"{at}.not", path, causes)


def _defaults(schema: Schema, path: str, causes: list[Cause]) -> None:
    """Defaults must be valid themselves."""
    if causes:
        return
    for place, at in _everything(schema, path):
        default = place.get("default", MISSING)
        if default is MISSING:
            continue
        node = Node(place)
        if at == path:
            causes.append(forbidden_field(f"{at}.default", "must not be set at the root"))
        else:
            check_value(default, node, f"{at}.default", causes)
