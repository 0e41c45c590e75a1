"""The QoS classes' cgroups follow the node's pods: what is asked for together, and next to nothing for BestEffort."""

from __future__ import annotations

from controlplane.client.resources import PODS
from nodeagent.pods import quality
from nodeagent.runtime.interface import LinuxResources


def pod(world, name: str, cpu: str = "", limit: str = "") -> None:
    resources = {"requests": {"cpu": cpu}} if cpu else {}
    if limit:
        resources["limits"] = {"cpu": limit, "memory": "32Mi"}
    world.pod(name, containers=[{"name": "app", "image": "busybox:1", "resources": resources}])


def shares(world) -> dict[str, int]:
    return {path: wanted.cpu_shares for path, wanted in world.runtime.groups.items()}


async def test_burstable_pods_have_together_what_they_ask_for(world) -> None:
    pod(world, "one", "250m")
    pod(world, "two", "500m")
    pod(world, "none")
    pod(world, "guaranteed", limit="2")
    expected = {quality.BURSTABLE: 768, quality.BEST_EFFORT: 2}
    await world.until(lambda: shares(world) == expected)
    await world.api.client().delete(PODS, "two", "default", grace_period_seconds=0)
    await world.until(lambda: shares(world)[quality.BURSTABLE] == 256)


async def test_a_failure_is_tried_again_when_pods_come(world) -> None:
    for _ in range(2):
        world.runtime.fail_next("set_group")
    pod(world, "one", "250m")
    await world.until(lambda: world.status("one").get("phase") == "Running")
    pod(world, "two", "500m")
    await world.until(lambda: shares(world) == {quality.BURSTABLE: 768, quality.BEST_EFFORT: 2})
    assert sum(method == "set_group" for method, _ in world.runtime.calls) >= 4


def test_without_pods_both_classes_have_the_least() -> None:
    assert quality.shares([]) == {quality.BURSTABLE: 2, quality.BEST_EFFORT: 2}


async def test_all_pods_together_have_the_limits_of_the_node(world) -> None:
    await world.kill()
    whole = LinuxResources(cpu_shares=2048, memory_limit_bytes=1 << 30, pids_limit=31_000)
    world.facts = {**world.facts, "all_pods": whole}
    await world.start()
    pod(world, "one", "250m")
    await world.until(lambda: world.runtime.groups.get(quality.ALL) == whole)
