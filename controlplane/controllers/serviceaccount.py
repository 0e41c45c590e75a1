"""Service accounts: every namespace has one called `default`, from the moment it exists; deleted, it comes back.

Pods without a serviceAccountName run as it, and admission refuses them until it is there, so this is made to be quick:
one create, straight from the namespace's event. Tokens are not made here: they are asked for (TokenRequest).
"""

from controlplane.api.status import StatusError
from controlplane.client.resources import NAMESPACES, SERVICEACCOUNTS, ApiResource
from controlplane.controllers import meta
from controlplane.controllers.podcontrol import namespace_terminating
from controlplane.controllers.reconcile import Context, Controller


def missing(namespace: meta.Object | None, account: meta.Object | None) -> bool:
    """Whether the default account must be made."""
    if namespace is None or meta.is_deleting(namespace):
        return False
    return account is None and meta.status(namespace).get("phase", "Active") == "Active"


class ServiceAccountController(Controller):
    """See the module. Keys are namespaces."""

    name = "serviceaccount-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.accounts = self.view(SERVICEACCOUNTS)
        self.namespaces = self.watch(NAMESPACES)
        self.accounts.add_handler(deleted=lambda obj: self.queue.add(meta.namespace(obj)))

    async def reconcile(self, key: str) -> float | None:
        if missing(self.namespaces.get(key), self.accounts.get(f"{key}/default")):
            account = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": key},
            }
            await create_unless_there(self, SERVICEACCOUNTS, account)
        return None


async def create_unless_there(controller: Controller, resource: ApiResource, obj: meta.Object) -> None:
    """Create `obj`; that it exists, or that its namespace is going or gone, is no failure."""
    try:
        await controller.writer.create(resource, obj)
    except StatusError as error:
        if error.reason != "AlreadyExists" and error.code != 404 and not namespace_terminating(error):
            raise
