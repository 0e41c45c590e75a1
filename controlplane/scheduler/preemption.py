"""Who has to go so that a more important pod can run?

For each node where removing pods could help: take away every pod of lower priority, see whether the pod fits, then
give back as many as possible, the most important first, those that a disruption budget protects before the others.
Of the nodes that work out the one that hurts least is taken. Pure: it proposes, bind.py carries out. Best effort like
kube-scheduler's: disruption budgets are respected where there is a choice, not guaranteed.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from controlplane.api.selectors import from_selector
from controlplane.scheduler.filters import FILTERS, Context, Rejection
from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.snapshot import NodeInfo
from controlplane.scheduler.topology import survey

_MOST_NODES = 100


class Proposal(NamedTuple):
    """Evict `victims` from `node`."""

    node: str
    victims: tuple[PodInfo, ...]
    violations: int
    """Victims beyond what their disruption budgets allow."""


def propose(
    pod: PodInfo, rejected: dict[str, Rejection], context: Context, budgets: Sequence[dict[str, Any]]
) -> tuple[Proposal | None, str]:
    """The proposal that hurts least, None if nothing helps; and a sentence for the event. `budgets`:
    PodDisruptionBudget objects."""
    total = len(context.snapshot.nodes)
    if not pod.preempts:
        return None, "preemption: not eligible due to preemptionPolicy=Never."
    hopeful = [name for name, rejection in rejected.items() if rejection.filter.helpable]
    proposals = []
    for name in hopeful:
        found = _on(pod, context.snapshot.nodes[name], context, budgets)
        if found:
            proposals.append(found)
            if len(proposals) >= _MOST_NODES:
                break
    if proposals:
        return min(proposals, key=_harm), ""
    parts = []
    if len(rejected) > len(hopeful):
        parts.append(f"{len(rejected) - len(hopeful)} Preemption is not helpful for scheduling")
    if hopeful:
        parts.append(f"{len(hopeful)} No preemption victims found for incoming pod")
    return None, f"preemption: 0/{total} nodes are available: {', '.join(parts)}."


def _harm(proposal: Proposal) -> tuple[Any, ...]:
    """kube-scheduler's order: fewest violations, lowest highest victim, smallest sum, fewest, youngest."""
    priorities = [v.priority for v in proposal.victims]
    top = max(priorities)
    earliest = min(_started(v) for v in proposal.victims if v.priority == top)
    return (proposal.violations, top, sum(p + 2**31 for p in priorities), len(priorities), _Latest(earliest))


class _Latest(str):
    """Text that sorts the other way round."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _started(pod: PodInfo) -> str:
    return str((pod.obj.get("status") or {}).get("startTime") or pod.obj["metadata"].get("creationTimestamp") or "~")


def _on(pod: PodInfo, node: NodeInfo, context: Context, budgets: Sequence[dict[str, Any]]) -> Proposal | None:
    lower = [p for p in node.pods.values() if p.priority < pod.priority]
    if not lower or not _fits(pod, node, lower, context):
        return None
    protected, free = _split(lower, budgets)
    victims: list[PodInfo] = list(lower)
    violations = 0
    for group, counts in ((protected, True), (free, False)):
        for candidate in sorted(group, key=lambda p: (-p.priority, _started(p))):
            without = [v for v in victims if v.key != candidate.key]
            if _fits(pod, node, without, context):
                victims = without
            elif counts:
                violations += 1
    return Proposal(node.name, tuple(victims), violations) if victims else None


def _fits(pod: PodInfo, node: NodeInfo, removed: Iterable[PodInfo], context: Context) -> bool:
    """Whether the pod fits when these are gone. Filters that count pods elsewhere see them gone as well."""
    removed = list(removed)
    ahead = context.snapshot.nominated.get(node.name) or {}
    added = [p for p in ahead.values() if p.priority >= pod.priority and p.key != pod.key]
    trial = node.with_changes(added=added, removed=removed)
    seen = context.survey
    if seen.hard or seen.avoids or seen.repelled or seen.seeks:
        for victim in removed:
            context.snapshot.remove_pod(victim.key)
        seen = survey(pod, context.snapshot)
        for victim in removed:
            context.snapshot.add_pod(victim, node.name)
    there = Context(context.snapshot, seen, context.volumes)
    return not any(f.applies(pod, there) and f.reasons(pod, trial, there) for f in FILTERS)


def _split(pods: list[PodInfo], budgets: Sequence[dict[str, Any]]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(pods whose eviction breaks a budget, the others), using each budget up in order of importance."""
    left = [
        (b["metadata"].get("namespace", ""), from_selector((b.get("spec") or {}).get("selector")),
         [int((b.get("status") or {}).get("disruptionsAllowed") or 0)])
        for b in budgets
    ]  # fmt: skip
    protected: list[PodInfo] = []
    free: list[PodInfo] = []
    for pod in sorted(pods, key=lambda p: (-p.priority, _started(p))):
        breaks = False
        for namespace, selector, allowed in left:
            if namespace == pod.namespace and pod.labels and selector.matches(pod.labels):
                allowed[0] -= 1
                breaks = breaks or allowed[0] < 0
        (protected if breaks else free).append(pod)
    return protected, free
