"""The two places in a write where configured admission happens: `mutate` before defaults are final, `validate` last."""

from controlplane.api.definitions import Definitions
from controlplane.api.resources import ResourceTable
from controlplane.apiserver.admission.dynamic.configured import Configured
from controlplane.apiserver.admission.dynamic.matching import is_exempt
from controlplane.apiserver.admission.dynamic.mutations import Mutations
from controlplane.apiserver.admission.dynamic.policies import Policies
from controlplane.apiserver.admission.dynamic.webhooks import Webhooks
from controlplane.apiserver.admission.notes import RequestNotes
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.generic import Attributes
from controlplane.apiserver.webhook_client import Caller
from controlplane.store.cache import WatchCache


class Dynamic:
    """Webhooks and policies as configured in the cluster."""

    def __init__(self, cache: WatchCache, table: ResourceTable, authz: Authorizer, definitions: Definitions) -> None:
        self._configured = Configured(cache)
        self.caller = Caller(cache)
        self._webhooks = Webhooks(cache, table, authz, definitions, self.caller)
        self._policies = Policies(cache, table, authz)
        self.mutations = Mutations(cache, table, authz)
        self._notes = RequestNotes()

    def serve(self, table: ResourceTable) -> None:
        """The resources that there are from now on."""
        self._webhooks.table = self._policies.table = self.mutations.table = table

    async def close(self) -> None:
        self._configured.close()
        await self.caller.close()

    async def mutate(self, a: Attributes) -> None:
        """Raises StatusError."""
        configured = self._configured
        configured.refresh()
        if not (configured.changing or configured.mutating) or is_exempt(a.resource):
            return
        if configured.changing:
            self.mutations.mutate(configured.changing, a)
        if configured.mutating:
            await self._webhooks.mutate(configured.mutating, a, self._notes)

    async def validate(self, a: Attributes) -> None:
        """Raises StatusError."""
        configured = self._configured
        configured.refresh()
        if (configured.bound or configured.validating) and not is_exempt(a.resource):
            if configured.bound:
                self._policies.validate(configured.bound, a, self._notes)
            if configured.validating:
                await self._webhooks.validate(configured.validating, a, self._notes)
