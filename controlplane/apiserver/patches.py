"""PATCH bodies: which kind of patch, and what it makes of an object."""

from typing import Any

import msgspec

from controlplane.api import patch, status
from controlplane.api.apply import entries
from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource
from controlplane.api.validate import decode_checked
from controlplane.apiserver.http import Request
from controlplane.apiserver.registry.codec import decode_body

Object = dict[str, Any]
_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


def parse(request: Request, resource: Resource | None = None) -> tuple[str, Any]:
    """(kind of patch, its content). Raises StatusError 400, 415."""
    media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    kind = _TYPES.get(media)
    if kind is None:
        raise status.unsupported_media_type(_TYPES)
    if kind == "strategic" and resource is not None and resource.custom is not None:
        # a custom resource's lists have no strategies: clients fall back to a merge patch
        raise status.unsupported_media_type(media for media in _TYPES if "strategic" not in media)
    content, repeated = decode_body(request)
    if kind != "json" and not isinstance(content, dict):
        raise status.bad_request("a merge patch must be an object")
    if repeated:
        _tell(request, kind, repeated)
    return kind, content


def _tell(request: Request, kind: str, repeated: list[str]) -> None:
    """Of keys that a patch has twice. Raises StatusError 400, 422 where the client wants it strict."""
    if request.query.get("fieldValidation") != "Strict":
        request.warnings += repeated
        return
    text = ", ".join(repeated)
    if kind == "apply":
        raise status.bad_request(f"error strict decoding YAML: {text}")
    shown = request.body.decode("utf-8", "replace")
    raise status.invalid("", "", "", [status.invalid_value("patch", shown, f"strict decoding error: {text}")])


def apply(kind: str, content: Any, obj: Object, resource: Resource, schema: str, definitions: Definitions) -> Object:
    """`obj` (shared; left as it is) with a patch that is no apply. Raises StatusError 400, 422."""
    if kind == "json":
        if _looks_at_owners(content):
            obj = entries.plain(obj)
        result = patch.json_patch(obj, content)
    elif kind == "merge" or resource.custom is not None:
        result = patch.merge_patch(obj, content)
    else:
        result = patch.strategic_merge(obj, content, schema, definitions)
    if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
        raise status.bad_request("the patch leaves no object")
    if result.get("kind") != obj.get("kind") or result.get("apiVersion") != obj.get("apiVersion"):
        raise status.bad_request(f"the patch changes the kind or apiVersion of {resource.group_resource}")
    metadata, owners = result["metadata"], obj["metadata"].get("managedFields")
    if owners is not None and metadata.get("managedFields") is owners:
        # Owners that the patch does not name need no copy and no check: the registry has them from the old object.
        result = {**result, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
    return result


def checked(
    result: Object, old: Object, resource: Resource, subresource: str, mode: str, definitions: Definitions
) -> tuple[Object, list[str]]:
    """What a patch made of `old`, as an object of our own that fits its schema, and warnings. What the write takes from
    the old object anyway (of a status patch all but the status, else the status) is neither copied nor looked at.
    Raises StatusError 400."""
    shared: Object = {}
    if resource.custom is None and "status" in resource.subresources and subresource in ("", "status"):
        of_status = subresource == "status"
        shared = {
            key: part
            for key, part in result.items()
            if key != "metadata" and part is old.get(key) and (key == "status") != of_status
        }
    rest = {key: part for key, part in result.items() if key not in shared} if shared else result
    mine, warned = decode_checked(resource, own(rest), mode, definitions=definitions)
    return ({key: shared[key] if key in shared else mine[key] for key in result if key in shared or key in mine}
            if shared else mine), warned  # fmt: skip


def _looks_at_owners(operations: Any) -> bool:
    """Whether a JSON patch may read or change single entries of managedFields."""
    for op in operations if isinstance(operations, list) else ():
        for pointer in (op.get("path"), op.get("from")) if isinstance(op, dict) else ():
            if pointer in ("", "/metadata") or str(pointer).startswith("/metadata/managedFields"):
                return True
    return False


def unfit(kind: str, content: Any, result: Object, error: status.StatusError) -> status.StatusError:
    """The error that a patch gets whose result is no object of its kind: the patch is at fault, not the request."""
    if error.code != 400:
        return error
    shown = msgspec.json.encode(content if kind == "strategic" else result).decode()
    return status.invalid("", "", "", [status.invalid_value("patch", shown, error.message)])


def own(obj: Object) -> Object:
    """An object of our own: what follows changes it in place, and a patch's result shares parts with the stored one."""
    copy: Object = msgspec.json.decode(msgspec.json.encode(obj))
    return copy


def check_applied(config: Object, resource: Resource, name: str, namespace: str) -> None:
    """Raises StatusError 400 for an applied configuration of another kind or object."""
    kind, version = config.get("kind"), config.get("apiVersion")
    if not kind or not version:
        missing = "kind" if not kind else "apiVersion"
        raise status.bad_request(f"Object '{missing.capitalize() if missing == 'kind' else missing}' is missing")
    if (kind, version) != (resource.kind, resource.api_version):
        group, _, short = str(version).rpartition("/")
        raise status.bad_request(f"invalid object type: {group}/{short}, Kind={kind}")
    if not isinstance(config.get("metadata", {}), dict):
        raise status.bad_request("metadata must be an object")
    meta = config.get("metadata", {})
    if meta.get("name", name) != name:
        raise status.bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
    if resource.namespaced and meta.get("namespace", namespace) != namespace:
        raise status.bad_request(
            f"the namespace of the object ({meta['namespace']}) does not match the namespace on the URL ({namespace})"
        )


def named(obj: Object, name: str) -> Object:
    """A new object under the name that it was applied to."""
    obj.setdefault("metadata", {}).setdefault("name", name)
    return obj
