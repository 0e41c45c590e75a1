"""A pod's life from the API server to the runtime and back, with the fakes of both."""

from __future__ import annotations

from controlplane.client.resources import PODS
from nodeagent.runtime.interface import ContainerState, RuntimeFailure


async def test_a_pod_runs_and_costs_one_request(world) -> None:
    world.pod()
    await world.until(lambda: world.status().get("phase") == "Running")
    status = world.status()
    assert status["podIP"] == "10.244.0.2" and status["hostIP"] == "10.77.0.11"
    assert status["qosClass"] == "BestEffort" and status["observedGeneration"] == 1
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "PodReadyToStartContainers": "True", "Initialized": "True", "ContainersReady": "True", "Ready": "True",
        "PodScheduled": "True",
    }  # fmt: skip
    container = world.container()
    assert container["ready"] and container["started"] and container["restartCount"] == 0
    assert container["containerID"].startswith("wherry://") and "running" in container["state"]
    assert [r for r in world.api.requests if r[0] == "PATCH"] == [
        ("PATCH", "/api/v1/namespaces/default/pods/web/status")
    ]


async def test_many_pods_at_once(world) -> None:
    for n in range(30):
        world.pod(f"p{n}")
    await world.until(lambda: all(world.status(f"p{n}").get("phase") == "Running" for n in range(30)))
    assert len([r for r in world.api.requests if r[0] == "PATCH"]) == 30


async def test_deletion_stops_removes_and_deletes_with_the_uid(world) -> None:
    world.pod()
    await world.until(lambda: world.status().get("phase") == "Running")
    container = world.find()
    await world.delete(grace=7)
    await world.until(lambda: world.api.get("pods", "web", "default") is None)
    assert container.stopped_with is not None and 5 < container.stopped_with <= 7
    assert not world.runtime.pods and not world.runtime.made and not world.runtime.network.attached
    assert not list((world.root / "node").glob("pods/*")) and not list((world.root / "logs").glob("*"))
    await world.until(lambda: world.manager.count == 0)


async def test_a_crashing_container_backs_off(world) -> None:
    world.pod(containers=[{"name": "app", "image": "busybox:1", "command": ["sh", "-c", "exit 3"]}])
    await world.until(
        lambda: "waiting" in world.container().get("state", {}) and world.container()["restartCount"] == 1
    )
    container = world.container()
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=app pod=web_")
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert container["lastState"]["terminated"]["reason"] == "Error"
    assert world.status()["phase"] == "Running" and world.condition("Ready")["reason"] == "ContainersNotReady"


async def test_a_killed_container_is_started_again_at_once(world) -> None:
    world.pod()
    await world.until(lambda: world.container().get("ready"))
    world.runtime.finish(world.find().status.id, signal=9, oom_killed=True)
    await world.until(lambda: world.container().get("restartCount") == 1 and world.container()["ready"])
    assert world.container()["lastState"]["terminated"]["reason"] == "OOMKilled"


async def test_a_job_pod_succeeds_or_fails_and_keeps_its_containers(world) -> None:
    run = [{"name": "app", "image": "busybox:1", "command": ["true"]}]
    world.pod("good", containers=run, restartPolicy="Never")
    world.pod("bad", containers=[{**run[0], "command": ["false"]}], restartPolicy="Never")
    await world.until(lambda: world.status("good").get("phase") == "Succeeded")
    await world.until(lambda: world.status("bad").get("phase") == "Failed")
    assert world.container(pod="good")["state"]["terminated"]["reason"] == "Completed"
    assert world.condition("Ready", "good")["reason"] == "PodCompleted"
    assert world.condition("Ready", "bad")["reason"] == "PodFailed"
    assert world.status("good")["podIP"]
    assert all(s.status.state == "SANDBOX_NOTREADY" for s in world.runtime.pods.values())
    assert len(world.runtime.made) == 2


async def test_init_containers_come_first(world) -> None:
    init = [{"name": "one", "image": "busybox:1"}, {"name": "two", "image": "busybox:1", "command": ["true"]}]
    world.pod(initContainers=init)
    await world.until(lambda: "running" in world.container("one").get("state", {}))
    assert world.container()["state"]["waiting"]["reason"] == "PodInitializing"
    assert world.condition("Initialized")["message"] == "containers with incomplete status: [one two]"
    world.runtime.finish(world.find("one").status.id)
    await world.until(lambda: world.status()["phase"] == "Running")
    assert world.condition("Initialized")["status"] == "True" and world.container("two")["ready"]


