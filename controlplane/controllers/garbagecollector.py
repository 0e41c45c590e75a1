"""Garbage collection by owner references: what no living owner holds goes, in the background or in the foreground.

Metadata of every resource is watched (whole objects are never kept) and makes the graph in graph.py. An object whose
owners are all gone is deleted; one with some left loses the references to the others; an owner being deleted in the
foreground waits for the dependents that block it; `orphan` cuts the dependents loose first. Rules and names follow
pkg/controller/garbagecollector. `verdict()` is the pure decision about one object.

What the shared informers watch anyway is taken from them; the rest of the resources is watched here, started one after
the other so that a starting cluster does not pay for it at once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from enum import Enum

from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from controlplane.client.resources import CUSTOMRESOURCEDEFINITIONS, EVENTS, ApiResource
from controlplane.controllers import discovery, meta
from controlplane.controllers.graph import FOREGROUND, ORPHAN, Graph, Vertex, Work
from controlplane.controllers.reconcile import Context, Controller

log = logging.getLogger(__name__)
_IGNORED = {(EVENTS.group, "events"), ("events.k8s.io", "events")}
_UNKNOWN_KIND_SECONDS = 30.0
_SYNC_SECONDS = 30.0
_STAGGER_SECONDS = 0.02
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_NEEDED = ("get", "list", "watch", "delete")


class Verdict(Enum):
    """What is to be done with an object."""

    KEEP = "keep"
    TRIM = "trim"
    """Some owners live: remove the references to the others."""
    DELETE = "delete"
    DELETE_FOREGROUND = "delete in the foreground"
    """An owner waits, and the object has dependents itself: they go first."""


def verdict(owned: bool, solid: int, dangling: int, waiting: int, has_dependents: bool) -> Verdict:
    """Decide by the number of owners that live, are gone, and are being deleted waiting for their dependents."""
    if not owned:
        return Verdict.KEEP
    if solid:
        return Verdict.TRIM if dangling or waiting else Verdict.KEEP
    return Verdict.DELETE_FOREGROUND if waiting and has_dependents else Verdict.DELETE


class GarbageCollector(Controller):
    """See the module. Keys are UIDs; `orphan/UID` for owners whose dependents are to be cut loose."""

    name = "garbage-collector-controller"
    workers = 10

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.graph = Graph()
        self._resources: dict[tuple[str, str], ApiResource] = {}  # (group, kind)
        self._watched: set[ApiResource] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._rediscover = asyncio.Event()
        self._unlisted: set[ApiResource] = set()
        self._listed = asyncio.Event()
        self._all_started = False
        crds = context.view(CUSTOMRESOURCEDEFINITIONS)  # not needed to start: a server may do without them
        crds.add_handler(added=self._crd, updated=lambda old, new: self._crd(new), deleted=self._crd)

    def _crd(self, crd: meta.Object) -> None:
        self._rediscover.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            group.create_task(self._follow_discovery())
            group.create_task(super().run())

    async def start(self) -> None:
        """Wait until every resource was listed once: before that, an owner may only seem to be absent."""
        try:
            async with asyncio.timeout(_SYNC_SECONDS):
                await self._listed.wait()
        except TimeoutError:
            log.warning("unlisted=%s", ",".join(r.group_resource for r in self._unlisted))

    # --- watching everything

    async def _follow_discovery(self) -> None:
        while True:
            self._rediscover.clear()
            try:
                await self._discover()
            except (StatusError, Unreachable) as error:
                log.warning("discovery retry=true error=%s", error)
                await asyncio.sleep(2.0)
                continue
            await self._rediscover.wait()
            await asyncio.sleep(0.1)  # the CRD's own event comes before its resource is served

    async def _discover(self) -> None:
        served = await discovery.served(self.client)
        self._resources = {(s.resource.group, s.resource.kind): s.resource for s in served}
        assert self._tasks is not None
        for entry in served:
            resource = entry.resource
            if resource in self._watched or not entry.can(*_NEEDED) or (resource.group, resource.plural) in _IGNORED:
                continue
            self._watched.add(resource)
            if resource in self.context.whole:
                self._share(resource)
            else:
                self._unlisted.add(resource)
                self._tasks.create_task(self._follow(resource))
                await asyncio.sleep(_STAGGER_SECONDS)
        self._all_started = True
        self._note_listed()

    def _note_listed(self, *resources: ApiResource) -> None:
        self._unlisted.difference_update(resources)
        if self._all_started and not self._unlisted:
            self._listed.set()

    def _share(self, resource: ApiResource) -> None:
        self.context.view(resource).add_handler(
            added=lambda obj: self._apply(self.graph.seen(resource, obj)),
            updated=lambda old, new: self._apply(self.graph.seen(resource, new)),
            deleted=lambda obj: self._apply(self.graph.gone(meta.uid(obj))),
        )

    async def _follow(self, resource: ApiResource) -> None:
        """Keep the graph's part of one resource current, like an informer that keeps nothing."""
        pause, version, known = _FIRST_PAUSE_SECONDS, "", set[str]()
        while True:
            try:
                if not version:
                    version = await self._list(resource, known)
                    self._note_listed(resource)
                async with aclosing(self.client.watch(resource, resource_version=version)) as watch:
                    async for kind, obj in watch:
                        self._event(resource, kind, obj, known)
                        version, pause = obj["metadata"]["resourceVersion"], _FIRST_PAUSE_SECONDS
            except StatusError as error:
                if error.code == 410:
                    version = ""
                elif error.code in (404, 405) and await self._is_unserved(resource):
                    break
                else:
                    log.warning("watch=%s retry=true error=%s", resource.group_resource, error)
            except Unreachable as error:
                log.debug("watch=%s retry=true error=%s", resource.group_resource, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        self._watched.discard(resource)
        self._note_listed(resource)
        for uid in known:
            self._apply(self.graph.gone(uid))

    async def _is_unserved(self, resource: ApiResource) -> bool:
        try:
            return all(s.resource != resource for s in await discovery.served(self.client))
        except (StatusError, Unreachable):
            return False

    async def _list(self, resource: ApiResource, known: set[str]) -> str:
        """Bring graph and `known` (UIDs of this resource in the graph) up to date; returns the revision."""
        there: set[str] = set()
        token = ""
        while True:
            page = await self.client.list(resource, limit=500, continue_token=token)
            for obj in page.get("items") or ():
                there.add(meta.uid(obj))
                self._apply(self.graph.seen(resource, obj))
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        for uid in known - there:
            self._apply(self.graph.gone(uid))
        known.clear()
        known |= there
        return str(page["metadata"]["resourceVersion"])

    def _event(self, resource: ApiResource, kind: str, obj: meta.Object, known: set[str]) -> None:
        if kind == "DELETED":
            known.discard(meta.uid(obj))
            self._apply(self.graph.gone(meta.uid(obj)))
        elif kind != "BOOKMARK":
            known.add(meta.uid(obj))
            self._apply(self.graph.seen(resource, obj))

    def _apply(self, work: Work) -> None:
        for vertex in work.examine:
            self.queue.add(vertex.uid)
        for vertex in work.orphan:
            self.queue.add(f"orphan/{vertex.uid}")

    # --- deciding about one object

    async def reconcile(self, key: str) -> float | None:
        kind, _, uid = key.rpartition("/")
        vertex = self.graph.vertices.get(uid)
        if vertex is None:
            return None
        if vertex.virtual:
            try:
                await self._look_for(vertex)
            except LookupError as error:
                log.info("examine=%s error=%s", vertex, error)
                return _UNKNOWN_KIND_SECONDS
        elif kind == "orphan":
            await self._cut_loose(vertex)
        elif vertex.waits_for_dependents:
            await self._foreground(vertex)
        elif not vertex.deleting:
            await self._examine(vertex)
        return None

    async def _look_for(self, vertex: Vertex) -> None:
        """Ask the server whether an owner that no watch has shown exists, wherever its dependents may mean."""
        group = vertex.api_version.rpartition("/")[0]
        resource = self._resources.get((group, vertex.kind))
        if resource is None:
            raise LookupError(f"no resource of {vertex.api_version} {vertex.kind} is served")
        places = {d.namespace for d in vertex.dependents} | {vertex.namespace} if resource.namespaced else {""}
        for namespace in places:
            try:
                found = await self.client.get(resource, vertex.name, namespace)
            except StatusError as error:
                if error.code != 404:
                    raise
                continue
            if meta.uid(found) == vertex.uid:
                return
        if vertex.virtual:  # it may have been seen while we asked
            self._apply(self.graph.gone(vertex.uid))

    async def _examine(self, vertex: Vertex) -> None:
        owners = [(ref, self.graph.vertices.get(ref["uid"])) for ref in vertex.owners]
        for _, owner in owners:
            if owner is not None and owner.virtual:
                self.queue.add(owner.uid)  # unknown: it is looked for first, and then this is examined again
                return
        dangling = [ref for ref, owner in owners if self._is_dangling(vertex, ref)]
        rest = [owner for ref, owner in owners if owner is not None and ref not in dangling]
        waiting = [owner for owner in rest if owner.waits_for_dependents]
        decision = verdict(bool(owners), len(rest) - len(waiting), len(dangling), len(waiting), bool(vertex.dependents))
        if decision is Verdict.TRIM:
            gone = {ref["uid"] for ref in dangling} | {owner.uid for owner in waiting}
            await self._remove_owners(vertex, gone)
        elif decision is Verdict.DELETE_FOREGROUND:
            if any(dependent.waits_for_dependents for dependent in vertex.dependents):
                await self._unblock(vertex)  # a circle: everyone would wait for the other
            await self._delete(vertex, "Foreground")
        elif decision is Verdict.DELETE:
            policy = "Orphan" if ORPHAN in vertex.finalizers else None
            await self._delete(vertex, policy or ("Foreground" if FOREGROUND in vertex.finalizers else "Background"))

    def _is_dangling(self, vertex: Vertex, ref: meta.Object) -> bool:
        owner = self.graph.vertices.get(ref["uid"])
        if owner is None:
            return True
        # a namespaced owner of something elsewhere is no owner: references do not cross namespaces
        return not owner.virtual and bool(owner.namespace) and owner.namespace != vertex.namespace

    async def _delete(self, vertex: Vertex, policy: str) -> None:
        assert vertex.resource is not None
        log.info("delete=%s policy=%s", vertex, policy)
        try:
            await self.client.delete(
                vertex.resource, vertex.name, vertex.namespace,
                uid=vertex.uid, resource_version=vertex.revision, propagation_policy=policy,
            )  # fmt: skip
        except StatusError as error:
            if error.code != 404:
                raise  # 409: it changed; its owners may have
            # the watch will say so too; do not wait for it
            self._apply(self.graph.gone(vertex.uid))

    async def _foreground(self, vertex: Vertex) -> None:
        blocking = list(vertex.blocking_dependents())
        if not blocking:
            await self._remove_finalizer(vertex, FOREGROUND)
        for dependent in blocking:
            if not dependent.waits_for_dependents:
                self.queue.add(dependent.uid)

    async def _cut_loose(self, vertex: Vertex) -> None:
        for dependent in list(vertex.dependents):
            await self._remove_owners(dependent, {vertex.uid})
        await self._remove_finalizer(vertex, ORPHAN)

    # --- patches

    async def _live_patch(self, vertex: Vertex, change: Callable[[meta.Object], meta.Object | None]) -> None:
        """Patch the object with `change(its metadata)`, guarded by the revision it was made from."""
        assert vertex.resource is not None
        try:
            live = await self.client.get(vertex.resource, vertex.name, vertex.namespace)
            fields = change(live["metadata"]) if meta.uid(live) == vertex.uid else None
            if fields is not None:
                guard = {"uid": vertex.uid, "resourceVersion": live["metadata"]["resourceVersion"]}
                await self.client.patch(vertex.resource, vertex.name, {"metadata": guard | fields}, vertex.namespace)
        except StatusError as error:
            if error.code != 404:
                raise

    async def _remove_owners(self, vertex: Vertex, uids: set[str]) -> None:
        def change(metadata: meta.Object) -> meta.Object | None:
            before = metadata.get("ownerReferences") or []
            after = [ref for ref in before if ref["uid"] not in uids]
            return {"ownerReferences": after or None} if after != before else None

        await self._live_patch(vertex, change)

    async def _unblock(self, vertex: Vertex) -> None:
        def change(metadata: meta.Object) -> meta.Object | None:
            refs = metadata.get("ownerReferences") or []
            return {"ownerReferences": [{**ref, "blockOwnerDeletion": False} for ref in refs]}

        await self._live_patch(vertex, change)

    async def _remove_finalizer(self, vertex: Vertex, finalizer: str) -> None:
        def change(metadata: meta.Object) -> meta.Object | None:
            before = metadata.get("finalizers") or []
            after = [f for f in before if f != finalizer]
            return {"finalizers": after or None} if after != before else None

        await self._live_patch(vertex, change)
