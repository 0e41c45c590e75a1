"""What the server itself keeps true: system namespaces, RBAC policy, priority classes, its own Service.

Idempotent, at every start; writes only what differs. It speaks to the registry as an API client would, under a name of
its own, system:apiserver. Objects that do not need each other are written at once: the store commits such writes in
groups, so that the hundred-odd of a first start cost a few commits and not one each.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

from controlplane.api import status
from controlplane.api.resources import Resource, ResourceTable
from controlplane.apiserver.authz import policy
from controlplane.apiserver.flowcontrol import defaults as flowcontrol
from controlplane.apiserver.http import User
from controlplane.apiserver.registry.generic import Registry

log = logging.getLogger(__name__)
Object = dict[str, Any]
APISERVER = User("system:apiserver", ("system:masters", "system:authenticated"))
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_KEEP_S = 10.0
_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"


class Bootstrap:
    def __init__(self, registry: Registry, table: ResourceTable) -> None:
        self._registry = registry
        self._table = table

    async def run(self, address: str, port: int, service_address: str, *more: Object) -> None:
        """`more`: ConfigMaps that must say what they say."""
        await self.namespaces()
        await asyncio.gather(
            *(self._ensure(obj, _merge_policy) for obj in policy.objects()),
            *(self._ensure(obj, _merge_flow) for obj in flowcontrol.objects()),
            *(
                self._ensure({**_object("scheduling.k8s.io/v1", "PriorityClass", name), "value": value})
                for name, value in _PRIORITIES.items()
            ),
        )
        await asyncio.gather(*(self._ensure(obj, _take("data")) for obj in more))
        await self.own_service(address, port, service_address)

    async def namespaces(self) -> None:
        """The system's namespaces."""
        await asyncio.gather(*(
            self._ensure(_object("v1", "Namespace", name, labels={"kubernetes.io/metadata.name": name}))
            for name in NAMESPACES
        ))  # fmt: skip

    async def keep(self, address: str, port: int, service_address: str) -> None:
        """Put the server's own Service and namespaces back when somebody removes them, until cancelled."""
        while True:
            await asyncio.sleep(_KEEP_S)
            try:
                await self.namespaces()
                await self.own_service(address, port, service_address)
            except status.StatusError as error:  # e.g. the namespace is being deleted
                log.warning("own service not kept error=%r", error)

    async def own_service(self, address: str, port: int, service_address: str) -> None:
        """default/kubernetes: how pods reach the API, with ourselves as its endpoint."""
        labels = {"component": "apiserver", "provider": "kubernetes"}
        ports = [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]
        spec = {"type": "ClusterIP", "clusterIP": service_address, "clusterIPs": [service_address],
                "sessionAffinity": "None", "ports": ports}  # fmt: skip
        await self._ensure({**_object("v1", "Service", "kubernetes", "default", labels), "spec": spec})
        if ipaddress.ip_address(address).is_loopback:
            return  # a server for this machine only: nothing that a pod could reach
        mirrored = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        endpoint_ports = [{"name": "https", "protocol": "TCP", "port": port}]
        await self._ensure({
            **_object("v1", "Endpoints", "kubernetes", "default", mirrored),
            "subsets": [{"addresses": [{"ip": address}], "ports": endpoint_ports}],
        }, _take("subsets"))  # fmt: skip
        await self._ensure({
            **_object("discovery.k8s.io/v1", "EndpointSlice", "kubernetes", "default",
                      {"kubernetes.io/service-name": "kubernetes"}),
            "addressType": "IPv6" if ":" in address else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": endpoint_ports,
        }, _take("endpoints", "ports"))  # fmt: skip

    async def _ensure(self, wanted: Object, merge: Callable[[Object, Object], Object] | None = None) -> None:
        """Create `wanted`, or bring what is there up to date with `merge(current, wanted)`."""
        resource = self._table.for_object(wanted["apiVersion"], wanted["kind"])
        assert resource is not None
        meta = wanted["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        present = self._registry.cache.get(self._registry.key(resource, namespace, name))
        if present is None:
            try:
                await self._create(resource, wanted, namespace)
                return
            except status.StatusError as error:  # another server on the same store was first
                if error.reason != "AlreadyExists":
                    raise
        if merge is None or (present is not None and merge(present.object, wanted) == present.object):
            return

        async def change(current: Object) -> Object:
            return merge(current, wanted)

        await self._registry.update(resource, namespace, name, APISERVER, change)

    async def _create(self, resource: Resource, wanted: Object, namespace: str) -> None:
        fresh = {**wanted, "metadata": dict(wanted["metadata"])}
        if isinstance(fresh.get("spec"), dict):
            fresh["spec"] = dict(fresh["spec"])
        await self._registry.create(resource, fresh, namespace, APISERVER)


def _object(version: str, kind: str, name: str, namespace: str = "", labels: Object | None = None) -> Object:
    meta: Object = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = labels
    return {"kind": kind, "apiVersion": version, "metadata": meta}


def _take(*keys: str) -> Callable[[Object, Object], Object]:
    def merge(current: Object, wanted: Object) -> Object:
        return {**current, **{key: wanted[key] for key in keys}}

    return merge


def _merge_flow(current: Object, wanted: Object) -> Object:
    """Set the spec back unless an administrator has taken it over; what is mandatory cannot be taken over."""
    taken_over = (current["metadata"].get("annotations") or {}).get(flowcontrol.AUTOUPDATE) == "false"
    if taken_over and wanted["metadata"]["name"] not in flowcontrol.MANDATORY:
        return current
    return {**current, "spec": wanted["spec"]}


def _merge_policy(current: Object, wanted: Object) -> Object:
    """Add missing rules and subjects; leave what an administrator added, and what he switched off."""
    if (current["metadata"].get("annotations") or {}).get(_AUTOUPDATE) == "false":
        return current
    merged = dict(current)
    for key in ("rules", "subjects"):
        if key in wanted:
            have = current.get(key) or []
            merged[key] = [*have, *(item for item in wanted[key] if item not in have)]
    return merged