async def test_a_missing_image_backs_off_and_recovers(world) -> None:
    world.runtime.images.fail("busybox:2", "no such host")
    world.pod(containers=[{"name": "app", "image": "busybox:2"}])
    await world.until(lambda: world.container().get("state", {}).get("waiting", {}).get("reason") == "ErrImagePull")
    assert "no such host" in world.container()["state"]["waiting"]["message"]
    await world.until(lambda: world.container()["state"]["waiting"]["reason"] == "ImagePullBackOff")
    message = world.container()["state"]["waiting"]["message"]
    assert message.startswith('Back-off pulling image "busybox:2": ErrImagePull: ')
    assert world.runtime.images.pulls == ["busybox:2"]


async def test_what_cannot_start_says_why(world) -> None:
    world.pod("bad", containers=[{"name": "app", "image": "busybox:1", "command": ["missing"]}])
    world.pod("name", containers=[{"name": "app", "image": "UPPER:??"}])
    world.pod("never", containers=[{"name": "app", "image": "nobody/has:1", "imagePullPolicy": "Never"}])
    ref = {"configMapKeyRef": {"name": "absent", "key": "k"}}
    world.pod("env", containers=[{"name": "app", "image": "busybox:1", "env": [{"name": "A", "valueFrom": ref}]}])

    def reason(pod: str) -> str:
        return world.container(pod=pod).get("state", {}).get("waiting", {}).get("reason", "")

    await world.until(lambda: reason("name") == "InvalidImageName" and reason("never") == "ErrImageNeverPull")
    await world.until(lambda: reason("env") == "CreateContainerConfigError")
    assert world.container(pod="env")["state"]["waiting"]["message"] == 'configmap "absent" not found'
    await world.until(lambda: reason("bad") in ("RunContainerError", "CrashLoopBackOff"))
    assert world.container(pod="bad")["lastState"]["terminated"]["reason"] == "ContainerCannotRun"


async def test_a_sandbox_that_cannot_be_made_is_tried_again(world) -> None:
    world.runtime.fail_next("run_sandbox", RuntimeFailure("no address left"))
    world.pod()
    await world.until(lambda: world.status().get("phase") == "Running")
    assert ("web", "FailedCreatePodSandBox", "Failed to create pod sandbox: no address left") in world.events


async def test_a_dead_sandbox_is_replaced_and_its_containers_with_it(world) -> None:
    world.pod()
    await world.until(lambda: world.container().get("ready"))
    (sandbox_id,) = world.runtime.pods
    world.runtime.kill_sandbox(sandbox_id)
    await world.until(lambda: sandbox_id not in world.runtime.pods and world.container().get("ready"))
    assert world.container()["restartCount"] == 1
    assert world.container()["lastState"]["terminated"]["exitCode"] == 137


async def test_an_agents_restart_touches_nothing(world) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    world.pod(containers=[{"name": "app", "image": "busybox:1", "readinessProbe": probe}])
    await world.until(lambda: world.container().get("ready"))
    before, changes = world.status(), len(world.runtime.calls)
    await world.kill()
    await world.start()
    world.pod("other")
    await world.until(lambda: world.status("other").get("phase") == "Running")
    assert world.status() == before
    assert [name for name, _ in world.runtime.calls[changes:] if name not in ("exec", "set_group")] == [
        "run_sandbox", "create_container", "start_container",
    ]  # fmt: skip
    world.runtime.finish(world.find().status.id, 1)
    await world.until(lambda: world.container().get("restartCount") == 1)


async def test_a_crashing_container_keeps_its_back_off_over_a_restart_of_the_agent(world) -> None:
    world.pod(containers=[{"name": "app", "image": "busybox:1", "command": ["sh", "-c", "exit 3"]}])
    await world.until(lambda: world.container().get("restartCount") == 1 and "waiting" in world.container()["state"])
    await world.kill()
    made = len(world.runtime.made)
    await world.start()
    world.pod("other")
    await world.until(lambda: world.container(pod="other").get("ready"))
    assert len(world.runtime.made) == made + 1
    assert world.container()["state"]["waiting"]["message"].startswith("back-off 10s")


