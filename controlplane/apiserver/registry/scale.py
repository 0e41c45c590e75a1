"""The scale subresource: replicas of anything that has them, as one kind (autoscaling/v1 Scale)."""

from typing import Any

from controlplane.api import status
from controlplane.api.selectors import from_selector

Object = dict[str, Any]


def read(obj: Object) -> Object:
    """The Scale of `obj`."""
    meta, selector = obj["metadata"], obj["spec"].get("selector")
    if obj["kind"] == "ReplicationController":
        text = ",".join(f"{k}={v}" for k, v in sorted((selector or {}).items()))
    else:
        text = str(from_selector(selector or {}))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            key: meta[key]
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if key in meta
        },
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": obj.get("status", {}).get("replicas", 0), "selector": text},
    }


def applied(obj: Object, scale: Object) -> Object:
    """What an applied Scale says about `obj` itself. Raises StatusError 400, 409."""
    if scale.get("kind", "Scale") != "Scale" or scale.get("apiVersion", "autoscaling/v1") != "autoscaling/v1":
        kind, version = scale.get("kind"), scale.get("apiVersion")
        raise status.bad_request(f"{kind} in version {version} cannot be applied: expected Scale in autoscaling/v1")
    wanted = (scale.get("metadata") or {}).get("resourceVersion")
    if wanted and wanted != obj["metadata"]["resourceVersion"]:
        raise status.conflict("scales.autoscaling", obj["metadata"]["name"])
    spec = scale.get("spec") or {}
    said = {"spec": {"replicas": spec["replicas"]}} if "replicas" in spec else {}
    return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], **said}


def write(obj: Object, scale: Object) -> Object:
    """`obj` with the replicas of `scale`. Raises StatusError 409, 422."""
    wanted = scale.get("metadata", {}).get("resourceVersion")
    if wanted and wanted != obj["metadata"]["resourceVersion"]:
        raise status.conflict("scales.autoscaling", obj["metadata"]["name"])
    replicas = scale.get("spec", {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        cause = status.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise status.invalid("autoscaling", "Scale", obj["metadata"]["name"], [cause])
    return {**obj, "spec": {**obj["spec"], "replicas": replicas}}
