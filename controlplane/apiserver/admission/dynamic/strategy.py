"""A ValidatingAdmissionPolicy's status: it is in force, as it is now, when its writer hears of it."""

from typing import Any

from controlplane.apiserver.registry.strategy import Strategy

Object = dict[str, Any]


class PolicyStrategy(Strategy):
    """Types are not checked (everything is dynamically typed here), so there is nothing to warn of."""

    async def prepare_create(self, obj: Object) -> None:
        obj["status"] = {"observedGeneration": 1, "typeChecking": {}}

    async def prepare_update(self, new: Object, old: Object) -> None:
        await super().prepare_update(new, old)
        generation = old["metadata"].get("generation", 1) + self.generation_changed(new, old)
        new["status"] = {"typeChecking": {}, **(old.get("status") or {}), "observedGeneration": generation}
