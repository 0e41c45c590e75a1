"""ResourceQuotas: no object beyond what its namespace may have. The last question before an object is stored.

What the object counts for is charged to every quota it falls under, by a write of the quota's status that fails when
somebody else was quicker: two objects at once cannot share the last place. An object that is refused later has been
charged in vain, until the quota controller counts again. Words: plugin/pkg/admission/resourcequota.
"""

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from controlplane.api import quantity, quota, status
from controlplane.api.quota import Amounts
from controlplane.api.resources import Resource
from controlplane.apiserver.http import User
from controlplane.apiserver.registry.generic import Attributes, Registry

Object = dict[str, Any]
_USER = User("system:apiserver", ("system:masters", "system:authenticated"))
_UPDATES = ("pods", "services", "persistentvolumeclaims")  # whose updates can make them count for more
_PLAIN = ("", "resize")


class ResourceQuota:
    def __init__(self, registry: Registry, quotas: Resource) -> None:
        self._registry, self._quotas = registry, quotas
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by namespace

    async def admit(self, a: Attributes) -> None:
        """Raises StatusError 403."""
        if a.new is None or not a.namespace or a.subresource not in _PLAIN or a.operation == "DELETE":
            return
        name = a.resource.group_resource
        if a.operation == "UPDATE" and name not in _UPDATES:
            return
        found = self._registry.cache.list(f"core/resourcequotas/{a.namespace}/")[0]
        if not found:
            return
        turn = self._turns.get(a.namespace)
        if turn is None:
            turn = self._turns[a.namespace] = asyncio.Lock()
        async with turn:  # one after the other, rather than all at once and most in vain
            for cached in found:
                if quota.covers(cached.object, name, a.new):
                    await self._charge(cached.object, name, a)

    async def _charge(self, found: Object, name: str, a: Attributes) -> None:
        assert a.new is not None
        hard = (found.get("spec") or {}).get("hard") or {}
        if name == "pods" and a.operation == "CREATE" and (missing := quota.unspecified(found, a.new)):
            text = f"failed quota: {found['metadata']['name']}: must specify {missing}"
            raise status.forbidden_object(name, a.name, text)
        more = {n: amount for n, amount in quota.usage(name, a.new).items() if n in hard}
        if a.old is not None and quota.covers(found, name, a.old):
            before = quota.usage(name, a.old)
            more = {n: amount - before[n] if n in before else amount for n, amount in more.items()}
        more = {n: amount for n, amount in more.items() if amount.nano > 0}
        if not more:
            return

        async def charge(current: Object) -> Object:
            return _charged(current, more, name, a.name)

        if a.dry_run:
            _charged(found, more, name, a.name)
            return
        await self._registry.update(
            self._quotas, a.namespace, found["metadata"]["name"], _USER, charge, subresource="status"
        )


def _charged(current: Object, more: Amounts, name: str, object_name: str) -> Object:
    """The quota with `more` used. Raises StatusError 403."""
    hard = (current.get("spec") or {}).get("hard") or {}
    before = current.get("status") or {}
    used = before.get("used") or {}
    if before.get("hard") != hard:
        # Nobody has counted yet what there is: who lets objects in now may let in too many.
        text = f"status unknown for quota: {current['metadata']['name']}, resources: {','.join(sorted(more))}"
        raise status.forbidden_object(name, object_name, text)
    if beyond := quota.exceeded(hard, used, more):
        asked = ",".join(f"{n}={more[n]}" for n in beyond)
        have = ",".join(f"{n}={used.get(n, '0')}" for n in beyond)
        most = ",".join(f"{n}={hard[n]}" for n in beyond)
        quota_name = current["metadata"]["name"]
        text = f"exceeded quota: {quota_name}, requested: {asked}, used: {have}, limited: {most}"
        raise status.forbidden_object(name, object_name, text)
    charged = {n: str(quantity.parse(used.get(n, "0")) + amount) for n, amount in more.items()}
    return {**current, "status": {**before, "used": {**used, **charged}}}
