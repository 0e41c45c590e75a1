"""Resource quotas: counts what a namespace uses, and writes it into the status of its quotas.

The API server charges what is created (apiserver.admission.resource_quota); what has gone, grown smaller or been
charged in vain is found here. Pods, Services and claims are counted from the shared caches, when one of them changes.
Of other kinds only the number counts, and the API server tells that without sending them; a quota on such is counted
again every few seconds.
"""

from collections.abc import Callable

from controlplane.api import quantity, quota
from controlplane.api.quantity import Quantity
from controlplane.api.status import StatusError
from controlplane.client.resources import PERSISTENTVOLUMECLAIMS, PODS, RESOURCEQUOTAS, SERVICES, ApiResource
from controlplane.controllers import discovery, meta
from controlplane.controllers.reconcile import Context, Controller
from controlplane.controllers.view import View

RECOUNT_S = 5.0
RESYNC_S = 300.0


class ResourceQuotaController(Controller):
    """See the module."""

    name = "resourcequota-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.quotas = self.watch(RESOURCEQUOTAS, ignore_status=True)
        self.counted: dict[str, View] = {}
        for resource in (PODS, SERVICES, PERSISTENTVOLUMECLAIMS):
            view = self.counted[resource.plural] = self.view(resource)
            changed = _interesting(resource.plural, self._changed)
            view.add_handler(added=None, updated=changed, deleted=self._changed)
        self._plurals: dict[str, ApiResource] = {}

    def _changed(self, obj: meta.Object) -> None:
        for each in self.quotas.by_index("namespace", meta.namespace(obj)):
            self.enqueue_paced(meta.key(each))

    async def reconcile(self, key: str) -> float | None:
        found = self.quotas.get(key)
        if found is None or meta.is_deleting(found):
            return None
        hard = found["spec"].get("hard") or {}
        used, again = await self._used(found)
        status = {"hard": hard, "used": {name: str(used.get(name, Quantity(0))) for name in hard}}
        before = meta.status(found)
        if status != {"hard": before.get("hard"), "used": before.get("used")}:
            await self.writer.update(RESOURCEQUOTAS, {**found, "status": {**before, **status}}, "status")
        return RECOUNT_S if again else RESYNC_S

    async def _used(self, found: meta.Object) -> tuple[quota.Amounts, bool]:
        """What is used of each name in `hard`, and whether some of it had to be asked for."""
        namespace, hard = meta.namespace(found), found["spec"].get("hard") or {}
        used: quota.Amounts = {}
        for plural, view in self.counted.items():
            objects = (o for o in view.by_index("namespace", namespace) if quota.covers(found, plural, o))
            used |= quota.add(quota.usage(plural, obj) for obj in objects)
        asked = False
        for name in hard:
            plural = name.removeprefix("count/")
            if plural in self.counted or (name == plural and plural not in quota.BARE):
                continue
            asked = True
            if quota.covers(found, plural, {}):
                used[name] = quantity.of(await self._number(plural, namespace))
        return used, asked

    async def _number(self, group_resource: str, namespace: str) -> int:
        """How many objects of a kind there are; 0 of a kind that is not served (any more)."""
        resource = self._plurals.get(group_resource)
        if resource is None:
            served = await discovery.served(self.client)
            self._plurals = {_full_name(each.resource): each.resource for each in served if each.resource.namespaced}
            resource = self._plurals.get(group_resource)
        if resource is None:
            return 0
        try:
            page = await self.client.list(resource, namespace, limit=1)
        except StatusError as error:
            if error.code != 404:
                raise
            self._plurals.clear()
            return 0
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount") or 0)


def _full_name(resource: ApiResource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _interesting(plural: str, changed: Callable[[meta.Object], None]) -> Callable[[meta.Object, meta.Object], None]:
    """Updates that can change what the object counts for."""

    def updated(old: meta.Object, new: meta.Object) -> None:
        if quota.usage(plural, old) != quota.usage(plural, new):
            changed(new)

    return updated
