"""Whom to evict first, and what to tell about it. Pure.

First those who use more than they asked for, then those of lower priority, then those who are furthest above what they
asked for. A pod that the node cannot do without (static, or of a system-critical priority) is never chosen.
Order and words: kubelet's pkg/kubelet/eviction/helpers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.api import quantity
from controlplane.api.podresources import effective
from nodeagent.pods.eviction.thresholds import Observation, Threshold
from nodeagent.pods.memory import Verdict
from nodeagent.pods.model import CONFIG_SOURCE_ANNOTATION, Object

SYSTEM_CRITICAL_PRIORITY = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Holding:
    """What a pod holds: bytes of memory (working set) and of local disk, inodes, processes; memory and disk also by
    container."""

    memory: int = 0
    disk: int = 0
    inodes: int = 0
    pids: int = 0
    memory_of: Mapping[str, int] = field(default_factory=dict)
    disk_of: Mapping[str, int] = field(default_factory=dict)


_USED: dict[str, Callable[[Holding], int]] = {
    "memory": lambda h: h.memory,
    "ephemeral-storage": lambda h: h.disk,
    "inodes": lambda h: h.inodes,
    "pids": lambda h: h.pids,
}


def critical(pod: Object) -> bool:
    """Whether the node must keep this pod whatever happens."""
    if CONFIG_SOURCE_ANNOTATION in (pod["metadata"].get("annotations") or {}):
        return True
    return priority(pod) >= SYSTEM_CRITICAL_PRIORITY


def priority(pod: Object) -> int:
    return int(pod["spec"].get("priority") or 0)


def rank(pods: Iterable[tuple[Object, Holding]], resource: str) -> list[tuple[Object, Holding]]:
    """The pods that may be evicted for `resource`, the first to go first."""
    used = _USED[resource]

    def order(entry: tuple[Object, Holding]) -> tuple[bool, int, int]:
        pod, holding = entry
        above = used(holding) - requested(pod, resource)
        return (above <= 0, priority(pod), -above)

    candidates = [(pod, holding) for pod, holding in pods if not critical(pod)]
    if resource == "pids":  # nobody asks for process ids
        return sorted(candidates, key=lambda e: (priority(e[0]), -used(e[1])))
    return sorted(candidates, key=order)


def requested(pod: Object, resource: str) -> int:
    """What the pod asked for, in bytes; 0 for what cannot be asked for."""
    return effective(pod, "requests", resource) // 10**9 if resource in ("memory", "ephemeral-storage") else 0


def verdict(pod: Object, holding: Holding, threshold: Threshold, seen: Observation, grace_s: float) -> Verdict:
    """The decision to evict `pod`, in kubelet's words."""
    resource = threshold.resource
    message = f"The node was low on resource: {resource}. "
    message += f"Threshold quantity: {_text(threshold.amount(seen.capacity), resource)}, "
    message += f"available: {_text(seen.available, resource)}. "
    message += "".join(_guilty(pod, holding, resource))
    return Verdict("Failed", "Evicted", message, grace_s, disruption="TerminationByKubelet")


def _guilty(pod: Object, holding: Holding, resource: str) -> Iterable[str]:
    """The containers that use more than they asked for."""
    usage = {"memory": holding.memory_of, "ephemeral-storage": holding.disk_of}.get(resource, {})
    for container in pod["spec"]["containers"]:
        used = usage.get(container["name"], 0)
        asked = ((container.get("resources") or {}).get("requests") or {}).get(resource, "0")
        if used > quantity.of(asked).value():
            yield (
                f"Container {container['name']} was using {_text(used, resource)}, request is {asked}, "
                f"has larger consumption of {resource}. "
            )


def _text(number: int, resource: str) -> str:
    """Bytes as kubelet prints them: whole Ki."""
    return f"{number // 1024}Ki" if resource in ("memory", "ephemeral-storage") and number >= 1024 else str(number)
