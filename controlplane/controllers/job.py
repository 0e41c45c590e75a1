"""Job: run pods until enough of them succeeded, or too many failed.

Pods carry a finalizer until they are counted, so that a pod that is deleted by hand, with its node or by the pod
garbage collector still counts: a finished pod's UID goes into `status.uncountedTerminatedPods`, then its finalizer
goes, then the counter is raised (pkg/controller/job). `plan()` decides what runs; job_status.py counts.
Indexed Jobs give each pod a completion index. Finished Jobs with `ttlSecondsAfterFinished` are deleted here too.
Not built: podFailurePolicy, successPolicy, backoffLimitPerIndex.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api import jobs
from controlplane.api.status import StatusError
from controlplane.client.resources import JOBS, PODS
from controlplane.controllers import actions, meta, pods
from controlplane.controllers.controllerref import controller_of, new_ref
from controlplane.controllers.job_status import (
    INDEX,
    TRACKING,
    End,
    Tally,
    finished,
    index_of,
    is_indexed,
    settled,
    status,
    tally,
)
from controlplane.controllers.podcontrol import PodControl, pod_from_template
from controlplane.controllers.reconcile import Context, Controller

_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 10.0, 600.0


@dataclass(slots=True)
class Plan:
    """What one pass does."""

    create: list[int] = field(default_factory=list)
    """A completion index for each pod to make; -1 each if the Job is not indexed."""
    delete: list[meta.Object] = field(default_factory=list)
    over: End | None = None
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
    labels = {**meta.labels(made), **({} if jobs.is_manual(job) else jobs.expected_labels(job))}
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
        fresh = status(job, count, decision.over, len(decision.delete), now)
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
