"""In-place resize, from the spec to the cgroups and the status, over the fakes."""

from __future__ import annotations

from nodeagent.pods import resize
from nodeagent.runtime.interface import RuntimeFailure

SMALL = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}
LARGE = {"requests": {"cpu": "300m", "memory": "64Mi"}, "limits": {"cpu": "400m", "memory": "256Mi"}}


def change(world, resources, name="web", **more) -> None:
    """As the resize subresource does."""
    pod = world.api.get("pods", name, "default")
    containers = [{**pod["spec"]["containers"][0], "resources": resources, **more}]
    world.api.put({**pod, "spec": {**pod["spec"], "containers": containers}})


async def running(world, name="web", resources=SMALL, **more) -> None:
    world.pod(name, containers=[{"name": "app", "image": "busybox:1", "resources": resources, **more}])
    await world.until(lambda: world.status(name).get("phase") == "Running")


async def test_a_resize_reaches_cgroups_and_status_without_a_restart(world) -> None:
    await running(world)
    assert world.container()["allocatedResources"] == SMALL["requests"] and world.container()["resources"] == SMALL
    before = world.find().status.id
    change(world, LARGE)
    await world.until(lambda: world.container().get("resources") == LARGE)
    assert world.container()["allocatedResources"] == LARGE["requests"]
    assert world.find().status.id == before and world.container()["restartCount"] == 0
    assert world.find().config.resources.memory_limit_bytes == 256 << 20
    assert world.find().config.resources.cpu_quota_us == 40_000
    sandbox = next(iter(world.runtime.pods.values()))
    assert sandbox.config.resources.memory_limit_bytes == 256 << 20
    assert not world.condition("PodResizePending") and not world.condition("PodResizeInProgress")
    assert any(reason == "ResizeCompleted" for _, reason, _ in world.events)


async def test_a_container_that_must_restart_for_memory_does(world) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    await running(world, resizePolicy=policy)
    change(world, LARGE)
    await world.until(lambda: world.container().get("resources") == LARGE)
    assert world.container()["restartCount"] == 1
    assert world.find().config.resources.memory_limit_bytes == 256 << 20


async def test_what_the_node_cannot_ever_grant(world) -> None:
    world.node.allocatable.update({"cpu": "1", "memory": "1Gi", "pods": "10"})
    await running(world)
    change(world, {**LARGE, "requests": {"cpu": "2"}, "limits": {"cpu": "2"}})
    await world.until(lambda: world.condition("PodResizePending"))
    condition = world.condition("PodResizePending")
    assert (condition["status"], condition["reason"]) == ("True", "Infeasible")
    assert condition["message"] == "Node didn't have enough capacity: cpu, requested: 2000, capacity: 1000"
    assert world.container()["resources"] == SMALL
    change(world, SMALL)
    await world.until(lambda: not world.condition("PodResizePending"))


async def test_a_deferred_resize_is_granted_when_another_pod_goes(world) -> None:
    world.node.allocatable.update({"cpu": "1", "memory": "1Gi", "pods": "10"})
    await running(world)
    await running(world, "other", {"requests": {"cpu": "800m"}})
    change(world, LARGE)
    await world.until(lambda: world.condition("PodResizePending").get("reason") == "Deferred")
    assert "requested: 300, used: 800, capacity: 1000" in world.condition("PodResizePending")["message"]
    await world.delete("other", grace=0)
    await world.until(lambda: world.container().get("resources") == LARGE)
    assert not world.condition("PodResizePending")


async def test_a_failing_resize_says_so_and_is_tried_again(world) -> None:
    await running(world)
    world.runtime.fail_next("update_resources", RuntimeFailure("update_resources: 9 bytes are in use"))
    change(world, LARGE)
    await world.until(lambda: world.condition("PodResizeInProgress").get("reason") == "Error")
    assert world.condition("PodResizeInProgress")["message"] == "update_resources: 9 bytes are in use"
    await world.until(lambda: world.container().get("resources") == LARGE)
    assert not world.condition("PodResizeInProgress")


async def test_a_restarted_agent_goes_on_with_what_was_granted(world) -> None:
    await running(world)
    await world.kill()
    change(world, LARGE)
    await world.start()
    await world.until(lambda: world.container().get("resources") == LARGE)
    assert world.find().config.resources.memory_limit_bytes == 256 << 20 and world.container()["restartCount"] == 0


def test_only_cpu_and_memory_count_and_quantities_compare_by_value() -> None:
    assert resize.same({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1000m"}, "claims": []})
    assert not resize.same({"limits": {"cpu": "1"}}, {"requests": {"cpu": "1"}})
