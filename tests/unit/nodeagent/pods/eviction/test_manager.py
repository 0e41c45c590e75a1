"""Eviction from look to status, over the fakes of runtime and API server."""

from __future__ import annotations

from nodeagent.linux.cgroups.usage import Usage
from nodeagent.pods.eviction.manager import EvictionManager
from nodeagent.pods.eviction.thresholds import Observation, Watch, parse
from nodeagent.runtime.interface import DiskUsage

MIB = 1 << 20


def manager(world, left, thresholds=("memory.available<100Mi",), **more):
    """`left`: signal → what is left of 1 GiB; tests change it."""
    calls = []

    def tell(pod, kind, reason, message) -> None:
        world.events.append((pod["metadata"]["name"], reason, message))

    made = EvictionManager(
        world.node, world.runtime, world.manager, Watch.of(parse(thresholds), 300),
        lambda: {signal: Observation(value, 1 << 30) for signal, value in left.items()},
        lambda: calls.append(1), tell, 0.01, **more,
    )  # fmt: skip
    return made, calls


async def running(world, *names, **spec):
    for name in names:
        world.pod(name, containers=[{"name": name, "image": "busybox:1", **spec}])
    await world.until(lambda: all(world.status(n).get("phase") == "Running" for n in names))


async def test_the_greediest_goes_and_only_it(world) -> None:
    await running(world, "a", "b")
    world.runtime.usage = {"a": Usage(working_set_bytes=10 * MIB), "b": Usage(working_set_bytes=90 * MIB)}
    left = {"memory.available": 500 * MIB}
    made, calls = manager(world, left)
    await made.look()
    assert not made.conditions and not calls
    left["memory.available"] = 50 * MIB
    await made.look()
    assert made.conditions == {"MemoryPressure"} and calls == [1]
    await world.until(lambda: world.status("b").get("phase") == "Failed")
    assert world.status("b")["reason"] == "Evicted" and "low on resource: memory" in world.status("b")["message"]
    assert world.condition("DisruptionTarget", "b")["reason"] == "TerminationByKubelet"
    assert world.status("a")["phase"] == "Running"
    assert any(name == "b" and reason == "Evicted" for name, reason, _ in world.events)


async def test_images_are_given_back_before_pods(world) -> None:
    await running(world, "a")
    left = {"nodefs.available": 10 * MIB}

    async def reclaim() -> None:
        left["nodefs.available"] = 900 * MIB

    made, _ = manager(world, left, ("nodefs.available<10%",), reclaim_disk=reclaim)
    await made.look()
    assert made.conditions == {"DiskPressure"} and world.status("a")["phase"] == "Running"


async def test_the_one_who_wrote_most_goes_under_disk_pressure(world) -> None:
    await running(world, "a", "b")
    world.runtime.disk = {"a": DiskUsage(70 * MIB, 5), "b": DiskUsage(9 * MIB, 5000)}
    made, _ = manager(world, {"nodefs.available": 10 * MIB}, ("nodefs.available<10%",))
    await made.look()
    await world.until(lambda: world.status("a").get("phase") == "Failed")
    assert "Container a was using 71680Ki, request is 0" in world.status("a")["message"]
    made, _ = manager(world, {"nodefs.inodesFree": 10}, ("nodefs.inodesFree<5%",))
    await made.look()
    await world.until(lambda: world.status("b").get("phase") == "Failed")


async def test_a_pod_over_its_own_limit_goes_without_pressure(world) -> None:
    await running(world, "a", resources={"limits": {"ephemeral-storage": "1Mi"}})
    await running(world, "b")
    world.runtime.disk = {"a": DiskUsage(2 * MIB), "b": DiskUsage(2 * MIB)}
    made, _ = manager(world, {"memory.available": 500 * MIB})
    await made.look()
    await world.until(lambda: world.status("a").get("phase") == "Failed")
    assert 'limit "1Mi"' in world.status("a")["message"] and world.status("b")["phase"] == "Running"


async def test_nobody_left_to_evict_is_no_loop(world) -> None:
    made, _ = manager(world, {"memory.available": 1})
    await made.look()
    assert made.conditions == {"MemoryPressure"}


async def test_a_new_pod_is_refused_under_pressure(world) -> None:
    world.manager.pressures = lambda: frozenset({"DiskPressure"})
    world.pod("late")
    await world.until(lambda: world.status("late").get("phase") == "Failed")
    assert world.status("late")["message"] == "The node had condition: [DiskPressure]. "
