"""Conditions and the progress deadline."""

from typing import Any

from controlplane import clock
from controlplane.controllers import deployment_status as status

NOW = clock.parse_rfc3339("2026-01-01T01:00:00Z")


def condition(obj: Any, kind: str) -> Any:
    return next((c for c in obj["conditions"] if c["type"] == kind), None)


def with_progress(deployment: Any, reason: str, at: str, **fields: Any) -> Any:
    stated = {"type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": at, "lastTransitionTime": at}
    return {**deployment, "status": {"conditions": [stated], **fields}}


def test_a_stuck_rollout_exceeds_its_deadline(deployment: Any) -> None:
    stuck = with_progress(deployment(replicas=3), "ReplicaSetUpdated", "2026-01-01T00:49:00Z")
    told = condition(status.rollout_status(stuck, None, [], None, NOW), "Progressing")
    assert (told["status"], told["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert told["message"] == 'Deployment "web" has timed out progressing.'


def test_within_the_deadline_it_is_looked_at_again(deployment: Any) -> None:
    slow = with_progress(deployment(replicas=3), "ReplicaSetUpdated", "2026-01-01T00:59:00Z")
    after = status.rollout_status(slow, None, [], None, NOW)
    assert condition(after, "Progressing")["reason"] == "ReplicaSetUpdated"
    assert status.overdue_in(slow, after["conditions"], NOW) == 540


def test_progress_restarts_the_clock_but_not_the_transition(deployment: Any) -> None:
    moving = with_progress(deployment(replicas=3), "ReplicaSetUpdated", "2026-01-01T00:55:00Z", replicas=1)
    rs = {"metadata": {"name": "web-1"}, "spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1}}
    told = condition(status.rollout_status(moving, rs, [rs], None, NOW), "Progressing")
    assert told["lastUpdateTime"] == "2026-01-01T01:00:00Z"
    assert told["lastTransitionTime"] == "2026-01-01T00:55:00Z"


def test_a_complete_rollout_has_no_deadline(deployment: Any) -> None:
    done = with_progress(deployment(replicas=3), "NewReplicaSetAvailable", "2026-01-01T00:00:00Z")
    rs = {"metadata": {"name": "web-1"}, "spec": {"replicas": 3}, "status": {"replicas": 3}}
    told = status.rollout_status(done, rs, [rs], None, NOW)
    assert condition(told, "Progressing")["reason"] == "NewReplicaSetAvailable", "pods lost later are no roll-out"
    assert condition(told, "Available")["status"] == "False"


def test_without_a_deadline_nothing_is_said_of_progress(deployment: Any) -> None:
    free = with_progress(deployment(progressDeadlineSeconds=2**31 - 1), "ReplicaSetUpdated", "2026-01-01T00:00:00Z")
    assert condition(status.rollout_status(free, None, [], None, NOW), "Progressing") is None


def test_failures_of_replica_sets_are_passed_on(deployment: Any) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
    rs = {"metadata": {"name": "web-1"}, "spec": {"replicas": 3}, "status": {"replicas": 0, "conditions": [failure]}}
    told = status.rollout_status(deployment(), rs, [rs], None, NOW)
    assert condition(told, "ReplicaFailure")["message"] == "quota"
