"""Reading and copying the metadata that every Kubernetes object carries.

Objects are plain dicts shared with the informers' caches and are never changed in place: `with_` functions return a
copy along the path that changes and share the rest. Not here: anything that knows one kind.
"""

from collections.abc import Mapping
from typing import Any

from controlplane import clock

Object = dict[str, Any]


def name(obj: Object) -> str:
    return obj["metadata"]["name"]  # type: ignore[no-any-return]


def namespace(obj: Object) -> str:
    """The namespace; "" for a cluster-scoped object."""
    return obj["metadata"].get("namespace") or ""


def uid(obj: Object) -> str:
    return obj["metadata"].get("uid") or ""


def key(obj: Object) -> str:
    """`namespace/name`, or `name` for a cluster-scoped object: the key of informers and queues."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]


def split_key(text: str) -> tuple[str, str]:
    """(namespace, name) of a key."""
    ns, _, short = text.rpartition("/")
    return ns, short


def labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def finalizers(obj: Object) -> list[str]:
    return obj["metadata"].get("finalizers") or []


def is_deleting(obj: Object) -> bool:
    return obj["metadata"].get("deletionTimestamp") is not None


def revision(obj: Object) -> int:
    """The resourceVersion as a number: our server's (and, since 1.35, every server's) are comparable. 0 if absent."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0


def generation(obj: Object) -> int:
    return obj["metadata"].get("generation") or 0


def created(obj: Object) -> float:
    """Creation time, seconds since the epoch; 0 if the object was not created yet."""
    text = obj["metadata"].get("creationTimestamp")
    return clock.parse_rfc3339(text) if text else 0.0


def spec_replicas(obj: Object) -> int:
    """`spec.replicas`, which defaults to 1."""
    value = obj["spec"].get("replicas")
    return 1 if value is None else value


def status(obj: Object) -> Object:
    return obj.get("status") or {}


def with_metadata(obj: Object, **fields: Any) -> Object:
    """`obj` with these metadata fields replaced; None removes a field."""
    meta = {**obj["metadata"], **fields}
    return {**obj, "metadata": {k: v for k, v in meta.items() if v is not None}}


def with_spec(obj: Object, **fields: Any) -> Object:
    """`obj` with these spec fields replaced; None removes a field."""
    spec = {**(obj.get("spec") or {}), **fields}
    return {**obj, "spec": {k: v for k, v in spec.items() if v is not None}}


def differ_only_in_status(old: Object, new: Object) -> bool:
    """Whether an update changed neither spec nor metadata (but for the resourceVersion)."""
    before, after = dict(old["metadata"]), dict(new["metadata"])
    for bookkeeping in ("resourceVersion", "managedFields"):
        before.pop(bookkeeping, None)
        after.pop(bookkeeping, None)
    return before == after and old.get("spec") == new.get("spec")


def reference(api_version: str, kind: str, obj: Object) -> Object:
    """An ObjectReference to `obj`, for events."""
    ref = {"apiVersion": api_version, "kind": kind, "name": name(obj), "uid": uid(obj)}
    if namespace(obj):
        ref["namespace"] = namespace(obj)
    return ref


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """An IntOrString such as `3` or `"25%"` of `total` (intstr.GetScaledValueFromIntOrPercent)."""
    if isinstance(value, int):
        return value
    if not value.endswith("%") or not value[:-1].isdigit():
        raise ValueError(f"invalid value for IntOrString: {value!r} is not a percentage")
    product = int(value[:-1]) * total
    return -(-product // 100) if round_up else product // 100


def condition(obj_status: Object, kind: str) -> Object | None:
    """The condition of type `kind` in a status."""
    for entry in obj_status.get("conditions") or ():
        if entry["type"] == kind:
            return entry  # type: ignore[no-any-return]
    return None


def pruned(fields: Mapping[str, Any]) -> Object:
    """`fields` without Nones: what is absent in Kubernetes' JSON."""
    return {k: v for k, v in fields.items() if v is not None}
