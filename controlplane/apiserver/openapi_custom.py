"""OpenAPI of custom resources: their schemas as clients know kinds, for documents of both versions.

A published kind has what its definition's schema says, with apiVersion, kind and metadata as every kind has them. In
the old document (v2) stands only what Swagger can say: no junctors, no null, no type where several are possible.
Source: k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder and structural schema's openapi v2 conversion.
"""

from collections.abc import Mapping
from typing import Any

from controlplane.api.definitions import LIST_META, OBJECT_META, REF_PREFIX, Definitions
from controlplane.api.resources import Resource

Schema = dict[str, Any]
_POD = "io.k8s.api.core.v1.Pod"
_LOST_IN_V2 = ("oneOf", "anyOf", "allOf", "not", "nullable", "x-kubernetes-validations", "example")


def list_name(resource: Resource) -> str:
    """Name of the definition of a list."""
    return f"{resource.schema.rpartition('.')[0]}.{resource.list_kind}"


def schemas(resource: Resource, definitions: Definitions, *, v2: bool = False) -> dict[str, Schema]:
    """The definitions that a custom resource adds, with references as `definitions` has them."""
    assert resource.custom is not None
    head = definitions.schemas[_POD]["properties"]
    own = resource.custom.schema
    if v2:
        own = _for_v2(own)
    own["properties"] = {
        "apiVersion": head["apiVersion"],
        "kind": head["kind"],
        "metadata": {"description": head["metadata"]["description"], "$ref": REF_PREFIX + OBJECT_META},
        **{k: v for k, v in (own.get("properties") or {}).items() if k not in ("apiVersion", "kind", "metadata")},
    }
    own["type"] = "object"
    own["x-kubernetes-group-version-kind"] = [_gvk(resource, resource.kind)]
    listed: Schema = {
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": head["apiVersion"],
            "items": {
                "description": f"List of {resource.plural}. More info: "
                "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
                "type": "array",
                "items": {"$ref": REF_PREFIX + resource.schema},
            },
            "kind": head["kind"],
            "metadata": {
                "description": "Standard list metadata. More info: "
                "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                "$ref": REF_PREFIX + LIST_META,
            },
        },
        "x-kubernetes-group-version-kind": [_gvk(resource, resource.list_kind)],
    }
    return {resource.schema: own, list_name(resource): listed}


def _gvk(resource: Resource, kind: str) -> dict[str, str]:
    return {"group": resource.group, "kind": kind, "version": resource.version}


def _for_v2(schema: Mapping[str, Any]) -> Schema:
    kept: Schema = {key: value for key, value in schema.items() if key not in _LOST_IN_V2}
    if schema.get("nullable") or schema.get("x-kubernetes-int-or-string"):
        for key in ("type", "items", "properties", "additionalProperties"):
            kept.pop(key, None)
        return kept
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        for key in ("items", "properties", "additionalProperties"):
            kept.pop(key, None)
        return kept
    if schema.get("properties"):
        kept["properties"] = {key: _for_v2(value) for key, value in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            kept[key] = _for_v2(schema[key])
    return kept
