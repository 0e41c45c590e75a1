"""CronJob: make a Job whenever the schedule says so.

`plan()` decides from the Jobs there are: which scheduled time is due (only the latest of several that were missed),
what the concurrency policy says, when to look again. A Job's name holds its scheduled minute, so the same time is never
run twice. Finished Jobs beyond the history limits are deleted. Rules: pkg/controller/cronjob.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import CRONJOBS, JOBS
from controlplane.controllers import meta
from controlplane.controllers.controllerref import controller_of, new_ref
from controlplane.controllers.job_status import finished
from controlplane.controllers.reconcile import Context, Controller
from controlplane.controllers.schedule import Schedule

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_TOO_MANY = 100


@dataclass(slots=True)
class Plan:
    """What one pass does."""

    run: float | None = None
    """The scheduled time for which a Job is to be made."""
    replace: list[meta.Object] = field(default_factory=list)
    """Running Jobs to delete first (policy Replace)."""
    remove: list[meta.Object] = field(default_factory=list)
    """Finished Jobs beyond the history limits."""
    again: float | None = None
    note: tuple[str, str] | None = None
    """An event (reason, message) that warns."""


def plan(cron: meta.Object, owned: Sequence[meta.Object], schedule: Schedule, now: float) -> Plan:
    """`owned`: the Jobs of this CronJob."""
    spec, result = cron["spec"], Plan()
    active = [j for j in owned if finished(j) is None]
    for kind, limit in (
        ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
        ("Failed", spec.get("failedJobsHistoryLimit", 1)),
    ):
        ended = [j for j in owned if (end := finished(j)) is not None and end["type"] == kind]
        ended.sort(key=lambda j: meta.status(j).get("startTime") or "")
        result.remove += ended[: max(len(ended) - limit, 0)]
    if spec.get("suspend") or meta.is_deleting(cron):
        return result
    last = meta.status(cron).get("lastScheduleTime")
    since = clock.parse_rfc3339(last) if last else meta.created(cron)
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - deadline)
    due, following = latest(schedule, since, now), schedule.after(now)
    result.again = following - now if following is not None else None
    if _missed(schedule, since, now) > _TOO_MANY:
        text = f"too many missed start times: > {_TOO_MANY}. Set or decrease .spec.startingDeadlineSeconds"
        result.note = ("TooManyMissedTimes", text + " or check clock skew")
    if due is None:
        return result
    policy = spec.get("concurrencyPolicy") or "Allow"
    if active and policy == "Forbid":
        result.note = (
            "JobAlreadyActive",
            "Not starting job because prior execution is running and concurrency policy is Forbid",
        )
        return result
    result.run = due
    result.replace = active if policy == "Replace" else []
    return result


def latest(schedule: Schedule, since: float, now: float) -> float | None:
    """The last scheduled time in (since, now]: looked for in ever longer windows, so that years of missed minutes cost
    no more than a few steps."""
    for window in (60, 3600, 86400, 40 * 86400, 6 * 366 * 86400):
        found, moment = None, schedule.after(max(since, now - window))
        while moment is not None and moment <= now:
            found, moment = moment, schedule.after(moment)
        if found is not None or now - window <= since:
            return found
    return None


def _missed(schedule: Schedule, since: float, now: float) -> int:
    """How many scheduled times lie in (since, now]; counts a little beyond what is too many."""
    count, moment = 0, schedule.after(since)
    while moment is not None and moment <= now and count <= _TOO_MANY:
        count, moment = count + 1, schedule.after(moment)
    return count


def manifest(cron: meta.Object, scheduled: float) -> meta.Object:
    """The Job for one scheduled time."""
    template = cron["spec"]["jobTemplate"]
    inside = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{meta.name(cron)}-{int(scheduled) // 60}",
            "namespace": meta.namespace(cron),
            "labels": dict(inside.get("labels") or {}),
            "annotations": {**(inside.get("annotations") or {}), SCHEDULED: clock.rfc3339(scheduled)},
            "ownerReferences": [new_ref("batch/v1", "CronJob", cron)],
        },
        "spec": template["spec"],
    }


class CronJobController(Controller):
    """See the module."""

    name = "cronjob-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs = self.view(JOBS)
        self.crons = self.watch(CRONJOBS)
        self.jobs.add_handler(
            added=self._job_changed, updated=lambda old, new: self._job_changed(new), deleted=self._job_changed
        )

    def _job_changed(self, job: meta.Object) -> None:
        ref = controller_of(job)
        if ref is not None and ref["kind"] == "CronJob":
            self.queue.add(f"{meta.namespace(job)}/{ref['name']}")

    async def reconcile(self, key: str) -> float | None:
        cron = self.crons.get(key)
        if cron is None:
            return None
        try:
            schedule = Schedule(cron["spec"]["schedule"], cron["spec"].get("timeZone") or "")
        except ValueError as error:
            self.event(cron, "UnparseableSchedule", f"unparseable schedule: {error}", warning=True)
            return None
        decision = plan(cron, self.jobs.by_index("owner", meta.uid(cron)), schedule, clock.wall_time())
        if decision.note is not None:
            self.event(cron, *decision.note, warning=True)
        for job in decision.remove:
            await self.writer.delete(JOBS, job, propagation_policy="Background")
            self.event(cron, "SuccessfulDelete", f"Deleted job {meta.name(job)}")
        for job in decision.replace:
            await self.writer.delete(JOBS, job, propagation_policy="Background")
        if decision.run is not None:
            await self._run(cron, decision.run)
        await self._write_status(key, decision.run)
        return decision.again

    async def _run(self, cron: meta.Object, scheduled: float) -> None:
        made = manifest(cron, scheduled)
        try:
            await self.writer.create(JOBS, made)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                self.event(cron, "FailedCreate", f"Error creating job: {error}", warning=True)
                raise
            return
        self.event(cron, "SuccessfulCreate", f"Created job {meta.name(made)}")

    async def _write_status(self, key: str, scheduled: float | None) -> None:
        cron = self.crons.get(key)
        if cron is None:
            return
        owned = self.jobs.by_index("owner", meta.uid(cron))
        fresh = {k: v for k, v in meta.status(cron).items() if k in ("lastScheduleTime", "lastSuccessfulTime")}
        if scheduled is not None:
            fresh["lastScheduleTime"] = clock.rfc3339(scheduled)
        ended = [t for j in owned if (t := meta.status(j).get("completionTime"))]
        if ended:
            fresh["lastSuccessfulTime"] = max([*ended, fresh.get("lastSuccessfulTime") or ""])
        active = [meta.reference("batch/v1", "Job", j) for j in owned if finished(j) is None]
        if active:
            fresh["active"] = sorted(active, key=lambda ref: str(ref["name"]))
        if fresh != meta.status(cron):
            await self.writer.update(CRONJOBS, {**cron, "status": fresh}, "status")
