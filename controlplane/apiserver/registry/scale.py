"""The scale subresource: replicas of anything that has them, as one kind (autoscaling/v1 Scale)."""

from collections.abc import Sequence
from typing import Any

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.api.selectors import from_selector

Object = dict[str, Any]


def read(obj: Object, resource: Resource) -> Object:
    """The Scale of `obj`. Raises StatusError 500 if a custom object's replicas are no number."""
    if resource.custom is not None:
        return _read_custom(obj, resource)
    meta, selector = obj["metadata"], obj["spec"].get("selector")
    if obj["kind"] == "ReplicationController":
        text = ",".join(f"{k}={v}" for k, v in sorted((selector or {}).items()))
    else:
        text = str(from_selector(selector or {}))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": _metadata(meta),
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": obj.get("status", {}).get("replicas", 0), "selector": text},
    }


def applied(obj: Object, scale: Object, resource: Resource) -> Object:
    """What an applied Scale says about `obj` itself. Raises StatusError 400, 409."""
    if scale.get("kind", "Scale") != "Scale" or scale.get("apiVersion", "autoscaling/v1") != "autoscaling/v1":
        kind, version = scale.get("kind"), scale.get("apiVersion")
        raise status.bad_request(f"{kind} in version {version} cannot be applied: expected Scale in autoscaling/v1")
    wanted = (scale.get("metadata") or {}).get("resourceVersion")
    if wanted and wanted != obj["metadata"]["resourceVersion"]:
        raise status.conflict("scales.autoscaling", obj["metadata"]["name"])
    spec = scale.get("spec") or {}
    said: Object = {}
    if "replicas" in spec:
        custom = resource.custom
        path = _simple(custom.scale["specReplicasPath"]) if custom and custom.scale else ("spec", "replicas")
        said = _put({}, path, spec["replicas"])
    return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], **said}


def write(obj: Object, scale: Object, resource: Resource) -> Object:
    """`obj` with the replicas of `scale`. Raises StatusError 409, 422."""
    wanted = scale.get("metadata", {}).get("resourceVersion")
    if wanted and wanted != obj["metadata"]["resourceVersion"]:
        raise status.conflict("scales.autoscaling", obj["metadata"]["name"])
    replicas = scale.get("spec", {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        cause = status.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise status.invalid("autoscaling", "Scale", obj["metadata"]["name"], [cause])
    if resource.custom is not None:
        assert resource.custom.scale is not None
        return _put(obj, _simple(resource.custom.scale["specReplicasPath"]), replicas)
    return {**obj, "spec": {**obj["spec"], "replicas": replicas}}


def _simple(path: str) -> tuple[str, ...]:
    from controlplane.api.schema.paths import simple

    return simple(path)


def _metadata(meta: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {key: meta[key] for key in kept if key in meta}


def _read_custom(obj: Object, resource: Resource) -> Object:
    """By the paths of the definition's scale subresource (registry/customresource/etcd.go)."""
    from controlplane.api.schema.paths import get, simple

    paths = resource.custom.scale if resource.custom is not None else None
    assert paths is not None
    replicas = get(obj, simple(paths["specReplicasPath"]))
    if replicas is None:
        name = obj["metadata"]["name"]
        text = f'the spec replicas field "{paths["specReplicasPath"]}" does not exist'
        raise status.internal(f"{resource.group_resource} {status.quote(name)}: {text}")
    observed: Object = {"replicas": get(obj, simple(paths["statusReplicasPath"])) or 0}
    if paths.get("labelSelectorPath"):
        observed["selector"] = get(obj, simple(paths["labelSelectorPath"])) or ""
    for where, value in (("specReplicasPath", replicas), ("statusReplicasPath", observed["replicas"])):
        if not isinstance(value, int):
            raise status.internal(f"the value of {paths[where]} is not a number")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": _metadata(obj["metadata"]),
        "spec": {"replicas": replicas},
        "status": observed,
    }


def _put(obj: Object, path: Sequence[str], value: Any) -> Object:
    """`obj` with a value at a path, copied along it."""
    key, rest = path[0], path[1:]
    below = obj.get(key)
    return {**obj, key: _put(below if isinstance(below, dict) else {}, rest, value) if rest else value}
