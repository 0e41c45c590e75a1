"""plan.py: each situation of a pod's life and the actions that follow from it."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.pods.memory import SANDBOX, Condemned, Failure, Health, Memory, Verdict
from nodeagent.pods.model import ANNOTATION_HASH, Actual, Desired
from nodeagent.pods.plan import Plan, Stage, make_plan
from nodeagent.runtime.interface import ContainerState, ContainerStatus, PodIdentity, SandboxState, SandboxStatus

NOW = 1_000_000.0


def desired(
    *main: str, init: list[dict[str, Any]] | None = None, meta: dict[str, Any] | None = None, **spec: Any
) -> Desired:
    containers = [{"name": n, "image": "busybox"} for n in main or ("app",)]
    return Desired.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1", **(meta or {})},
            "spec": {"containers": containers, "initContainers": init or [], **spec},
        }
    )


def sandbox(attempt: int = 0, ready: bool = True) -> SandboxStatus:
    state = SandboxState.READY if ready else SandboxState.NOTREADY
    return SandboxStatus(f"s{attempt}", PodIdentity("ns", "p", "u1", attempt), state, NOW - 100 + attempt)


def container(name: str, state: str = "running", attempt: int = 0, box: str = "s0", **more: Any) -> ContainerStatus:
    states = {"running": ContainerState.RUNNING, "exited": ContainerState.EXITED, "created": ContainerState.CREATED}
    if state == "exited":
        more.setdefault("finished_at", NOW - 1)
    return ContainerStatus(f"{name}-{attempt}", box, name, attempt, states[state], "img", NOW - 50 + attempt, **more)


def plan(
    want: Desired, *parts: SandboxStatus | ContainerStatus, memory: Memory | None = None, now: float = NOW
) -> Plan:
    boxes = [p for p in parts if isinstance(p, SandboxStatus)]
    containers = [p for p in parts if isinstance(p, ContainerStatus)]
    return make_plan(want, Actual.of(boxes, containers), memory or Memory(started_at=NOW), now)


def texts(result: Plan) -> list[str]:
    return [a.describe() for a in result.actions]


def test_a_new_pod_gets_a_sandbox_first_and_containers_one_by_one() -> None:
    want = desired("a", "b")
    assert texts(plan(want)) == ["create sandbox attempt=0"]
    assert texts(plan(want, sandbox())) == ["start container name=a attempt=0"]
    memory = Memory(busy={"start:a": 0.0})
    assert texts(plan(want, sandbox(), memory=memory)) == []
    assert texts(plan(want, sandbox(), container("a"))) == ["start container name=b attempt=0"]
    assert texts(plan(want, sandbox(), container("a"), container("b"))) == []


def test_one_container_that_cannot_start_does_not_hold_up_the_next() -> None:
    memory = Memory(failures={"a": Failure("ImagePullBackOff", "", NOW, NOW + 7)})
    result = plan(desired("a", "b"), sandbox(), memory=memory)
    assert texts(result) == ["start container name=b attempt=0"]
    assert result.wake_at == NOW + 7


def test_init_containers_run_in_order_and_a_sidecar_lets_the_next_go_when_it_has_started() -> None:
    init = [
        {"name": "one", "image": "i"},
        {"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {}}},
        {"name": "two", "image": "i"},
    ]
    want = desired(init=init)
    one = container("one", "exited")
    assert texts(plan(want, sandbox())) == ["start container name=one attempt=0"]
    assert texts(plan(want, sandbox(), container("one"))) == []
    assert texts(plan(want, sandbox(), one)) == ["start container name=side attempt=0"]
    assert texts(plan(want, sandbox(), one, container("side"))) == []  # its startup probe has not answered
    memory = Memory(health={"side-0": Health(started=True)})
    assert texts(plan(want, sandbox(), one, container("side"), memory=memory)) == ["start container name=two attempt=0"]
    done = [one, container("side"), container("two", "exited")]
    assert texts(plan(want, sandbox(), *done, memory=memory)) == ["start container name=app attempt=0"]
    # Once the pod is initialised, a lost record of an init container means nothing; a dead sidecar comes back.
    late = plan(want, sandbox(), container("side", "exited"), container("app"))
    assert texts(late) == ["start container name=side attempt=1"]


def test_a_failed_init_container_is_tried_again_or_fails_the_pod() -> None:
    init = [{"name": "one", "image": "i"}]
    failed = container("one", "exited", exit_code=1)
    assert texts(plan(desired(init=init), sandbox(), failed)) == ["start container name=one attempt=1"]
    assert texts(plan(desired(init=init, restartPolicy="Never"), sandbox(), failed)) == ["stop sandbox id=s0"]


@pytest.mark.parametrize(
    ("policy", "exit_code", "expected"),
    [
        ("Always", 0, ["start container name=app attempt=1"]),
        ("Always", 1, ["start container name=app attempt=1"]),
        ("OnFailure", 1, ["start container name=app attempt=1"]),
        ("OnFailure", 0, ["stop sandbox id=s0"]),
        ("Never", 1, ["stop sandbox id=s0"]),
    ],
)
def test_restart_policies(policy: str, exit_code: int, expected: list[str]) -> None:
    result = plan(desired(restartPolicy=policy), sandbox(), container("app", "exited", exit_code=exit_code))
    assert texts(result) == expected


def test_a_containers_own_restart_rules_come_before_the_pods_policy() -> None:
    want = Desired.of({
        "metadata": {"name": "p", "uid": "u1"},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "app", "image": "i", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
        }]},
    })  # fmt: skip
    assert texts(plan(want, sandbox(), container("app", "exited", exit_code=42))) == [
        "start container name=app attempt=1"
    ]
    assert texts(plan(want, sandbox(), container("app", "exited", exit_code=1))) == ["stop sandbox id=s0"]


def test_crashes_wait_ten_seconds_then_twice_as_long() -> None:
    memory = Memory()
    want, now = desired(), NOW
    for attempt, delay in enumerate([0, 10, 20, 40, 80, 160, 300, 300]):
        dead = container("app", "exited", attempt, exit_code=1, finished_at=now)
        if delay:
            waiting = plan(want, sandbox(), dead, memory=memory, now=now)
            assert waiting.actions == [] and waiting.waiting == {"app": delay} and waiting.wake_at == now + delay
        now += delay
        result = plan(want, sandbox(), dead, memory=memory, now=now)
        assert texts(result) == [f"start container name=app attempt={attempt + 1}"]
        memory.crashes.next("app", dead.finished_at, now)
        now += 1
    # Ten minutes without a crash, and the past is forgotten.
    dead = container("app", "exited", 9, exit_code=1, finished_at=now + 601)
    assert texts(plan(want, sandbox(), dead, memory=memory, now=now + 601)) == ["start container name=app attempt=10"]


def test_a_container_made_but_never_started_is_replaced_under_its_number() -> None:
    result = plan(desired(), sandbox(), container("app", "created"))
    (action,) = result.actions
    assert action.describe() == "start container name=app attempt=0"
    assert action.replaces == "app-0"  # type: ignore[attr-defined]


def test_a_dead_sandbox_is_replaced_after_its_containers_are_gone() -> None:
    want = desired()
    assert texts(plan(want, sandbox(ready=False), container("app"))) == ["stop sandbox id=s0"]
    dead = container("app", "exited", exit_code=137)
    assert texts(plan(want, sandbox(ready=False), dead)) == ["create sandbox attempt=1"]
    assert texts(plan(want, sandbox(ready=False), sandbox(1), dead)) == [
        "remove sandbox id=s0", "start container name=app attempt=1",
    ]  # fmt: skip
    memory = Memory(failures={SANDBOX: Failure("FailedCreatePodSandBox", "no address", NOW, NOW + 5)})
    assert plan(want, memory=memory).wake_at == NOW + 5


def test_init_containers_run_again_in_a_new_sandbox_without_back_off() -> None:
    want = desired(init=[{"name": "one", "image": "i"}])
    memory = Memory()
    memory.crashes.next("one", NOW - 1, NOW)
    result = plan(want, sandbox(0, ready=False), sandbox(1), container("one", "exited"), memory=memory)
    assert "start container name=one attempt=1" in texts(result)


def test_a_changed_image_restarts_the_container_and_a_failed_probe_kills_it() -> None:
    old = container("app", annotations={ANNOTATION_HASH: "00000000"})
    assert texts(plan(desired(terminationGracePeriodSeconds=7), sandbox(), old)) == [
        "stop container name=app id=app-0 grace=7s"
    ]
    memory = Memory(condemned={"app-0": Condemned("failed liveness probe", 3.0)})
    assert texts(plan(desired(), sandbox(), container("app"), memory=memory)) == [
        "stop container name=app id=app-0 grace=3s"
    ]


def test_old_instances_are_removed_but_for_the_last_two() -> None:
    instances = [container("app", "exited", n) for n in range(3)]
    result = plan(desired(), sandbox(), *instances, container("app", attempt=3))
    assert texts(result) == ["remove container name=app id=app-1", "remove container name=app id=app-0"]


DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}


def test_deletion_stops_main_containers_then_sidecars_backwards_then_removes_the_sandbox() -> None:
    sidecars = [{"name": n, "image": "i", "restartPolicy": "Always"} for n in ("x", "y")]
    want = desired("a", "b", init=sidecars, meta=DELETED)
    everything = [container(n) for n in ("x", "y", "a", "b")]
    assert texts(plan(want, sandbox(), *everything)) == [
        "stop container name=a id=a-0 grace=30s", "stop container name=b id=b-0 grace=30s",
    ]  # fmt: skip
    memory = Memory(ending_since=NOW - 29)
    left = [container("x"), container("y"), container("a", "exited"), container("b", "exited")]
    assert texts(plan(want, sandbox(), *left, memory=memory)) == ["stop container name=y id=y-0 grace=2s"]
    dead = [container(n, "exited") for n in ("x", "y", "a", "b")]
    assert texts(plan(want, sandbox(), *dead)) == ["remove sandbox id=s0"]
    assert plan(want).stage is Stage.ENDED


def test_a_shorter_grace_hurries_a_stop_in_flight_and_a_longer_one_does_not() -> None:
    memory = Memory(ending_since=NOW - 1, busy={"stop:app-0": NOW + 29})
    assert texts(plan(desired(meta=DELETED), sandbox(), container("app"), memory=memory)) == []
    hurried = desired(meta={**DELETED, "deletionGracePeriodSeconds": 0})
    assert texts(plan(hurried, sandbox(), container("app"), memory=memory)) == [
        "stop container name=app id=app-0 grace=0s"
    ]


def test_a_finished_pod_keeps_its_containers_until_it_is_deleted() -> None:
    want = desired(restartPolicy="Never")
    assert plan(want, sandbox(ready=False), container("app", "exited")).stage is Stage.ENDED
    gone = desired(restartPolicy="Never", meta=DELETED)
    assert texts(plan(gone, sandbox(ready=False), container("app", "exited"))) == ["remove sandbox id=s0"]


def test_deadline_and_verdict_end_the_pod() -> None:
    want = desired(activeDeadlineSeconds=60)
    assert plan(want, sandbox(), container("app")).wake_at == NOW + 60
    late = plan(want, sandbox(), container("app"), now=NOW + 60)
    assert texts(late) == ["give up phase=Failed reason=DeadlineExceeded"]
    memory = Memory(verdict=Verdict("Failed", "Evicted", "", grace_s=0))
    assert texts(plan(want, sandbox(), container("app"), memory=memory)) == [
        "stop container name=app id=app-0 grace=0s"
    ]


def test_a_pod_that_the_api_calls_finished_is_not_started() -> None:
    want = Desired.of({
        "metadata": {"name": "p", "uid": "u1"}, "spec": {"containers": [{"name": "app", "image": "i"}]},
        "status": {"phase": "Failed"},
    })  # fmt: skip
    assert plan(want).stage is Stage.ENDED and plan(want).actions == []
