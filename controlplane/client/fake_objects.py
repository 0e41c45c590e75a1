"""The objects inside `fake.FakeAPI`: what create, update and delete do to them, and the history that watches read.

Pure bookkeeping in one dict, with the rules that clients can see: resource versions, conflicts, generations, status
apart from the rest, finalizers, graceful deletion of pods, namespaces that end by their finalizer. No validation, no
defaulting, no admission: an object is stored as it is sent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from controlplane.api import status
from controlplane.clock import name_suffix, new_uid, rfc3339

Obj = dict[str, Any]
Kind = tuple[str, str]
"""(group, plural)"""
Id = tuple[str, str, str, str]
"""(group, plural, namespace, name)"""

_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history. `new` is None for a deletion, `old` for a creation."""

    revision: int
    id: Id
    old: Obj | None
    new: Obj | None
    last: Obj
    """What a watcher is shown: `new`, or the deleted object at its last revision."""


class Objects:
    """Every object of a fake cluster. `changed` is called with every Change."""

    def __init__(self, changed: Callable[[Change], None]) -> None:
        self.revision = 1
        self.history: list[Change] = []
        self.oldest = 1
        """Watches from before this revision are refused with 410."""
        self._objects: dict[Id, Obj] = {}
        self._changed = changed

    def find(self, kind: Kind, namespace: str) -> Iterator[tuple[Id, Obj]]:
        """The objects of a kind, sorted; every namespace's if `namespace` is empty."""
        for key in sorted(self._objects):
            if key[:2] == kind and (not namespace or key[2] == namespace):
                yield key, self._objects[key]

    def get(self, id: Id) -> Obj:
        """The object. Raises 404."""
        obj = self._objects.get(id)
        if obj is None:
            raise status.not_found(group_resource(id), id[3])
        return obj

    def create(self, kind: Kind, namespace: str, obj: Obj, *, keep_status: bool = False) -> Obj:
        """Store a new object. Raises 409, 403 in a namespace that is being deleted, 422 without a name."""
        metadata = dict(obj.get("metadata") or {})
        name = metadata.get("name") or ""
        if not name and metadata.get("generateName"):
            name = metadata["generateName"] + name_suffix()
        if not name:
            causes = [status.required("metadata.name", "name or generateName is required")]
            raise status.invalid(kind[0], obj.get("kind", ""), "", causes)
        id = (*kind, namespace, name)
        if namespace:
            home = self._objects.get(("", "namespaces", "", namespace))
            if home and "deletionTimestamp" in home["metadata"]:
                text = f"unable to create new content in namespace {namespace} because it is being terminated"
                raise status.forbidden_object(group_resource(id), name, text)
            metadata["namespace"] = namespace
        if id in self._objects:
            raise status.already_exists(group_resource(id), name)
        metadata |= {"name": name, "uid": new_uid(), "creationTimestamp": rfc3339()}
        if "spec" in obj:
            metadata["generation"] = 1
        obj = {**obj, "metadata": metadata}
        if kind == ("", "namespaces"):
            obj = {**obj, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        elif kind == ("", "pods") and not keep_status:
            obj["status"] = {"phase": "Pending"}
        elif kind != ("", "nodes") and not keep_status:
            obj.pop("status", None)
        return self._store(id, None, obj)

    def update(self, id: Id, obj: Obj, subresource: str = "", *, version: str = "") -> Obj:
        """Replace an object, its status or (namespaces) its finalizers. Raises 404, 409."""
        old = self.get(id)
        metadata = dict(obj.get("metadata") or {})
        version = version or metadata.get("resourceVersion") or ""
        if version and version != old["metadata"]["resourceVersion"]:
            raise status.conflict(group_resource(id), id[3])
        if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
            text = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
            raise status.conflict(group_resource(id), id[3], text + old["metadata"]["uid"])
        if subresource == "status":
            new = {**old, "status": obj.get("status") or {}}
        elif subresource == "finalize":
            new = {**old, "spec": obj.get("spec") or {}}
        else:
            metadata |= {"name": id[3], **({"namespace": id[2]} if id[2] else {})}
            for field in (*_SERVER_OWNED, "resourceVersion"):
                metadata.pop(field, None)
                if field in old["metadata"]:
                    metadata[field] = old["metadata"][field]
            new = {**obj, "metadata": metadata}
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
            if new.get("spec") != old.get("spec") and "generation" in metadata:
                metadata["generation"] += 1
        if new == old:
            return old
        if "deletionTimestamp" in new["metadata"] and not _held(id, new):
            return self._drop(id, new)
        return self._store(id, old, new)

    def delete(self, id: Id, options: Obj) -> tuple[Obj, bool]:
        """Delete an object, or mark it as being deleted: (the object, whether it is gone). Raises 404, 409."""
        old = self.get(id)
        metadata = dict(old["metadata"])
        for field, value in (options.get("preconditions") or {}).items():
            if value and metadata.get(field) != value:
                name = {"uid": "UID", "resourceVersion": "ResourceVersion"}[field]
                text = f"Precondition failed: {name} in precondition: {value}, {name} in object meta: {metadata[field]}"
                raise status.conflict(group_resource(id), id[3], text)
        policy = options.get("propagationPolicy")
        finalizer = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}.get(policy or "")
        if finalizer and finalizer not in (metadata.get("finalizers") or []):
            metadata["finalizers"] = [*(metadata.get("finalizers") or []), finalizer]
        grace = _grace(id, old, options.get("gracePeriodSeconds"))
        before = metadata.get("deletionGracePeriodSeconds")
        metadata.setdefault("deletionTimestamp", rfc3339())
        metadata["deletionGracePeriodSeconds"] = grace if before is None else min(grace, before)
        new = {**old, "metadata": metadata}
        if id[:2] == ("", "namespaces"):
            new["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
        if not _held(id, new):
            return self._drop(id, old), True
        return (old if new == old else self._store(id, old, new)), False

    def put(self, id: Id, obj: Obj) -> Obj:
        """Store `obj` with its status as it is, new or not: for setting a scene."""
        old = self._objects.get(id)
        if old is None:
            return self.create(id[:2], id[2], obj, keep_status=True)
        owned = {f: old["metadata"][f] for f in _SERVER_OWNED if f in old["metadata"]}
        return self._store(id, old, {**obj, "metadata": {**obj["metadata"], **owned}})

    def compact(self) -> None:
        """Forget the history: watches from before now are too old."""
        self.history.clear()
        self.oldest = self.revision

    def _store(self, id: Id, old: Obj | None, new: Obj) -> Obj:
        self.revision += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.revision)}}
        self._objects[id] = new
        self._record(Change(self.revision, id, old, new, new))
        return new

    def _drop(self, id: Id, obj: Obj) -> Obj:
        old = self._objects.pop(id)
        self.revision += 1
        last = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        self._record(Change(self.revision, id, old, None, last))
        return last

    def _record(self, change: Change) -> None:
        self.history.append(change)
        self._changed(change)


def group_resource(id: Id) -> str:
    """`pods` or `deployments.apps`."""
    return f"{id[1]}.{id[0]}" if id[0] else id[1]


def _grace(id: Id, obj: Obj, asked: int | None) -> int:
    """Seconds that a pod may take to end; 0 for what has no graceful deletion."""
    if id[:2] != ("", "pods"):
        return 0
    spec = obj.get("spec") or {}
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return asked if asked is not None else int(spec.get("terminationGracePeriodSeconds", 30))


def _held(id: Id, obj: Obj) -> bool:
    """Whether something keeps an object that is being deleted."""
    if obj["metadata"].get("finalizers") or obj["metadata"].get("deletionGracePeriodSeconds"):
        return True
    return id[:2] == ("", "namespaces") and bool((obj.get("spec") or {}).get("finalizers"))
