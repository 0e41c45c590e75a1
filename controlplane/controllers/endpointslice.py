"""EndpointSlice: the pods behind each Service, in slices of at most 100, changed as little as possible.

`plan()` compares the endpoints there should be with the slices there are, per address family and set of ports: slices
keep what still holds, lose what does not, changed slices are filled first, then one that the rest fits into, then new
ones are made (pkg endpointslice/reconciler.go). One pod that becomes ready is one write of one slice, and most changes
of pods are none. Slices of a Service that was deleted go by its owner reference, and here, since that is sooner.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from controlplane import clock
from controlplane.api import selectors
from controlplane.client.resources import ENDPOINTSLICES, NODES, PODS, SERVICES
from controlplane.controllers import actions, endpoint, meta, pods
from controlplane.controllers.controllerref import new_ref
from controlplane.controllers.reconcile import Context, Controller

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
ZONE = "topology.kubernetes.io/zone"
MAX_ENDPOINTS = 100
_RESERVED = {SERVICE_NAME, MANAGED_BY, HEADLESS}


class Kind(NamedTuple):
    """What all endpoints of one slice share."""

    family: str
    ports: endpoint.Ports


def wanted(
    service: meta.Object, candidates: Iterable[meta.Object], zones: Mapping[str, str]
) -> dict[Kind, dict[str, meta.Object]]:
    """The endpoints that `service` shall have, by kind and pod UID. `zones`: node name -> zone."""
    result: dict[Kind, dict[str, meta.Object]] = {}
    for pod in candidates:
        if not endpoint.counts(pod):
            continue
        served = endpoint.ports(service, pod)
        for family in endpoint.families(service):
            address = endpoint.address_of(pod, family)
            if address:
                zone = zones.get(pods.node_name(pod), "")
                made = endpoint.endpoint(pod, service, address, zone)
                result.setdefault(Kind(family, served), {})[meta.uid(pod)] = made
    return result


def slice_labels(service: meta.Object) -> dict[str, str]:
    """The Service's labels and those by which slices are found."""
    kept = {k: v for k, v in meta.labels(service).items() if k not in _RESERVED}
    kept |= {SERVICE_NAME: meta.name(service), MANAGED_BY: CONTROLLER}
    return kept | {HEADLESS: ""} if endpoint.is_headless(service) else kept


def _trigger(service: meta.Object, changed: Iterable[meta.Object]) -> str:
    """The newest of the moments at which the pods behind a change, or the Service, changed: for latency metrics."""
    moments = [meta.created(service), *(pods.ready_since(p) for p in changed)]
    return clock.rfc3339(max(moments))


def plan(
    service: meta.Object,
    candidates: Sequence[meta.Object],
    existing: Sequence[meta.Object],
    zones: Mapping[str, str],
) -> list[actions.Action]:
    """The writes that make `existing` slices (this controller's, of this Service) hold what is to be an endpoint of
    `candidates` (the pods that the selector matches)."""
    goal = wanted(service, candidates, zones)
    labels = slice_labels(service)
    trigger = _trigger(service, candidates)
    writes: list[actions.Action] = []
    by_kind: dict[Kind, list[meta.Object]] = {}
    for found in sorted(existing, key=meta.name):
        if not meta.is_deleting(found):
            by_kind.setdefault(Kind(found["addressType"], endpoint.read_ports(found.get("ports"))), []).append(found)

    for kind in [k for k in by_kind if k not in goal]:
        if any(k.family == kind.family for k in goal) or kind.family not in endpoint.families(service):
            writes += [actions.Delete(ENDPOINTSLICES, s) for s in by_kind.pop(kind)]
    # Without endpoints one empty slice stays per family, so that "no endpoints" differs from "not looked at yet".
    for family in endpoint.families(service):
        if not any(k.family == family for k in goal):
            kept = next((k for k in by_kind if k.family == family), Kind(family, ()))
            goal[kept] = {}
            for kind in [k for k in by_kind if k.family == family and k != kept]:
                writes += [actions.Delete(ENDPOINTSLICES, s) for s in by_kind.pop(kind)]
    for kind, endpoints in goal.items():
        writes += _fill(service, kind, endpoints, by_kind.get(kind, []), labels, trigger)
    return writes


