"""Nothing is created in a namespace that does not exist or is going away; the system's own namespaces stay."""

from controlplane.api import status
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

_IMMORTAL = ("default", "kube-system", "kube-public")
_REVIEWS = ("localsubjectaccessreviews",)


class NamespaceLifecycle:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def admit(self, a: Attributes) -> None:
        if a.operation == "DELETE":
            if a.resource.plural == "namespaces" and not a.resource.group and a.name in _IMMORTAL:
                raise status.forbidden_object("namespaces", a.name, "this namespace may not be deleted")
            return
        if not a.namespace or a.operation != "CREATE" or a.resource.plural in _REVIEWS or not a.resource.namespaced:
            return
        namespace = self._cache.get(f"core/namespaces/{a.namespace}")
        if namespace is None:
            raise status.not_found("namespaces", a.namespace)
        if b'"deletionTimestamp"' in namespace.data and "deletionTimestamp" in namespace.object["metadata"]:
            error = status.forbidden_object(
                a.resource.group_resource, a.name,
                f"unable to create new content in namespace {a.namespace} because it is being terminated",
            )  # fmt: skip
            error.details = {**error.details, "causes": [
                {"reason": "NamespaceTerminating", "message": f"namespace {a.namespace} is being terminated",
                 "field": "metadata.namespace"}
            ]}  # fmt: skip
            raise error
