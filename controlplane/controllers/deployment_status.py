"""The status of a Deployment: its counters and the conditions Available, Progressing and ReplicaFailure. Pure.

Reasons and messages are Kubernetes' own (pkg/controller/deployment/{progress,sync}.go), because `kubectl rollout
status` and people read them. `progressDeadlineSeconds` is measured from the last progress, which the condition's
lastUpdateTime records.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane import clock
from controlplane.controllers import meta
from controlplane.controllers.deployment_rolling import max_unavailable

_NO_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Note:
    """A condition that this pass of the controller wants to state, e.g. that it made a new ReplicaSet."""

    status: str
    reason: str
    message: str


def has_deadline(deployment: meta.Object) -> bool:
    return deployment["spec"].get("progressDeadlineSeconds") not in (None, _NO_DEADLINE)


def set_condition(conditions: list[meta.Object], kind: str, note: Note, now: float) -> list[meta.Object]:
    """`conditions` with that of type `kind` stating `note`; unchanged if status and reason are the same."""
    current = next((c for c in conditions if c["type"] == kind), None)
    if current is not None and current["status"] == note.status and current.get("reason") == note.reason:
        return conditions
    stamp = clock.rfc3339(now)
    changed = current["lastTransitionTime"] if current is not None and current["status"] == note.status else stamp
    fresh = {
        "type": kind,
        "status": note.status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": changed,
        "reason": note.reason,
        "message": note.message,
    }
    return [*(c for c in conditions if c["type"] != kind), fresh]


def _without(conditions: list[meta.Object], kind: str) -> list[meta.Object]:
    return [c for c in conditions if c["type"] != kind]


def _count(sets: Sequence[meta.Object], field: str) -> int:
    return sum(meta.status(rs).get(field) or 0 for rs in sets)


def counters(deployment: meta.Object, new: meta.Object | None, sets: Sequence[meta.Object], now: float) -> meta.Object:
    """A status with all counters and the Available condition; the other conditions as they were. Zeroes are left out,
    as in Kubernetes' JSON."""
    before = meta.status(deployment)
    ready = _count(sets, "availableReplicas")
    numbers = {
        "replicas": _count(sets, "replicas"),
        "updatedReplicas": _count([new], "replicas") if new else 0,
        "readyReplicas": _count(sets, "readyReplicas"),
        "availableReplicas": ready,
        "terminatingReplicas": _count(sets, "terminatingReplicas"),
        "unavailableReplicas": max(sum(meta.spec_replicas(rs) for rs in sets) - ready, 0),
    }
    status: meta.Object = {"observedGeneration": meta.generation(deployment)}
    status |= {k: v for k, v in numbers.items() if v}
    status |= {k: before[k] for k in ("collisionCount",) if before.get(k) is not None}
    if ready >= meta.spec_replicas(deployment) - max_unavailable(deployment):
        note = Note("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        note = Note("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    status["conditions"] = set_condition(before.get("conditions") or [], "Available", note, now)
    return status


def is_complete(deployment: meta.Object, status: meta.Object) -> bool:
    """All replicas are new, available, and there are no others."""
    replicas = meta.spec_replicas(deployment)
    return (
        (status.get("updatedReplicas") or 0) == replicas
        and (status.get("replicas") or 0) == replicas
        and (status.get("availableReplicas") or 0) == replicas
        and (status.get("observedGeneration") or 0) >= meta.generation(deployment)
    )


def _advanced(before: meta.Object, after: meta.Object) -> bool:
    """Whether the counters moved towards completion."""

    def get(status: meta.Object, field: str) -> int:
        return status.get(field) or 0

    return (
        get(after, "updatedReplicas") > get(before, "updatedReplicas")
        or get(after, "replicas") - get(after, "updatedReplicas")
        < get(before, "replicas") - get(before, "updatedReplicas")
        or get(after, "readyReplicas") > get(before, "readyReplicas")
        or get(after, "availableReplicas") > get(before, "availableReplicas")
    )


def rollout_status(
    deployment: meta.Object, new: meta.Object | None, sets: Sequence[meta.Object], note: Note | None, now: float
) -> meta.Object:
    """The status in the course of a roll-out. `note`: what this pass did that counts as progress (or failure)."""
    status = counters(deployment, new, sets, now)
    conditions: list[meta.Object] = status["conditions"]
    if not has_deadline(deployment):
        conditions = _without(conditions, "Progressing")
    else:
        if note is not None:
            conditions = set_condition(conditions, "Progressing", note, now)
        current = next((c for c in conditions if c["type"] == "Progressing"), None)
        what = f'ReplicaSet "{meta.name(new)}"' if new else f'Deployment "{meta.name(deployment)}"'
        done = (
            current is not None
            and current.get("reason") == "NewReplicaSetAvailable"
            and (status.get("replicas") or 0) == (status.get("updatedReplicas") or 0)
        )
        if done:
            pass  # it was complete and is being scaled at most: not a roll-out, the deadline does not apply
        elif is_complete(deployment, status):
            note = Note("True", "NewReplicaSetAvailable", f"{what} has successfully progressed.")
            conditions = set_condition(conditions, "Progressing", note, now)
        elif _advanced(meta.status(deployment), status):
            note = Note("True", "ReplicaSetUpdated", f"{what} is progressing.")
            # written even when the reason stays: lastUpdateTime is what the deadline counts from
            fresh = set_condition(_without(conditions, "Progressing"), "Progressing", note, now)
            if current is not None and current["status"] == "True":
                fresh[-1] = {**fresh[-1], "lastTransitionTime": current["lastTransitionTime"]}
            conditions = fresh
        elif overdue_in(deployment, conditions, now) == 0:
            note = Note("False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.")
            conditions = set_condition(conditions, "Progressing", note, now)
    failure = _replica_failure(new, sets)
    if failure:
        note = Note(failure["status"], failure.get("reason", ""), failure.get("message", ""))
        conditions = set_condition(conditions, "ReplicaFailure", note, now)
    else:
        conditions = _without(conditions, "ReplicaFailure")
    return {**status, "conditions": conditions}


def overdue_in(deployment: meta.Object, conditions: list[meta.Object], now: float) -> float | None:
    """Seconds until the roll-out counts as stuck; 0 if it is; None if nothing is awaited."""
    current = next((c for c in conditions if c["type"] == "Progressing"), None)
    if current is None or not has_deadline(deployment) or current.get("reason") == "NewReplicaSetAvailable":
        return None
    if current.get("reason") == "ProgressDeadlineExceeded":
        return 0
    since = clock.parse_rfc3339(current.get("lastUpdateTime") or current["lastTransitionTime"])
    deadline = float(deployment["spec"]["progressDeadlineSeconds"])
    return max(since + deadline - now, 0)


def _replica_failure(new: meta.Object | None, sets: Sequence[meta.Object]) -> meta.Object | None:
    """The ReplicaFailure condition of the new ReplicaSet, else of any."""
    for rs in [*([new] if new else []), *sets]:
        found = meta.condition(meta.status(rs), "ReplicaFailure")
        if found is not None and found["status"] == "True":
            return found
    return None


def pause_note(deployment: meta.Object) -> Note | None:
    """What to state about Progressing when a Deployment was paused or resumed since; a timeout stays."""
    if not has_deadline(deployment):
        return None
    current = meta.condition(meta.status(deployment), "Progressing") or {}
    noted = current.get("reason") == "DeploymentPaused"
    paused = bool(deployment["spec"].get("paused"))
    if current.get("reason") == "ProgressDeadlineExceeded" or noted == paused:
        return None
    if paused:
        return Note("Unknown", "DeploymentPaused", "Deployment is paused")
    return Note("Unknown", "DeploymentResumed", "Deployment is resumed")
