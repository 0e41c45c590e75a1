"""PATCH bodies: which kind of patch, and what it makes of an object."""

from typing import Any

import msgspec

from controlplane.api import patch, status
from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource
from controlplane.apiserver.http import Request
from controlplane.apiserver.registry.codec import decode_body

Object = dict[str, Any]
_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


def parse(request: Request) -> tuple[str, Any]:
    """(kind of patch, its content). Raises StatusError 400, 415."""
    media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    kind = _TYPES.get(media)
    if kind is None:
        raise status.unsupported_media_type(_TYPES)
    content, _ = decode_body(request)
    if kind != "json" and not isinstance(content, dict):
        raise status.bad_request("a merge patch must be an object")
    return kind, content


def apply(kind: str, content: Any, obj: Object, resource: Resource, schema: str, definitions: Definitions) -> Object:
    """`obj` (shared; left as it is) with the patch. Server-side apply creates or merges by the schema's list keys;
    field ownership is not tracked yet. Raises StatusError 400, 422."""
    if kind == "json":
        result = patch.json_patch(obj, content)
    elif kind == "merge":
        result = patch.merge_patch(obj, content)
    else:
        result = patch.strategic_merge(obj, content, schema, definitions)
    if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
        raise status.bad_request("the patch leaves no object")
    if result.get("kind") != obj.get("kind") or result.get("apiVersion") != obj.get("apiVersion"):
        raise status.bad_request(f"the patch changes the kind or apiVersion of {resource.group_resource}")
    # What follows changes the object in place, and the result shares parts with the stored one: make it our own.
    own: Object = msgspec.json.decode(msgspec.json.encode(result))
    return own
