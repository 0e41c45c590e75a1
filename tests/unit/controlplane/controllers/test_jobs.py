"""Jobs and CronJobs, and the schedules they run by."""

from typing import Any

import pytest

from controlplane import clock
from controlplane.client.resources import JOBS, PODS
from controlplane.controllers import cronjob
from controlplane.controllers import job_status as job
from controlplane.controllers.schedule import Schedule

Obj = dict[str, Any]


def make_job(name: str = "j", **spec: Any) -> Obj:
    template = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    fields = {"parallelism": 2, "completions": 3, "backoffLimit": 1, "template": template, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"}, "spec": fields}


def end(cluster: Any, pod: Obj, phase: str = "Succeeded", at: str = "2026-01-01T00:00:00Z") -> None:
    state = {"terminated": {"exitCode": 0, "finishedAt": at}}
    status = {"phase": phase, "containerStatuses": [{"name": "c", "state": state, "restartCount": 0}]}
    cluster.api.put({**pod, "spec": {**pod["spec"], "nodeName": "n1"}, "status": status})


def active(cluster: Any) -> list[Obj]:
    return [p for p in cluster.pods() if p["status"]["phase"] in ("Pending", "Running")]


def found(cluster: Any, name: str = "j") -> Obj:
    return cluster.api.get("jobs", name, "default", "batch")  # type: ignore[no-any-return]


async def test_a_job_completes_and_counts_each_pod_once(cluster: Any) -> None:
    await cluster.client.create(JOBS, make_job())
    for left in (2, 2, 1):
        await cluster.until(lambda left=left: len(active(cluster)) == left)
        end(cluster, active(cluster)[0])
        await cluster.settle()
    done = await cluster.until(lambda: job.finished(found(cluster)))
    assert done["type"] == "Complete"
    status = found(cluster)["status"]
    assert status["succeeded"] == 3
    assert status["completionTime"]
    assert not any(status["uncountedTerminatedPods"].values())
    assert not any(job.TRACKING in p["metadata"].get("finalizers", []) for p in cluster.api.all("pods"))


async def test_too_many_failures_end_it(cluster: Any) -> None:
    await cluster.client.create(JOBS, make_job(parallelism=1, completions=1))
    for _ in range(2):
        (pod,) = await cluster.until(lambda: active(cluster))
        end(cluster, pod, "Failed")
        await cluster.settle()
    told = await cluster.until(lambda: job.finished(found(cluster)))
    assert (told["type"], told["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert found(cluster)["status"]["failed"] == 2


async def test_a_pod_deleted_under_a_job_counts_as_failed(cluster: Any) -> None:
    await cluster.client.create(JOBS, make_job(parallelism=1, completions=1, backoffLimit=6))
    (pod,) = await cluster.until(lambda: active(cluster))
    await cluster.client.delete(PODS, pod["metadata"]["name"], "default")
    await cluster.until(lambda: found(cluster)["status"].get("failed") == 1)
    await cluster.until(lambda: cluster.api.get("pods", pod["metadata"]["name"], "default") is None)


async def test_indexed_jobs_run_each_index(cluster: Any) -> None:
    await cluster.client.create(JOBS, make_job(completionMode="Indexed", parallelism=3))
    await cluster.until(lambda: len(active(cluster)) == 3)
    assert {job.index_of(p) for p in active(cluster)} == {0, 1, 2}
    end(cluster, next(p for p in active(cluster) if job.index_of(p) == 1))
    await cluster.until(lambda: found(cluster)["status"].get("completedIndexes") == "1")
    for pod in active(cluster):
        end(cluster, pod)
    await cluster.until(lambda: job.finished(found(cluster)))
    assert found(cluster)["status"]["completedIndexes"] == "0-2"


async def test_suspending_ends_pods_without_counting_them(cluster: Any) -> None:
    await cluster.client.create(JOBS, make_job())
    await cluster.until(lambda: len(active(cluster)) == 2)
    await cluster.client.patch(JOBS, "j", {"spec": {"suspend": True}}, "default")
    await cluster.until(lambda: not active(cluster))
    await cluster.settle()
    assert not found(cluster)["status"].get("failed")
    await cluster.client.patch(JOBS, "j", {"spec": {"suspend": False}}, "default")
    await cluster.until(lambda: len(active(cluster)) == 2)


def test_indexes() -> None:
    assert job.write_indexes({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8"
    assert job.read_indexes("0-2,5,7-8") == {0, 1, 2, 5, 7, 8}
    assert job.read_indexes("") == set()


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("*/15 * * * *", "", "2026-01-01T00:01:00Z", "2026-01-01T00:15:00Z"),
        ("@daily", "", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("0 12 * * mon-fri", "", "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
        ("30 4 1,15 * 5", "", "2026-01-01T05:00:00Z", "2026-01-02T04:30:00Z"),  # the date or a Friday
        ("0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 0 * * 7", "", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("0 9 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T07:00:00Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),  # skipped by summer time
        ("0 0 30 2 *", "", "2026-01-01T00:00:00Z", None),
    ],
)
def test_schedules(text: str, zone: str, after: str, expected: str | None) -> None:
    found = Schedule(text, zone).after(clock.parse_rfc3339(after))
    assert (found and clock.rfc3339(found)) == expected


@pytest.mark.parametrize("text", ["* * * *", "61 * * * *", "* * * * foo", "*/0 * * * *", "5-1 * * * *"])
def test_bad_schedules(text: str) -> None:
    with pytest.raises(ValueError, match=r"schedule|fields"):
        Schedule(text)


def cron(namespaced: Any, **spec: Any) -> Obj:
    fields = {"schedule": "*/5 * * * *", "jobTemplate": {"spec": make_job()["spec"]}, **spec}
    return namespaced("CronJob", "c", "batch/v1", spec=fields)  # type: ignore[no-any-return]


def test_only_the_latest_missed_time_runs(namespaced: Any) -> None:
    now = clock.parse_rfc3339("2026-01-01T03:07:00Z")
    made = cron(namespaced)
    decision = cronjob.plan(made, [], Schedule("*/5 * * * *"), now)
    assert decision.run == clock.parse_rfc3339("2026-01-01T03:05:00Z")
    assert decision.again == 180
    late = cron(namespaced, startingDeadlineSeconds=60)
    assert cronjob.plan(late, [], Schedule("*/5 * * * *"), now).run is None
    years = clock.parse_rfc3339("2031-01-01T03:07:00Z")
    decision = cronjob.plan(made, [], Schedule("*/5 * * * *"), years)
    assert decision.run == clock.parse_rfc3339("2031-01-01T03:05:00Z")
    assert decision.note is not None


def test_concurrency_policies(namespaced: Any) -> None:
    now = clock.parse_rfc3339("2026-01-01T03:07:00Z")
    running = namespaced("Job", "c-1", "batch/v1", status={})
    forbid = cronjob.plan(cron(namespaced, concurrencyPolicy="Forbid"), [running], Schedule("*/5 * * * *"), now)
    assert forbid.run is None
    replace = cronjob.plan(cron(namespaced, concurrencyPolicy="Replace"), [running], Schedule("*/5 * * * *"), now)
    assert replace.run is not None
    assert replace.replace == [running]


async def test_a_cron_job_makes_its_job_once(cluster: Any, namespaced: Any) -> None:
    made = cron(namespaced, schedule="* * * * *")
    cluster.api.put({**made, "status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}})
    (one,) = await cluster.until(lambda: cluster.api.all("jobs", "default", "batch"))
    assert one["metadata"]["ownerReferences"][0]["name"] == "c"
    await cluster.settle()
    assert len(cluster.api.all("jobs", "default", "batch")) == 1
    assert (
        cluster.api.get("cronjobs", "c", "default", "batch")["status"]["active"][0]["name"] == one["metadata"]["name"]
    )
