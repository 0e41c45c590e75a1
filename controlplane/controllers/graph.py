"""The graph of who owns whom, over all objects of all resources, as far as garbage collection needs it.

A node holds only what decides: identity, owners, finalizers, whether it is being deleted. It is fed by watch events in
any order; an owner that was not seen yet stands as a *virtual* node until it is, or until the server says that it does
not exist. The graph tells what must be looked at (`Work`); deciding and deleting is garbagecollector.py's.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from controlplane.client.resources import ApiResource
from controlplane.controllers import meta

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_ABSENT_REMEMBERED = 5000


@dataclass(slots=True, eq=False)
class Vertex:
    """An object. Compared by identity."""

    uid: str
    api_version: str
    kind: str
    namespace: str
    name: str
    resource: ApiResource | None = None
    """None for a virtual node of a kind that is not known (yet)."""
    revision: str = ""
    owners: tuple[meta.Object, ...] = ()
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    virtual: bool = True
    """Known only as somebody's owner: never seen itself."""
    dependents: "set[Vertex]" = field(default_factory=set)

    @property
    def waits_for_dependents(self) -> bool:
        """It is being deleted in the foreground."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        """It is being deleted, and its dependents shall stay."""
        return self.deleting and ORPHAN in self.finalizers

    def blocking_dependents(self) -> "Iterator[Vertex]":
        """Dependents that say that this owner must wait for them."""
        for dependent in self.dependents:
            if any(ref["uid"] == self.uid and ref.get("blockOwnerDeletion") for ref in dependent.owners):
                yield dependent

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(slots=True)
class Work:
    """What an event makes necessary."""

    examine: list[Vertex] = field(default_factory=list)
    """Owners may be gone or waiting: see whether these must go."""
    orphan: list[Vertex] = field(default_factory=list)
    """Take these out of their dependents' owner references."""


class Graph:
    """Vertices by UID."""

    def __init__(self) -> None:
        self.vertices: dict[str, Vertex] = {}
        self._absent: OrderedDict[str, None] = OrderedDict()

    def is_absent(self, uid: str) -> bool:
        """Whether an owner with this UID is known not to exist (UIDs do not come back)."""
        return uid in self._absent

    def note_absent(self, uid: str) -> None:
        self._absent[uid] = None
        if len(self._absent) > _ABSENT_REMEMBERED:
            self._absent.popitem(last=False)

    def seen(self, resource: ApiResource, obj: meta.Object) -> Work:
        """`obj` was added or changed."""
        metadata = obj["metadata"]
        work = Work()
        vertex = self.vertices.get(metadata["uid"])
        if vertex is None:
            vertex = Vertex(metadata["uid"], resource.api_version, resource.kind, meta.namespace(obj), metadata["name"])
            self.vertices[vertex.uid] = vertex
            self._absent.pop(vertex.uid, None)
        elif vertex.virtual and (vertex.namespace, vertex.kind) != (meta.namespace(obj), resource.kind):
            # somebody's reference pointed here with the wrong coordinates: let the dependents be looked at
            work.examine += vertex.dependents
        first = vertex.virtual
        vertex.virtual, vertex.resource = False, resource
        vertex.api_version, vertex.kind = resource.api_version, resource.kind
        vertex.namespace, vertex.name = meta.namespace(obj), metadata["name"]
        vertex.revision = metadata.get("resourceVersion") or ""
        was_waiting, was_orphaning = vertex.waits_for_dependents, vertex.orphans_dependents
        vertex.finalizers = tuple(meta.finalizers(obj))
        vertex.deleting = meta.is_deleting(obj)
        self._set_owners(vertex, tuple(metadata.get("ownerReferences") or ()), work)
        if vertex.orphans_dependents and not was_orphaning:
            work.orphan.append(vertex)
        if vertex.waits_for_dependents and (first or not was_waiting):
            work.examine += vertex.dependents
            work.examine.append(vertex)
        return work

    def gone(self, uid: str) -> Work:
        """The object with this UID does not exist any more."""
        work = Work()
        vertex = self.vertices.pop(uid, None)
        self.note_absent(uid)
        if vertex is None:
            return work
        for ref in vertex.owners:
            owner = self.vertices.get(ref["uid"])
            if owner is not None:
                owner.dependents.discard(vertex)
                if owner.waits_for_dependents:
                    work.examine.append(owner)
                self._forget_unneeded(owner)
        work.examine += vertex.dependents
        return work

    def _set_owners(self, vertex: Vertex, owners: tuple[meta.Object, ...], work: Work) -> None:
        before = {ref["uid"]: ref for ref in vertex.owners}
        after = {ref["uid"]: ref for ref in owners}
        vertex.owners = owners
        for uid in before.keys() - after.keys():
            owner = self.vertices.get(uid)
            if owner is not None:
                owner.dependents.discard(vertex)
                self._forget_unneeded(owner)
        for uid, ref in after.items():
            if uid in before:
                continue
            owner = self.vertices.get(uid)
            if owner is None:
                owner = Vertex(uid, ref["apiVersion"], ref["kind"], vertex.namespace, ref["name"])
                self.vertices[uid] = owner
                work.examine.append(owner)
            elif not owner.virtual and (
                (owner.namespace and owner.namespace != vertex.namespace) or owner.kind != ref["kind"]
            ):
                work.examine.append(vertex)
            owner.dependents.add(vertex)
            if owner.waits_for_dependents:
                work.examine.append(vertex)
        for uid, ref in before.items():
            unblocked = ref.get("blockOwnerDeletion") and not after.get(uid, {}).get("blockOwnerDeletion")
            owner = self.vertices.get(uid)
            if unblocked and owner is not None and owner.waits_for_dependents:
                work.examine.append(owner)  # it may have waited only for this

    def _forget_unneeded(self, vertex: Vertex) -> None:
        if vertex.virtual and not vertex.dependents:
            self.vertices.pop(vertex.uid, None)
