"""Counting a Job's pods, and saying so: indexes, tally, status. Pure; the second half of job.py, which decides.

A finished pod is counted in two steps that survive a crash between them: `status()` names it as uncounted while its
finalizer still holds it, `settled()` raises the counters when the finalizers are gone (pkg/controller/job).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.controllers import meta, pods

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
End = tuple[str, str, str]
"""(condition, reason, message) that ends a Job."""


def is_indexed(job: meta.Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def index_of(pod: meta.Object) -> int:
    """The pod's completion index, -1 if it has none."""
    text = meta.annotations(pod).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def finished(job: meta.Object) -> meta.Object | None:
    """The condition Complete or Failed, if the Job is over."""
    for kind in ("Complete", "Failed"):
        found = meta.condition(meta.status(job), kind)
        if found is not None and found["status"] == "True":
            return found
    return None


def read_indexes(text: str) -> set[int]:
    """`completedIndexes` such as `0-2,5`."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def write_indexes(indexes: set[int]) -> str:
    """The inverse of `read_indexes`: runs of two or more as ranges."""
    runs: list[list[int]] = []
    for n in sorted(indexes):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


@dataclass(slots=True)
class Tally:
    """What the pods and the recorded status say together."""

    succeeded: int = 0
    failed: int = 0
    completed: set[int] = field(default_factory=set)
    """Completion indexes that succeeded (Indexed only)."""
    uncounted: list[meta.Object] = field(default_factory=list)
    """Finished pods that are not in the recorded counters yet."""
    active: list[meta.Object] = field(default_factory=list)
    last_failure: float = 0.0


def tally(job: meta.Object, owned: Sequence[meta.Object]) -> Tally:
    """Count. A pod that is being deleted before it finished has failed, once it is done or was never started."""
    before = meta.status(job)
    recorded = before.get("uncountedTerminatedPods") or {}
    known = {"succeeded": set(recorded.get("succeeded") or ()), "failed": set(recorded.get("failed") or ())}
    result = Tally(
        (before.get("succeeded") or 0) + len(known["succeeded"]), (before.get("failed") or 0) + len(known["failed"])
    )
    result.completed = read_indexes(before.get("completedIndexes") or "")
    for pod in owned:
        if pods.is_active(pod):
            result.active.append(pod)
            continue
        if TRACKING not in meta.finalizers(pod):
            continue  # counted
        success = pods.phase(pod) == "Succeeded"
        if not success and pods.phase(pod) != "Failed" and pods.phase(pod) in ("Running", "Unknown"):
            continue  # terminating, still running: not over yet
        result.uncounted.append(pod)
        if meta.uid(pod) in known["succeeded" if success else "failed"]:
            continue
        if success and is_indexed(job):
            if index_of(pod) in result.completed:
                continue
            result.completed.add(index_of(pod))
        result.succeeded += success
        result.failed += not success
        if not success:
            result.last_failure = max(result.last_failure, _finished_at(pod))
    return result


def _finished_at(pod: meta.Object) -> float:
    times = [
        terminated["finishedAt"]
        for c in meta.status(pod).get("containerStatuses") or ()
        if (terminated := (c.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    return max(map(clock.parse_rfc3339, times), default=clock.wall_time())


def status(job: meta.Object, count: Tally, over: End | None, ended: int, now: float) -> meta.Object:
    """The status with newly finished pods still uncounted (see the module): counters rise in `settled()`. `over`: what
    ends the Job, if it ends; `ended`: how many of the active pods this pass deletes."""
    before = meta.status(job)
    stamp = clock.rfc3339(now)
    result = {k: v for k, v in before.items() if k in ("succeeded", "failed", "startTime", "completionTime")}
    suspended = bool(job["spec"].get("suspend"))
    if not suspended:
        result.setdefault("startTime", stamp)
    else:
        result.pop("startTime", None)
    active = 0 if over else len(count.active) - ended
    numbers = {"active": active, "ready": sum(pods.is_ready(p) for p in count.active)}
    result |= {"active": numbers["active"]} if numbers["active"] else {}
    result["ready"] = numbers["ready"] if active else 0
    result["terminating"] = 0
    if is_indexed(job) and count.completed:
        result["completedIndexes"] = write_indexes(count.completed)
    recorded = before.get("uncountedTerminatedPods") or {}
    waiting = {
        "succeeded": sorted({*(recorded.get("succeeded") or ()), *_uids(count, "Succeeded")}),
        "failed": sorted({*(recorded.get("failed") or ()), *(_uids(count, "") - _uids(count, "Succeeded"))}),
    }
    result["uncountedTerminatedPods"] = {k: v for k, v in waiting.items() if v}
    conditions = list(before.get("conditions") or ())
    current = meta.condition(before, "Suspended")
    if suspended and (current is None or current["status"] != "True"):
        conditions = _stated(conditions, "Suspended", "True", "JobSuspended", "Job suspended", stamp)
    elif not suspended and current is not None and current["status"] == "True":
        conditions = _stated(conditions, "Suspended", "False", "JobResumed", "Job resumed", stamp)
    if over is not None:
        kind, reason, message = over
        first = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
        conditions = _stated(conditions, first, "True", reason, message, stamp)
    return {**result, "conditions": conditions} if conditions else result


def _uids(count: Tally, phase: str) -> set[str]:
    return {meta.uid(p) for p in count.uncounted if not phase or pods.phase(p) == phase}


def _stated(
    conditions: list[meta.Object], kind: str, value: str, reason: str, message: str, stamp: str
) -> list[meta.Object]:
    fresh = {
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastProbeTime": stamp, "lastTransitionTime": stamp,
    }  # fmt: skip
    return [*(c for c in conditions if c["type"] != kind), fresh]


def settled(job: meta.Object, count: Tally, over: End | None, now: float) -> meta.Object:
    """The status once the finalizers of all uncounted pods are gone: counters raised, and the end stated."""
    stamp = clock.rfc3339(now)
    result = {**meta.status(job), "uncountedTerminatedPods": {}}
    numbers = {"succeeded": count.succeeded, "failed": count.failed}
    result |= {k: v for k, v in numbers.items() if v}
    if over is not None:
        kind, reason, message = over
        result.pop("active", None)
        result["conditions"] = _stated(result.get("conditions") or [], kind, "True", reason, message, stamp)
        if kind == "Complete":
            result["completionTime"] = stamp
    return result