def _fill(
    service: meta.Object,
    kind: Kind,
    goal: dict[str, meta.Object],
    existing: Sequence[meta.Object],
    labels: dict[str, str],
    trigger: str,
) -> list[actions.Action]:
    """The writes for one kind: keep, update, fill, create, delete."""
    missing = dict(goal)
    kept: dict[str, list[meta.Object]] = {}
    changed: list[str] = []
    for found in existing:
        name, before = meta.name(found), found.get("endpoints") or []
        after = []
        for entry in before:
            fresh = missing.pop((entry.get("targetRef") or {}).get("uid", ""), None)
            if fresh is not None:
                after.append(entry if fresh == entry else fresh)
        kept[name] = after
        if after != before or meta.labels(found) != labels:
            changed.append(name)
    rest = list(missing.values())
    for name in changed:
        room = MAX_ENDPOINTS - len(kept[name])
        kept[name], rest = kept[name] + rest[:room], rest[room:]
    if 0 < len(rest) < MAX_ENDPOINTS:
        # what is left fits into one slice: take the fullest that has room, rather than starting another
        roomy = [n for n in kept if n not in changed and len(kept[n]) + len(rest) <= MAX_ENDPOINTS]
        if roomy:
            best = max(roomy, key=lambda n: len(kept[n]))
            kept[best] = kept[best] + rest
            changed.append(best)
            rest = []
    writes: list[actions.Action] = []
    while rest or not (kept or writes):
        writes.append(actions.Create(ENDPOINTSLICES, _new(service, kind, rest[:MAX_ENDPOINTS], labels, trigger)))
        rest = rest[MAX_ENDPOINTS:]
    by_name = {meta.name(s): s for s in existing}
    emptied = [n for n in kept if not kept[n]]
    # never delete the last one: an empty slice says "none"
    spare = emptied if writes or len(emptied) < len(kept) else emptied[1:]
    for name in spare:
        writes.append(actions.Delete(ENDPOINTSLICES, by_name[name]))
    for name in changed:
        if name not in spare:
            notes = {**meta.annotations(by_name[name]), TRIGGER_TIME: trigger}
            update = meta.with_metadata(by_name[name], labels=labels, annotations=notes)
            writes.append(actions.Update(ENDPOINTSLICES, {**update, "endpoints": kept[name]}))
    return writes


def _new(
    service: meta.Object, kind: Kind, endpoints: list[meta.Object], labels: dict[str, str], trigger: str
) -> meta.Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": meta.name(service) + "-",
            "namespace": meta.namespace(service),
            "labels": labels,
            "annotations": {TRIGGER_TIME: trigger},
            "ownerReferences": [new_ref("v1", "Service", service)],
        },
        "addressType": kind.family,
        "endpoints": endpoints,
        "ports": endpoint.written_ports(kind.ports),
    }


def selecting(service: meta.Object, pod: meta.Object) -> bool:
    """Whether `service` selects `pod` by labels."""
    selector = service["spec"].get("selector")
    return bool(selector) and selector.items() <= meta.labels(pod).items()


def matters(old: meta.Object, new: meta.Object) -> bool:
    """Whether a change of a pod can change an endpoint: most updates of status do not."""
    return (
        meta.labels(old) != meta.labels(new)
        or pods.is_ready(old) != pods.is_ready(new)
        or meta.is_deleting(old) != meta.is_deleting(new)
        or pods.is_terminal(old) != pods.is_terminal(new)
        or endpoint.addresses(old) != endpoint.addresses(new)
        or pods.node_name(old) != pods.node_name(new)
    )


class ServiceFollower(Controller):
    """Base of the two controllers that write what is behind a Service: queues a Service when it or its pods change."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.services = self.watch(SERVICES)
        self.pods.add_handler(added=self._pod_changed, updated=self._pod_updated, deleted=self._pod_changed)

    def _pod_changed(self, pod: meta.Object) -> None:
        for service in self.services.by_index("namespace", meta.namespace(pod)):
            if selecting(service, pod):
                self.enqueue_paced(meta.key(service))

    def _pod_updated(self, old: meta.Object, new: meta.Object) -> None:
        if matters(old, new):
            self._pod_changed(new)
            if meta.labels(old) != meta.labels(new):
                self._pod_changed(old)

    def selected(self, service: meta.Object) -> list[meta.Object]:
        """The pods that `service` selects."""
        matching = selectors.from_map(service["spec"].get("selector")).matches
        return [p for p in self.pods.by_index("namespace", meta.namespace(service)) if matching(meta.labels(p))]


class EndpointSliceController(ServiceFollower):
    """See the module."""

    name = "endpointslice-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.view(NODES)
        self.slices = self.view(ENDPOINTSLICES)
        self.slices.add_handler(added=self._slice_changed, updated=self._slice_updated, deleted=self._slice_changed)
        self.nodes.add_handler(updated=self._node_updated)

    def _slice_changed(self, found: meta.Object) -> None:
        if meta.labels(found).get(MANAGED_BY) == CONTROLLER:
            self.queue.add(f"{meta.namespace(found)}/{meta.labels(found).get(SERVICE_NAME, '')}")

    def _slice_updated(self, old: meta.Object, new: meta.Object) -> None:
        self._slice_changed(new)
        if meta.labels(old).get(SERVICE_NAME) != meta.labels(new).get(SERVICE_NAME):
            self._slice_changed(old)

    def _node_updated(self, old: meta.Object, new: meta.Object) -> None:
        if meta.labels(old).get(ZONE) != meta.labels(new).get(ZONE):
            for pod in self.pods.by_index("node", meta.name(new)):
                self._pod_changed(pod)

    async def reconcile(self, key: str) -> float | None:
        service = self.services.get(key)
        ours = [s for s in self.slices.by_index("service", key) if meta.labels(s).get(MANAGED_BY) == CONTROLLER]
        if service is None:
            for found in ours:
                if not meta.is_deleting(found):
                    await self.writer.delete(ENDPOINTSLICES, found)
            return None
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return None  # its slices, if any, are made by hand
        if meta.is_deleting(service):
            return None
        selected = self.selected(service)
        names = {pods.node_name(p) for p in selected}
        nodes = (self.nodes.get(name) for name in names if name)
        zones = {meta.name(n): meta.labels(n).get(ZONE, "") for n in nodes if n is not None}
        for write in plan(service, selected, ours, zones):
            await self.perform(write)
        return None
