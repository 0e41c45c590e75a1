"""The older Endpoints API: one object a Service, named like it, with ready and not-ready addresses in subsets.

Still read by older clients; EndpointSlices are what the proxies use. `plan()` repacks addresses with the same ports
into one subset, in a stable order, and keeps at most 1,000 addresses (then it is annotated as truncated), as
pkg/controller/endpoint does. Only Services with a selector are kept; the Endpoints of others are made by hand.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.client.resources import ENDPOINTS
from controlplane.controllers import actions, endpoint, meta, pods
from controlplane.controllers.endpointslice import HEADLESS, ServiceFollower
from controlplane.controllers.reconcile import Context

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MAX_ADDRESSES = 1000
_MANAGED = "endpoints.kubernetes.io/managed-by"


def subsets(service: meta.Object, candidates: Sequence[meta.Object]) -> tuple[list[meta.Object], bool]:
    """(subsets, whether addresses were left out) for the pods that the Service selects."""
    groups: dict[endpoint.Ports, dict[str, list[meta.Object]]] = {}
    family = endpoint.families(service)[0]
    everyone = bool(service["spec"].get("publishNotReadyAddresses"))
    left, truncated = MAX_ADDRESSES, False
    # ready addresses first: they are the ones to keep should there be too many
    for pod in sorted(candidates, key=lambda p: (not pods.is_ready(p), endpoint.address_of(p, family))):
        address = endpoint.address_of(pod, family)
        if not address or not endpoint.counts(pod) or (meta.is_deleting(pod) and not everyone):
            continue
        if left == 0:
            truncated = True
            break
        left -= 1
        group = groups.setdefault(endpoint.ports(service, pod), {"addresses": [], "notReadyAddresses": []})
        which = "addresses" if everyone or pods.is_ready(pod) else "notReadyAddresses"
        group[which].append(_address(pod, service, address))
    result = []
    for served, group in sorted(groups.items()):
        subset: dict[str, Any] = {k: sorted(v, key=lambda a: a["ip"]) for k, v in group.items() if v}
        written = [
            {k: v for k, v in p.items() if v != ""} for p in endpoint.written_ports(served)
        ]  # here an empty name is absent
        result.append({**subset, **({"ports": written} if written else {})})
    return result, truncated


def _address(pod: meta.Object, service: meta.Object, address: str) -> meta.Object:
    target = {"kind": "Pod", "namespace": meta.namespace(pod), "name": meta.name(pod), "uid": meta.uid(pod)}
    fields = {
        "ip": address,
        "nodeName": pods.node_name(pod) or None,
        "hostname": endpoint.hostname(pod, service) or None,
        "targetRef": target,
    }
    return meta.pruned(fields)


def plan(service: meta.Object, candidates: Sequence[meta.Object], existing: meta.Object | None) -> list[actions.Action]:
    """Create or update the Endpoints object, if it differs."""
    wanted, truncated = subsets(service, candidates)
    labels = {**meta.labels(service), _MANAGED: "endpoint-controller"}
    if endpoint.is_headless(service):
        labels[HEADLESS] = ""
    notes = {k: v for k, v in meta.annotations(existing or service).items() if existing and k != OVER_CAPACITY}
    if truncated:
        notes[OVER_CAPACITY] = "truncated"
    if existing is None:
        made: meta.Object = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": meta.name(service), "namespace": meta.namespace(service), "labels": labels},
            "subsets": wanted,
        }
        return [actions.Create(ENDPOINTS, meta.with_metadata(made, annotations=notes or None))]
    same = (existing.get("subsets") or []) == wanted
    if same and meta.labels(existing) == labels and meta.annotations(existing) == notes:
        return []
    changed = meta.with_metadata(existing, labels=labels, annotations=notes or None)
    return [actions.Update(ENDPOINTS, {**changed, "subsets": wanted})]


class EndpointsController(ServiceFollower):
    """See the module."""

    name = "endpoints-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.endpoints = self.watch(ENDPOINTS)

    async def reconcile(self, key: str) -> float | None:
        service, existing = self.services.get(key), self.endpoints.get(key)
        if service is None or meta.is_deleting(service):
            if existing is not None and _MANAGED in meta.labels(existing):
                await self.writer.delete(ENDPOINTS, existing)
            return None
        if service["spec"].get("selector") and service["spec"].get("type") != "ExternalName":
            for write in plan(service, self.selected(service), existing):
                await self.perform(write)
        return None
