"""What a controller asks of a pod, and which pod goes first when there are too many. Pure.

The predicates are Kubernetes' (pkg/controller/controller_utils.go, pkg/api/v1/pod): active, ready, available. The
ranking is that of `ActivePodsWithRanks`. Not here: creating or deleting (podcontrol.py).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from controlplane import clock
from controlplane.controllers import meta

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


def phase(pod: meta.Object) -> str:
    return meta.status(pod).get("phase") or ""


def is_terminal(pod: meta.Object) -> bool:
    """Succeeded or Failed: no container of it will ever run again."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: meta.Object) -> bool:
    """Neither finished nor being deleted: it counts as a replica."""
    return not is_terminal(pod) and not meta.is_deleting(pod)


def is_terminating(pod: meta.Object) -> bool:
    """Being deleted and not finished yet."""
    return not is_terminal(pod) and meta.is_deleting(pod)


def node_name(pod: meta.Object) -> str:
    return pod["spec"].get("nodeName") or ""


def is_ready(pod: meta.Object) -> bool:
    ready = meta.condition(meta.status(pod), "Ready")
    return ready is not None and ready.get("status") == "True"


def ready_since(pod: meta.Object) -> float:
    """When the Ready condition last changed, seconds since the epoch; 0 if unknown."""
    ready = meta.condition(meta.status(pod), "Ready") or {}
    text = ready.get("lastTransitionTime")
    return clock.parse_rfc3339(text) if text else 0.0


def is_available(pod: meta.Object, min_ready_seconds: int, now: float) -> bool:
    """Ready, and for at least `min_ready_seconds`."""
    return available_in(pod, min_ready_seconds, now) == 0


def available_in(pod: meta.Object, min_ready_seconds: int, now: float) -> float | None:
    """Seconds until `pod` is available if it stays ready: 0 if it is, None if it is not ready."""
    if not is_ready(pod):
        return None
    return max(ready_since(pod) + min_ready_seconds - now, 0.0) if min_ready_seconds else 0.0


def next_available(pods: Iterable[meta.Object], min_ready_seconds: int, now: float) -> float | None:
    """Seconds until the next ready pod becomes available, None if none is waiting to."""
    waits = [w for p in pods if (w := available_in(p, min_ready_seconds, now))]
    return min(waits) if waits else None


def restarts(pod: meta.Object) -> int:
    return max((c.get("restartCount", 0) for c in meta.status(pod).get("containerStatuses") or ()), default=0)


def ranked_for_deletion(
    candidates: Sequence[meta.Object], related: Iterable[meta.Object], now: float
) -> list[meta.Object]:
    """`candidates`, the one to delete first at the front. `related`: all pods of the same owner's owner (also those of
    a Deployment's other ReplicaSets); of two equals, that on the node with more related pods goes first, to spread what
    is left."""
    crowd = Counter(node_name(p) for p in related if is_active(p))

    def rank(pod: meta.Object) -> tuple[Any, ...]:
        ready = is_ready(pod)
        return (
            bool(node_name(pod)),
            _PHASE_ORDER.get(phase(pod), 3),
            ready,
            _deletion_cost(pod),
            -crowd[node_name(pod)],
            _age_bucket(ready_since(pod), now) if ready else 0,
            -restarts(pod),
            _age_bucket(meta.created(pod), now),
            meta.uid(pod),
        )

    return sorted(candidates, key=rank)


def _deletion_cost(pod: meta.Object) -> int:
    try:
        return int(meta.annotations(pod).get(DELETION_COST, "0"))
    except ValueError:
        return 0  # an unreadable cost is no cost (validated on write, where the feature is)


def _age_bucket(moment: float, now: float) -> int:
    """Logarithmic age (LogarithmicScaleDown): small differences in age do not decide. Unknown (0) counts as newest."""
    if not moment:
        return -1
    return int(math.log2(max(now - moment, 0) + 1))
