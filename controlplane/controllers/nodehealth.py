"""What to think of a node: conditions when it is silent, taints that follow from conditions, health of a zone. Pure.

The table of conditions and taints is Kubernetes' (pkg/controller/nodelifecycle): `NoSchedule` taints follow at once;
`NoExecute`, which evicts, is added at a limited rate, and not at all while every node seems lost: then it is more
likely that the control plane is cut off.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from controlplane import clock
from controlplane.controllers import meta

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_BY_CONDITION = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_MANAGED = {*_BY_CONDITION.values(), _UNSCHEDULABLE}
_SILENT = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def readiness(node: meta.Object) -> str:
    """`True`, `False` or `Unknown`: the status of the node's Ready condition; `Unknown` if it has none."""
    ready = meta.condition(meta.status(node), "Ready")
    return ready["status"] if ready else "Unknown"


def silenced(node: meta.Object, now: float) -> list[meta.Object] | None:
    """The conditions of a node that stopped speaking: what it reported is Unknown. None if they say so already."""
    stamp = clock.rfc3339(now)
    conditions = list(meta.status(node).get("conditions") or ())
    changed = False
    for kind in _SILENT:
        at = next((i for i, c in enumerate(conditions) if c["type"] == kind), None)
        if at is None:
            changed = True
            conditions.append({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node["metadata"].get("creationTimestamp"), "lastTransitionTime": stamp,
            })  # fmt: skip
        elif conditions[at]["status"] != "Unknown":
            changed = True
            conditions[at] = {
                **conditions[at], "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.", "lastTransitionTime": stamp,
            }  # fmt: skip
    return conditions if changed else None


def wanted_taints(node: meta.Object, *, evict: bool, now: float) -> list[meta.Object]:
    """The taints that `node` shall have: those of others as they are, ours as the conditions say. `evict`: whether a
    node that is not ready may get (or keep) its NoExecute taint."""
    wanted: dict[tuple[str, str], None] = {}
    for entry in meta.status(node).get("conditions") or ():
        taint = _BY_CONDITION.get((entry["type"], entry["status"]))
        if taint:
            wanted[taint, "NoSchedule"] = None
            if evict and entry["type"] == "Ready":
                wanted[taint, "NoExecute"] = None
    if meta.condition(meta.status(node), "Ready") is None and (NOT_READY, "NoSchedule") in _pairs(node):
        wanted[NOT_READY, "NoSchedule"] = None  # admission put it there at registration; nothing is known yet
    if node["spec"].get("unschedulable"):
        wanted[_UNSCHEDULABLE, "NoSchedule"] = None
    result = []
    for taint in node["spec"].get("taints") or ():
        pair = (taint["key"], taint["effect"])
        if not _is_ours(pair):
            result.append(taint)
        elif pair in wanted:
            result.append(taint)
            del wanted[pair]
    stamp = clock.rfc3339(now)
    return result + [{"key": key, "effect": effect, "timeAdded": stamp} for key, effect in wanted]


def _is_ours(pair: tuple[str, str]) -> bool:
    key, effect = pair
    return (effect == "NoSchedule" and key in _MANAGED) or (effect == "NoExecute" and key in (NOT_READY, UNREACHABLE))


def _pairs(node: meta.Object) -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in node["spec"].get("taints") or ()}


def is_evicting(node: meta.Object) -> bool:
    """Whether the node carries our NoExecute taint."""
    return any((key, "NoExecute") in _pairs(node) for key in (NOT_READY, UNREACHABLE))


class Zone(Enum):
    """How a failure zone does."""

    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


@dataclass(frozen=True, slots=True)
class Weather:
    """What decides how fast nodes of a zone may be evicted."""

    zone: Zone
    size: int
    everything_lost: bool
    """Every zone is fully disrupted: do not evict at all."""


def zone_of(node: meta.Object) -> str:
    labels = meta.labels(node)
    return f"{labels.get('topology.kubernetes.io/region', '')}/{labels.get('topology.kubernetes.io/zone', '')}"


def weather(nodes: Iterable[meta.Object], threshold: float) -> dict[str, Weather]:
    """The state of each zone. `threshold`: share of nodes not ready from which a zone is partially disrupted."""
    counts: dict[str, tuple[int, int]] = {}
    for node in nodes:
        ready, lost = counts.get(zone_of(node), (0, 0))
        is_ready = readiness(node) == "True"
        counts[zone_of(node)] = (ready + is_ready, lost + (not is_ready))
    states = {zone: _state(ready, lost, threshold) for zone, (ready, lost) in counts.items()}
    dark = all(state is Zone.FULL for state in states.values())
    return {zone: Weather(state, sum(counts[zone]), dark) for zone, state in states.items()}


def _state(ready: int, lost: int, threshold: float) -> Zone:
    if ready == 0 and lost > 0:
        return Zone.FULL
    if lost > 2 and lost / (ready + lost) >= threshold:
        return Zone.PARTIAL
    return Zone.NORMAL