async def test_what_happened_while_the_agent_was_away_is_caught_up(world) -> None:
    world.pod("gone")
    world.pod("died")
    world.pod("deleted")
    await world.until(lambda: all(world.container(pod=p).get("ready") for p in ("gone", "died", "deleted")))
    await world.kill()
    await world.delete("gone", grace=0)
    await world.delete("deleted", grace=1)
    world.runtime.finish(world.find(pod="died").status.id, 1)
    await world.start()
    await world.until(lambda: world.container(pod="died").get("restartCount") == 1)
    await world.until(lambda: world.api.get("pods", "deleted", "default") is None)
    await world.until(lambda: {s.config.identity.uid for s in world.runtime.pods.values()} == {world.uid("died")})


async def test_a_pod_removed_by_force_is_stopped(world) -> None:
    world.pod(terminationGracePeriodSeconds=3)
    await world.until(lambda: world.container().get("ready"))
    await world.delete(grace=0)
    await world.until(lambda: not world.runtime.pods and world.manager.count == 0)


async def test_a_second_deletion_may_hurry_the_first(world) -> None:
    slow = {"preStop": {"sleep": {"seconds": 600}}}
    world.pod(containers=[{"name": "app", "image": "busybox:1", "lifecycle": slow}])
    await world.until(lambda: world.container().get("ready"))
    await world.delete(grace=600)
    await world.until(lambda: ("web", "Killing", "Stopping container app") in world.events)
    assert world.find().status.state is ContainerState.RUNNING
    await world.delete(grace=1)
    await world.until(lambda: world.api.get("pods", "web", "default") is None)


async def test_statuses_wait_for_an_api_server_that_is_away(world) -> None:
    world.pod()
    await world.until(lambda: world.container().get("ready"))
    world.api.offline = True
    world.runtime.finish(world.find().status.id, 1)
    await world.until(lambda: world.find().config.attempt == 1)
    world.api.offline = False
    await world.until(lambda: world.container().get("restartCount") == 1 and world.container()["ready"])


async def test_what_others_write_into_the_status_is_put_right(world) -> None:
    world.pod()
    await world.until(lambda: world.condition("Ready").get("status") == "True")
    pod = world.api.get("pods", "web", "default")
    others = [{**c, "status": "False"} if c["type"] == "Ready" else c for c in pod["status"]["conditions"]]
    world.api.put({**pod, "status": {**pod["status"], "conditions": [*others, {"type": "Gate", "status": "True"}]}})
    assert world.condition("Ready")["status"] == "False"
    await world.until(lambda: world.condition("Ready")["status"] == "True")
    assert world.condition("Gate")["status"] == "True"


async def test_readiness_gates(world) -> None:
    world.pod(readinessGates=[{"conditionType": "example.com/up"}])
    await world.until(lambda: world.status().get("phase") == "Running")
    assert world.condition("Ready")["reason"] == "ReadinessGatesNotReady"
    assert world.condition("ContainersReady")["status"] == "True"
    gate = {"status": {"conditions": [{"type": "example.com/up", "status": "True"}]}}
    await world.api.client().patch(PODS, "web", gate, "default", kind="strategic", subresource="status")
    await world.until(lambda: world.condition("Ready")["status"] == "True")


async def test_a_lost_event_does_no_lasting_harm(world, monkeypatch) -> None:
    from nodeagent.pods import manager

    monkeypatch.setattr(manager, "LOOK_AGAIN_S", 0.05)
    await world.kill()
    await world.start()
    world.pod()
    await world.until(lambda: world.container().get("ready"))
    world.runtime._emit = lambda event: None
    world.runtime.finish(world.find().status.id, 1)
    await world.until(lambda: world.container().get("restartCount") == 1)


async def test_a_pod_that_does_not_fit_is_refused(tmp_path, world) -> None:
    await world.kill()
    world.facts = {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "110"}, "labels": {"disk": "ssd"}}
    await world.start()
    ask = {"resources": {"requests": {"cpu": "800m"}}}
    world.pod("first", containers=[{"name": "app", "image": "busybox:1", **ask}])
    await world.until(lambda: world.status("first").get("phase") == "Running")
    world.pod("second", containers=[{"name": "app", "image": "busybox:1", **ask}])
    world.pod("third", nodeSelector={"disk": "tape"})
    await world.until(lambda: world.status("second").get("phase") == "Failed")
    assert world.status("second")["reason"] == "OutOfcpu"
    assert "requested: 800, used: 800, capacity: 1000" in world.status("second")["message"]
    await world.until(lambda: world.status("third").get("reason") == "NodeAffinity")
