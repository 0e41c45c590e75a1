"""What other pods mean for this one: affinity, anti-affinity and spreading, worked out once a pod.

`survey(pod, snapshot)` turns the counts that the snapshot keeps into small tables (topology value -> number, or a set
of values), so that filters and scores only look up a node's labels. It decides nothing itself.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.scheduler.pod import PodInfo, Spread, Term
from controlplane.scheduler.snapshot import Counts, NodeInfo, Snapshot

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


@dataclass(slots=True)
class SpreadTable:
    """One constraint, measured."""

    constraint: Spread
    counts: dict[str, int]
    """Matching pods by topology value, over the nodes that count for this pod."""
    least: int
    """The smallest of the counts (0 if there are fewer domains than `minDomains`)."""
    itself: int
    """1 if the pod matches its own constraint's selector."""


@dataclass(slots=True)
class Survey:
    """Everything about other pods that filters and scores of one pod need."""

    repelled: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    """(topology key, values) where a placed pod's anti-affinity forbids this pod."""
    avoids: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    """Likewise where this pod's own anti-affinity does."""
    seeks: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    """(topology key, values) of each required affinity term: all must hold."""
    first: bool = False
    """No pod matches any affinity term and the pod matches its own: the first of its kind may go anywhere."""
    hard: list[SpreadTable] = field(default_factory=list)
    soft: list[SpreadTable] = field(default_factory=list)
    attraction: dict[str, dict[str, int]] = field(default_factory=dict)
    """topology key -> value -> weight: pods that this one likes or that like it."""
    siblings: Mapping[str, int] = field(default_factory=dict)
    """node -> pods of the same controller, for a pod without constraints of its own."""
    sibling_zones: Mapping[str, int] = field(default_factory=dict)


def survey(pod: PodInfo, snapshot: Snapshot) -> Survey:
    """Measure. O(distinct terms × nodes they are on)."""
    result = Survey()
    for term, counts in snapshot.anti_affinity.items():
        if _concerns(term, pod, snapshot):
            result.repelled.append((term.topology_key, _values(term.topology_key, counts, snapshot)))
    for term in pod.anti_affinity:
        result.avoids.append((term.topology_key, _values(term.topology_key, _matching(term, snapshot), snapshot)))
    if pod.affinity:
        # As in kube-scheduler, a pod counts for required affinity only if it matches every term.
        for term in pod.affinity:
            result.seeks.append((term.topology_key, _values(term.topology_key, _matching(term, snapshot), snapshot)))
        nobody = not any(values for _, values in result.seeks)
        result.first = nobody and all(_concerns(term, pod, snapshot) for term in pod.affinity)
    _attractions(pod, snapshot, result.attraction)
    for constraint in pod.spreads:
        (result.hard if constraint.hard else result.soft).append(_spread(pod, constraint, snapshot))
    if not pod.spreads and pod.owner:
        result.siblings = snapshot.owners.get(pod.owner, {})
        if result.siblings:
            result.sibling_zones = _by_value(ZONE, result.siblings, snapshot)
    return result


def _concerns(term: Term, pod: PodInfo, snapshot: Snapshot) -> bool:
    namespaces = snapshot.namespaces_of(term)
    return (namespaces is None or pod.namespace in namespaces) and term.selector.matches(pod.labels)


def _matching(term: Term, snapshot: Snapshot) -> Counts:
    return snapshot.matching(snapshot.namespaces_of(term), term.selector)


def _values(key: str, nodes: Iterable[str], snapshot: Snapshot) -> frozenset[str]:
    known = snapshot.nodes
    return frozenset(known[n].labels[key] for n in nodes if n in known and key in known[n].labels)


def _by_value(key: str, counts: Mapping[str, int], snapshot: Snapshot) -> dict[str, int]:
    result: dict[str, int] = {}
    for name, count in counts.items():
        node = snapshot.nodes.get(name)
        value = node.labels.get(key) if node else None
        if value is not None:
            result[value] = result.get(value, 0) + count
    return result


def _attractions(pod: PodInfo, snapshot: Snapshot, table: dict[str, dict[str, int]]) -> None:
    found: list[tuple[int, Term, Counts]] = [
        *((weight, term, _matching(term, snapshot)) for weight, term in pod.preferred_affinity),
        *((-weight, term, _matching(term, snapshot)) for weight, term in pod.preferred_anti_affinity),
        *(
            (weight, term, counts)
            for (weight, term), counts in snapshot.weighted.items()
            if _concerns(term, pod, snapshot)
        ),
    ]
    for weight, term, counts in found:
        values = table.setdefault(term.topology_key, {})
        for value, count in _by_value(term.topology_key, counts, snapshot).items():
            values[value] = values.get(value, 0) + weight * count


def _spread(pod: PodInfo, constraint: Spread, snapshot: Snapshot) -> SpreadTable:
    keys = [c.topology_key for c in pod.spreads if c.hard == constraint.hard]
    placed = snapshot.matching(frozenset((pod.namespace,)), constraint.selector, live_only=True)
    counts: dict[str, int] = {}
    for node in snapshot.nodes.values():
        if any(key not in node.labels for key in keys):
            continue
        if constraint.honor_affinity and not fits_affinity(pod, node):
            continue
        if constraint.honor_taints and untolerated(pod, node) is not None:
            continue
        value = node.labels[constraint.topology_key]
        counts[value] = counts.get(value, 0) + placed.get(node.name, 0)
    least = min(counts.values(), default=0) if len(counts) >= constraint.min_domains else 0
    return SpreadTable(constraint, counts, least, int(constraint.selector.matches(pod.labels)))


def fits_affinity(pod: PodInfo, node: NodeInfo) -> bool:
    """Whether the pod's nodeSelector and required node affinity admit the node."""
    labels = node.labels
    for key, value in pod.node_selector.items():
        if labels.get(key) != value:
            return False
    return pod.node_terms is None or any(term.matches(node.name, labels) for term in pod.node_terms)


def untolerated(pod: PodInfo, node: NodeInfo) -> tuple[str, str] | None:
    """(key, value) of the first taint that keeps the pod away, None if there is none."""
    for key, value, effect in node.hard_taints:
        if not any(t.tolerates(key, value, effect) for t in pod.tolerations):
            return key, value
    return None


def spread_weight(domains: int) -> float:
    """How much a pod more in one of `domains` domains counts (kube-scheduler's topologyNormalizingWeight)."""
    return math.log(domains + 2)
