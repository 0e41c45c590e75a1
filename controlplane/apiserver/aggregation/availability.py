"""Whether aggregated APIs answer, in their APIService's condition; and APIServices for what this server serves itself.

Reasons and messages are those of kube-aggregator's available controllers.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane import clock
from controlplane.api import status
from controlplane.api.resources import Resource, ResourceTable
from controlplane.apiserver.aggregation.apiservices import PREFIX, APIServices, Backend
from controlplane.apiserver.aggregation.relay import Relay
from controlplane.apiserver.http import User
from controlplane.apiserver.registry.deletion import DeleteOptions
from controlplane.apiserver.registry.generic import Registry

log = logging.getLogger(__name__)
Object = dict[str, Any]
SERVER = User("system:kube-aggregator", ("system:masters", "system:authenticated"))
_CHECK_TIMEOUT_S = 5.0
_MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_GROUP_PRIORITY = {
    "": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
    "autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
    "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500,
    "node.k8s.io": 16300, "discovery.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100,
    "internal.apiserver.k8s.io": 16000, "resource.k8s.io": 15900, "storagemigration.k8s.io": 15800,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Published:
    """What an aggregated API says of itself: its APIResourceList, and its entry in the index of OpenAPI v3."""

    backend: Backend
    resources: tuple[Object, ...]
    openapi_hash: str = ""


class Availability:
    """Looks after all APIServices, one round at a time."""

    def __init__(self, registry: Registry, resource: Resource, services: APIServices, relay: Relay) -> None:
        self._registry = registry
        self._resource = resource
        self._services = services
        self._relay = relay

    async def round(self) -> tuple[Published, ...]:
        """Ask every aggregated API; tell in its condition; give back what answered."""
        asked = await asyncio.gather(*(self._look(backend) for backend in self._services.backends()))
        return tuple(each for each in asked if each is not None)

    async def _look(self, backend: Backend) -> Published | None:
        published, reason, message = await self._ask(backend)
        await self._tell(backend.name, published is not None, reason, message)
        return published

    async def _ask(self, backend: Backend) -> tuple[Published | None, str, str]:
        cache, service = self._registry.cache, f'service/{backend.service} in "{backend.namespace}"'
        if cache.get(f"core/services/{backend.namespace}/{backend.service}") is None:
            return None, "ServiceNotFound", f"{service} is not present"
        try:
            code, body = await self._relay.get(backend, backend.path, SERVER, "application/json", _CHECK_TIMEOUT_S)
        except status.StatusError as error:
            if "endpoints" in error.message:
                where = f'endpoints for {service} have no addresses with port name ""'
                return None, "MissingEndpoints", where
            if "service port" in error.message:
                return None, "ServicePortError", f"{service} is not listening on port {backend.port}"
            where = f"https://{backend.host}:{backend.port}{backend.path}"
            return None, "FailedDiscoveryCheck", f"failing or missing response from {where}: {error.message}"
        try:
            document = msgspec.json.decode(body) if 200 <= code < 300 else None
        except msgspec.DecodeError:
            document = None
        if not isinstance(document, dict):
            where = f"https://{backend.host}:{backend.port}{backend.path}"
            return None, "FailedDiscoveryCheck", f"failing or missing response from {where}: bad status: {code}"
        resources = tuple(each for each in document.get("resources") or () if isinstance(each, dict))
        return Published(backend, resources, await self._openapi(backend)), "Passed", "all checks passed"

    async def _openapi(self, backend: Backend) -> str:
        """The hash of its OpenAPI document; "" if it has none."""
        try:
            code, body = await self._relay.get(backend, "/openapi/v3", SERVER, "application/json", _CHECK_TIMEOUT_S)
            paths = msgspec.json.decode(body).get("paths") if code == 200 else None
            url = (paths or {}).get(backend.path.lstrip("/"), {}).get("serverRelativeURL", "")
        except (status.StatusError, msgspec.DecodeError, AttributeError):
            return ""
        return str(url).partition("hash=")[2] or ("-" if url else "")

    async def _tell(self, name: str, available: bool, reason: str, message: str) -> None:
        async def change(old: Object) -> Object:
            before = (old.get("status") or {}).get("conditions") or []
            return {**old, "status": {"conditions": _conditions(before, available, reason, message)}}

        cached = self._registry.cache.get(PREFIX + name)
        if cached is None or _told(cached.object) == (str(available), reason, message):
            return
        try:
            await self._registry.update(self._resource, "", name, SERVER, change, subresource="status")
        except status.StatusError as error:
            log.warning("apiservice=%s condition not written error=%s", name, error)

    async def own(self, table: ResourceTable) -> None:
        """An APIService for each group and version that this server serves, and none for those that it does not."""
        wanted = {}
        for group in table.groups():
            for place, version in enumerate(table.versions(group)):
                custom = all(resource.custom is not None for resource in table.resources(group, version))
                wanted[f"{version}.{group}"] = _own(group, version, place, custom=custom)
        for cached in self._registry.cache.list(PREFIX)[0]:
            obj = cached.object
            name, labels = obj["metadata"]["name"], obj["metadata"].get("labels") or {}
            if wanted.pop(name, None) is None and _MANAGED in labels and not obj["spec"].get("service"):
                await self._quietly(self._registry.delete(self._resource, "", name, SERVER, DeleteOptions()))
        makes = [self._registry.create(self._resource, obj, "", SERVER) for obj in wanted.values()]
        await asyncio.gather(*map(self._quietly, makes))  # the store commits them together

    async def _quietly(self, write: Any) -> None:
        try:
            await write
        except status.StatusError as error:
            if error.code not in (404, 409):
                log.warning("own apiservice not written error=%s", error)


def _own(group: str, version: str, place: int, *, custom: bool) -> Object:
    spec: Object = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 1000 if custom else _GROUP_PRIORITY.get(group, 15000),
        "versionPriority": 100 if custom else max(15 - place, 1),
    }
    labels = {_MANAGED: "true" if custom else "onstart"}
    return {
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": f"{version}.{group}", "labels": labels}, "spec": spec,
    }  # fmt: skip


def _told(obj: Object) -> tuple[str, str, str]:
    found: Object = next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == "Available"), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def _conditions(before: list[Object], available: bool, reason: str, message: str) -> list[Object]:
    state = str(available)
    old = next((c for c in before if c["type"] == "Available"), None)
    changed = old is None or old["status"] != state
    since = clock.rfc3339() if changed or old is None else old["lastTransitionTime"]
    new = {"lastTransitionTime": since, "message": message, "reason": reason, "status": state, "type": "Available"}
    return [*(c for c in before if c["type"] != "Available"), new]
