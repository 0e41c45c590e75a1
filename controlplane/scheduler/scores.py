"""Which of the nodes that may is best? One pure function an aspect, 0 … 100, weighed as kube-scheduler weighs them.

Some aspects are absolute (how full a node would be), others compare the nodes with each other (normalised so that the
best has 100). `applies` leaves out an aspect that would give every node the same. Ties are broken by chance, so that
equal nodes fill evenly.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple

from controlplane.clock import chance
from controlplane.scheduler.filters import Context
from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.snapshot import NodeInfo
from controlplane.scheduler.topology import ZONE, spread_weight

Nodes = Sequence[NodeInfo]
_BEST = 100
_SMALL_IMAGE = 23 << 20
_LARGE_IMAGE = 1000 << 20


class Score(NamedTuple):
    name: str
    weight: int
    applies: Callable[[PodInfo, Context], object]
    of: Callable[[PodInfo, Nodes, Context], Sequence[float]]


def least_allocated(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """The emptier after placing, the better: mean of what is left of CPU and memory."""
    more_cpu, more_memory = pod.nonzero_cpu, pod.nonzero_memory
    scores: list[float] = []
    for node in nodes:
        cpu, memory = node.cpu, node.memory
        left_cpu = cpu - node.nonzero_cpu - more_cpu
        left_memory = memory - node.nonzero_memory - more_memory
        score = left_cpu * 50 / cpu if left_cpu > 0 else 0
        if left_memory > 0:
            score += left_memory * 50 / memory
        scores.append(score)
    return scores


def balanced_allocation(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """The closer together the used shares of CPU, memory and what else the pod asks for, the better."""
    asked = dict(pod.requests)
    names = ["cpu", "memory", *(n for n in asked if n not in ("cpu", "memory"))]
    if len(names) == 2:
        return _balance_of_two(asked.get("cpu", 0), asked.get("memory", 0), nodes)
    scores: list[float] = []
    for node in nodes:
        shares = [
            min((total - node.free.get(name, 0) + asked.get(name, 0)) / total, 1.0)
            for name in names
            if (total := node.allocatable.get(name, 0))
        ]
        mean = sum(shares) / len(shares) if shares else 0
        deviation = sqrt(sum((s - mean) ** 2 for s in shares) / len(shares)) if shares else 0
        scores.append((1 - deviation) * _BEST)
    return scores


def _balance_of_two(more_cpu: int, more_memory: int, nodes: Nodes) -> list[float]:
    """The usual case: the standard deviation of two shares is half their distance."""
    scores: list[float] = []
    for node in nodes:
        free = node.free
        if not (node.cpu and node.memory):
            scores.append(_BEST)
            continue
        cpu = (node.cpu - free["cpu"] + more_cpu) / node.cpu
        memory = (node.memory - free["memory"] + more_memory) / node.memory
        distance = (cpu if cpu < 1 else 1) - (memory if memory < 1 else 1)
        scores.append(_BEST - 50 * (distance if distance > 0 else -distance))
    return scores


def taint_toleration(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """The fewer PreferNoSchedule taints the pod does not tolerate, the better."""
    bad = [
        sum(1 for taint in n.soft_taints if not any(t.tolerates(*taint) for t in pod.tolerations))
        if n.soft_taints
        else 0
        for n in nodes
    ]
    worst = max(bad)
    return [_BEST - b * _BEST / worst if worst else _BEST for b in bad]


def node_affinity(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """Preferred node affinity: the sum of the weights that match."""
    sums = [sum(weight for weight, term in pod.preferred_nodes if term.matches(n.name, n.labels)) for n in nodes]
    most = max(sums)
    return [s * _BEST / most if most else 0 for s in sums]


def image_locality(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """The more bytes of the pod's images are there already, the better; an image that is everywhere counts fully."""
    images = [_normalized(i) for i in pod.images]
    spread = {i: sum(1 for n in nodes if i in n.images) / len(nodes) for i in images}
    ceiling = _LARGE_IMAGE * len(images)
    scores: list[float] = []
    for node in nodes:
        size = sum(node.images.get(i, 0) * spread[i] for i in images)
        size = min(max(size, _SMALL_IMAGE), ceiling)
        scores.append((size - _SMALL_IMAGE) * _BEST / (ceiling - _SMALL_IMAGE))
    return scores


def _normalized(image: str) -> str:
    return image if ":" in image.rsplit("/", 1)[-1] or "@" in image else image + ":latest"


def pod_affinity(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """Preferred affinity of this pod for those that are there, and of those for this one."""
    table = context.survey.attraction
    sums = [sum(values.get(n.labels.get(key, ""), 0) for key, values in table.items()) for n in nodes]
    low, high = min(sums), max(sums)
    return [(s - low) * _BEST / (high - low) if high > low else 0 for s in sums]


def topology_spread(pod: PodInfo, nodes: Nodes, context: Context) -> list[float]:
    """The fewer matching pods in a node's domains, the better. A pod without constraints of its own is spread from
    its controller's other pods over hosts and zones, as kube-scheduler's system defaults do by selectors."""
    survey = context.survey
    sums: list[float] = []
    if survey.soft:
        weights = [spread_weight(len(t.counts)) for t in survey.soft]
        for node in nodes:
            total = 0.0
            for table, weight in zip(survey.soft, weights, strict=True):
                constraint = table.constraint
                value = node.labels.get(constraint.topology_key)
                if value is None:
                    total = -1
                    break
                total += table.counts.get(value, 0) * weight + constraint.max_skew - 1
            sums.append(total)
    else:
        hosts, zones = spread_weight(len(nodes)), spread_weight(len(survey.sibling_zones))
        for node in nodes:
            total = survey.siblings.get(node.name, 0) * hosts
            zone = node.labels.get(ZONE)
            if zone is not None:
                total += survey.sibling_zones.get(zone, 0) * zones
            sums.append(total)
    known = [s for s in sums if s >= 0]
    low, high = min(known, default=0), max(known, default=0)
    return [0 if s < 0 else (high + low - s) * _BEST / high if high else _BEST for s in sums]


SCORES = (
    Score("TaintToleration", 3, lambda p, c: c.snapshot.soft_tainted, taint_toleration),
    Score("NodeAffinity", 2, lambda p, c: p.preferred_nodes, node_affinity),
    Score("NodeResourcesFit", 1, lambda p, c: True, least_allocated),
    Score("PodTopologySpread", 2, lambda p, c: c.survey.soft or c.survey.siblings, topology_spread),
    Score("InterPodAffinity", 2, lambda p, c: c.survey.attraction, pod_affinity),
    Score("NodeResourcesBalancedAllocation", 1, lambda p, c: p.requests, balanced_allocation),
    Score("ImageLocality", 1, lambda p, c: p.images, image_locality),
)


def best(pod: PodInfo, nodes: Nodes, context: Context) -> NodeInfo:
    """The node with the highest weighed sum; any of them if several have it. `nodes` is not empty."""
    if len(nodes) == 1:
        return nodes[0]
    totals = [0.0] * len(nodes)
    for score in SCORES:
        if score.applies(pod, context):
            weight = score.weight
            totals = [t + weight * int(s) for t, s in zip(totals, score.of(pod, nodes, context), strict=True)]
    top = max(totals)
    winners = [n for n, t in zip(nodes, totals, strict=True) if t == top]
    return winners[0] if len(winners) == 1 else chance.choice(winners)
