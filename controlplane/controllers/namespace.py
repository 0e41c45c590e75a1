"""Namespace: when one is deleted, delete all that is in it, wait until it is gone, then let the namespace go.

Pods go first and in their own time (their grace periods run); then everything else, resource by resource as discovery
names them. What keeps the namespace (remaining objects, finalizers, failed deletions) is said in its conditions, in
Kubernetes' words. `conditions()` is the pure part.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import NAMESPACES, PODS, ApiResource
from controlplane.controllers import discovery, meta
from controlplane.controllers.reconcile import Context, Controller

log = logging.getLogger(__name__)
FINALIZER = "kubernetes"
_AT_ONCE = 8
_PAGE = 500


@dataclass(slots=True)
class Remains:
    """What a pass found and could not (yet) remove."""

    objects: dict[str, int] = field(default_factory=dict)
    """group resource -> how many are left."""
    finalizers: dict[str, int] = field(default_factory=dict)
    """finalizer -> on how many of them."""
    failures: list[str] = field(default_factory=list)
    discovery_failure: str = ""

    def __bool__(self) -> bool:
        return bool(self.objects or self.failures or self.discovery_failure)


def conditions(before: list[meta.Object], remains: Remains, now: float) -> list[meta.Object]:
    """The namespace's deletion conditions (pkg/controller/namespace/deletion/status_condition_utils.go)."""
    left = sorted(f"{name} has {count} resource instances" for name, count in remains.objects.items())
    held = sorted(f"{name} in {count} resource instances" for name, count in remains.finalizers.items())
    said = [
        ("NamespaceDeletionDiscoveryFailure", remains.discovery_failure, "DiscoveryFailed", "ResourcesDiscovered",
         "All resources successfully discovered", "Discovery failed for some groups: "),
        ("NamespaceDeletionGroupVersionParsingFailure", "", "", "ParsedGroupVersions",
         "All legacy kube types successfully parsed", ""),
        ("NamespaceDeletionContentFailure", ", ".join(remains.failures), "ContentDeletionFailed", "ContentDeleted",
         "All content successfully deleted, may be waiting on finalization",
         "Failed to delete all resource types, some failures: "),
        ("NamespaceContentRemaining", ", ".join(left), "SomeResourcesRemain", "ContentRemoved",
         "All content successfully removed", "Some resources are remaining: "),
        ("NamespaceFinalizersRemaining", ", ".join(held), "SomeFinalizersRemain", "ContentHasNoFinalizers",
         "All content-preserving finalizers finished", "Some content in the namespace has finalizers remaining: "),
    ]  # fmt: skip
    result = {c["type"]: c for c in before}
    for kind, problem, bad, good, fine, prefix in said:
        status = "True" if problem else "False"
        current = result.get(kind)
        fresh = {
            "type": kind,
            "status": status,
            "reason": bad if problem else good,
            "message": prefix + problem if problem else fine,
            "lastTransitionTime": clock.rfc3339(now),
        }
        if current is not None and current["status"] == status:
            fresh["lastTransitionTime"] = current["lastTransitionTime"]
        result[kind] = fresh
    return list(result.values())


class NamespaceController(Controller):
    """See the module."""

    name = "namespace-controller"
    workers = 3

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.namespaces = self.view(NAMESPACES)
        self.namespaces.add_handler(added=self._changed, updated=lambda old, new: self._changed(new))
        self.pods.add_handler(deleted=self._pod_gone)

    def _changed(self, namespace: meta.Object) -> None:
        if meta.is_deleting(namespace):
            self.enqueue(namespace)

    def _pod_gone(self, pod: meta.Object) -> None:
        namespace = self.namespaces.get(meta.namespace(pod))
        if namespace is not None and meta.is_deleting(namespace):
            self.enqueue(namespace)

    async def reconcile(self, key: str) -> float | None:
        namespace = self.namespaces.get(key)
        if namespace is None or not meta.is_deleting(namespace):
            return None
        if FINALIZER not in (namespace["spec"].get("finalizers") or []):
            return None  # others hold it; they will let go themselves
        remains = await self._empty(key)
        if remains:
            await self._report(namespace, remains)
            if remains.failures or remains.discovery_failure:
                raise RuntimeError(f"namespace {key}: {'; '.join(remains.failures) or remains.discovery_failure}")
            return 1.0  # pods tell when they go; other finalizers do not
        others = [f for f in namespace["spec"]["finalizers"] if f != FINALIZER]
        fresh = await self.client.get(NAMESPACES, key)
        if meta.uid(fresh) == meta.uid(namespace):
            await self.writer.update(NAMESPACES, meta.with_spec(fresh, finalizers=others), "finalize")
            log.info("namespace=%s finalized=true", key)
        return None

    async def _empty(self, namespace: str) -> Remains:
        remains = Remains()
        await self._empty_of(namespace, PODS, remains)
        if remains:
            return remains  # what pods use (Secrets, Services, claims) stays until they are gone
        try:
            served = await discovery.served(self.client)
        except StatusError as error:
            remains.discovery_failure = str(error)
            return remains
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(resource: ApiResource) -> None:
            async with gate:
                await self._empty_of(namespace, resource, remains)

        wanted = [s.resource for s in served if s.resource.namespaced and s.can("list", "delete")]
        await asyncio.gather(*(one(resource) for resource in wanted))
        return remains

    async def _empty_of(self, namespace: str, resource: ApiResource, remains: Remains) -> None:
        """Delete all of one resource; note what is left."""
        try:
            left, count = await self._list(resource, namespace)
            if any(not meta.is_deleting(obj) for obj in left):
                try:
                    await self.client.delete_collection(resource, namespace, propagation_policy="Background")
                except StatusError as error:
                    if error.code != 405:
                        raise
                    for obj in left:
                        await self.writer.delete(resource, obj)
                left, count = await self._list(resource, namespace)
        except StatusError as error:
            if error.code not in (404, 405):  # 404: the resource itself is gone
                remains.failures.append(f"{resource.group_resource}: {error}")
            return
        if left:
            remains.objects[resource.group_resource + ("" if resource.group else ".")] = count
            for obj in left:
                for finalizer in meta.finalizers(obj):
                    remains.finalizers[finalizer] = remains.finalizers.get(finalizer, 0) + 1

    async def _list(self, resource: ApiResource, namespace: str) -> tuple[list[meta.Object], int]:
        """(the first objects, how many there are)."""
        page = await self.client.list(resource, namespace, limit=_PAGE)
        items = page.get("items") or []
        return items, len(items) + (page["metadata"].get("remainingItemCount") or 0)

    async def _report(self, namespace: meta.Object, remains: Remains) -> None:
        before = meta.status(namespace).get("conditions") or []
        after = conditions(before, remains, clock.wall_time())
        if after != before:
            await self.writer.patch(NAMESPACES, namespace, {"status": {"conditions": after}}, "status")
