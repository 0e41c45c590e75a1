"""Job: run pods until enough of them succeeded, or too many failed.

Pods carry a finalizer until they are counted, so that a pod that is deleted by hand, with its node or by the pod
garbage collector still counts: a finished pod's UID goes into `status.uncountedTerminatedPods`, then its finalizer
goes, then the counter is raised (pkg/controller/job). `plan()` decides what runs; `status()` and `settled()` count.
Indexed Jobs give each pod a completion index. Finished Jobs with `ttlSecondsAfterFinished` are deleted here too.
Not built: podFailurePolicy, successPolicy, backoffLimitPerIndex.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import JOBS, PODS
from controlplane.controllers import actions, meta, pods
from controlplane.controllers.controllerref import controller_of, new_ref
from controlplane.controllers.podcontrol import PodControl, pod_from_template
from controlplane.controllers.reconcile import Context, Controller

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
_NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")
_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 10.0, 600.0


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


@dataclass(slots=True)
class Plan:
    """What one pass does."""

    create: list[int] = field(default_factory=list)
    """A completion index for each pod to make; -1 each if the Job is not indexed."""
    delete: list[meta.Object] = field(default_factory=list)
    over: tuple[str, str, str] | None = None
    """(condition, reason, message) that ends the Job."""
    again: float | None = None


def plan(job: meta.Object, count: Tally, now: float) -> Plan:
    """The next step of an unfinished Job."""
    spec, result = job["spec"], Plan()
    parallelism = 1 if spec.get("parallelism") is None else spec["parallelism"]
    completions = spec.get("completions")
    started = meta.status(job).get("startTime")
    deadline = spec.get("activeDeadlineSeconds")
    if spec.get("suspend"):
        return Plan(delete=count.active)
    if deadline is not None and started is not None:
        left = clock.parse_rfc3339(started) + deadline - now
        if left <= 0:
            over = ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            return Plan(delete=count.active, over=over)
        result.again = left
    limit = 6 if spec.get("backoffLimit") is None else spec["backoffLimit"]
    restarts = sum(pods.restarts(p) for p in count.active) if _restarts_in_place(job) else 0
    if count.failed > limit or restarts > limit:
        over = ("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        return Plan(delete=count.active, over=over)
    if completions is None:
        # a work queue: when one pod succeeded, no more are made, and it is over when the rest ends
        if count.succeeded and not count.active:
            result.over = ("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        wanted = len(count.active) if count.succeeded else parallelism
    else:
        if count.succeeded >= completions:
            over = ("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            return Plan(delete=count.active, over=over)
        wanted = min(parallelism, completions - count.succeeded)
    missing = wanted - len(count.active)
    if missing < 0:
        youngest = sorted(count.active, key=lambda p: (pods.is_ready(p), -meta.created(p)))
        result.delete = youngest[:-missing]
    elif missing > 0:
        wait = _backoff(count, now)
        if wait > 0:
            result.again = wait if result.again is None else min(wait, result.again)
        elif is_indexed(job):
            taken = count.completed | {index_of(p) for p in count.active}
            result.create = [i for i in range(completions or 0) if i not in taken][:missing]
        else:
            result.create = [-1] * missing
    return result


def _restarts_in_place(job: meta.Object) -> bool:
    return bool(job["spec"]["template"]["spec"].get("restartPolicy") == "OnFailure")


def _backoff(count: Tally, now: float) -> float:
    """Seconds to wait before the next pod after a failure: 10 s, doubled each time, up to 10 minutes."""
    if not count.failed or not count.last_failure:
        return 0.0
    pause = min(_BACKOFF_SECONDS * 2.0 ** min(count.failed - 1, 10), _LONGEST_BACKOFF_SECONDS)
    return max(count.last_failure + pause - now, 0.0)


def manifest(job: meta.Object, index: int) -> meta.Object:
    """A pod of the Job."""
    made = pod_from_template(job["spec"]["template"], job, new_ref("batch/v1", "Job", job))
    labels = {
        **meta.labels(made),
        **dict.fromkeys(_LABELS, meta.uid(job)),
        **dict.fromkeys(_NAME_LABELS, meta.name(job)),
    }
    notes, spec = dict(meta.annotations(made)), made["spec"]
    if index >= 0:
        labels[INDEX] = notes[INDEX] = str(index)
        made["metadata"]["generateName"] = f"{meta.name(job)}-{index}-"
        spec = {**spec, "hostname": f"{meta.name(job)}-{index}"}
        field_ref = {
            "name": "JOB_COMPLETION_INDEX",
            "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}},
        }
        for kind in ("initContainers", "containers"):
            if spec.get(kind):
                spec = {**spec, kind: [{**c, "env": [*(c.get("env") or []), field_ref]} for c in spec[kind]]}
    finalizers = [*meta.finalizers(made), TRACKING]
    return {**meta.with_metadata(made, labels=labels, annotations=notes or None, finalizers=finalizers), "spec": spec}


def status(job: meta.Object, count: Tally, decision: Plan, now: float) -> meta.Object:
    """The status with newly finished pods still uncounted (see the module): counters rise in `settled()`."""
    before = meta.status(job)
    stamp = clock.rfc3339(now)
    result = {k: v for k, v in before.items() if k in ("succeeded", "failed", "startTime", "completionTime")}
    suspended = bool(job["spec"].get("suspend"))
    if not suspended:
        result.setdefault("startTime", stamp)
    else:
        result.pop("startTime", None)
    active = 0 if decision.over else len(count.active) - len(decision.delete)
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
    if decision.over is not None:
        kind, reason, message = decision.over
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


def settled(job: meta.Object, count: Tally, over: tuple[str, str, str] | None, now: float) -> meta.Object:
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


class JobController(Controller):
    """See the module."""

    name = "job-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.jobs = self.watch(JOBS)
        self.control = PodControl(self.writer, self.event)
        self.pods.add_handler(
            added=self._pod_changed, updated=lambda old, new: self._pod_changed(new), deleted=self._pod_changed
        )

    def _pod_changed(self, pod: meta.Object) -> None:
        ref = controller_of(pod)
        if ref is not None and ref["kind"] == "Job":
            self.queue.add(f"{meta.namespace(pod)}/{ref['name']}")

    async def reconcile(self, key: str) -> float | None:
        job = self.jobs.get(key)
        if job is None:
            return None
        owned = self.pods.by_index("owner", meta.uid(job))
        if meta.is_deleting(job) or finished(job) is not None:
            await self._release(owned)  # nothing will be counted any more
            return await self._expire(job) if not meta.is_deleting(job) else None
        count, now = tally(job, owned), clock.wall_time()
        decision = plan(job, count, now)
        error = None
        if decision.delete:
            await self._release(decision.delete)  # what we end ourselves counts neither way
            error = await self.control.delete(job, decision.delete)
        if decision.create:
            error = await self.control.create(job, [manifest(job, i) for i in decision.create]) or error
            owned = self.pods.by_index("owner", meta.uid(job))
            count.active = [p for p in owned if pods.is_active(p)]
        fresh = status(job, count, decision, now)
        if fresh != meta.status(job):
            job = await self.writer.update(JOBS, {**job, "status": fresh}, "status")
        if count.uncounted or decision.over:
            await self._release(count.uncounted)
            ended = decision.over if not decision.delete else None  # the end is stated when all pods have stopped
            fresh = settled(job, count, ended, now)
            if fresh != meta.status(job):
                await self.writer.update(JOBS, {**job, "status": fresh}, "status")
            if ended is not None:
                self._tell_end(job, *ended)
        if error is not None:
            raise error
        return 0.0 if decision.over is not None and decision.delete else decision.again

    def _tell_end(self, job: meta.Object, kind: str, reason: str, message: str) -> None:
        if kind == "Complete":
            self.event(job, "Completed", "Job completed")
        else:
            self.event(job, reason, message, warning=True)

    async def _release(self, counted: Sequence[meta.Object]) -> None:
        """Take our finalizer off these pods."""
        wanted = []
        for pod in counted:
            if TRACKING in meta.finalizers(pod):
                left = [f for f in meta.finalizers(pod) if f != TRACKING]
                guard = {"uid": meta.uid(pod), "resourceVersion": pod["metadata"]["resourceVersion"]}
                wanted.append(actions.Patch(PODS, pod, {"metadata": {**guard, "finalizers": left or None}}))
        error = await actions.all_at_once(self.writer, wanted, lambda a, o: None, lambda a, e: None)
        if error is not None and not (isinstance(error, StatusError) and error.code == 404):
            raise error

    async def _expire(self, job: meta.Object) -> float | None:
        ttl, end = job["spec"].get("ttlSecondsAfterFinished"), finished(job)
        if ttl is None or end is None:
            return None
        left: float = clock.parse_rfc3339(end["lastTransitionTime"]) + ttl - clock.wall_time()
        if left > 0:
            return left
        await self.writer.delete(
            JOBS, job, propagation_policy="Foreground", resource_version=job["metadata"]["resourceVersion"]
        )
        return None
