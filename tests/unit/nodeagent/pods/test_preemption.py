"""A critical pod that finds no room: others give way, as few as will do, those promised least first."""

from __future__ import annotations

from typing import Any

from nodeagent.pods import admission

ROOM = {"cpu": "1", "memory": "1Gi", "pods": "10"}


def pod(name: str, cpu: str = "", priority: int = 0, limit: str = "", static: bool = False) -> dict[str, Any]:
    resources: dict[str, Any] = {"requests": {"cpu": cpu}} if cpu else {}
    if limit:
        resources = {"limits": {"cpu": limit, "memory": "1Mi"}, "requests": {"cpu": limit, "memory": "1Mi"}}
    annotations = {"kubernetes.io/config.source": "file"} if static else {}
    return {
        "metadata": {"name": name, "uid": name, "annotations": annotations},
        "spec": {"priority": priority, "containers": [{"name": "app", "image": "busybox:1", "resources": resources}]},
    }


def names(asked: dict[str, Any], *running: dict[str, Any]) -> list[str]:
    return [p["metadata"]["name"] for p in admission.victims(asked, running, ROOM)]


def test_who_goes() -> None:
    critical = pod("critical", "500m", priority=2_000_000_000)
    low, high = pod("low", "400m", 1), pod("high", "400m", 1000)
    assert names(critical, high, low) == ["low"]
    assert names(critical, pod("own", limit="300m"), low, pod("idle")) == ["low"]  # idle holds nothing: it may stay
    assert names(critical, pod("small", "100m"), pod("large", "900m", 5)) == ["large"]
    assert names(critical, pod("other", "900m", priority=2_000_001_000)) == []
    assert names(pod("static", "500m", static=True), low, high) == ["low"]
    assert names(pod("ordinary", "500m", 1_000_000), low, high) == []
    assert names(pod("critical", "2", priority=2_000_000_000), low, high) == []  # nobody dies for nothing


async def test_the_critical_pod_runs_and_the_other_has_failed(world: Any) -> None:
    await world.kill()
    world.facts = {**world.facts, "allocatable": ROOM}
    await world.start()

    def run(name: str, cpu: str, **spec: Any) -> None:
        resources = {"requests": {"cpu": cpu}}
        world.pod(name, containers=[{"name": "app", "image": "busybox:1", "resources": resources}], **spec)

    run("web", "700m", terminationGracePeriodSeconds=0)
    await world.until(lambda: world.status("web").get("phase") == "Running")
    run("critical", "600m", priority=2_000_000_000)
    await world.until(lambda: world.status("critical").get("phase") == "Running")
    await world.until(lambda: world.status("web").get("phase") == "Failed")
    assert (world.status("web")["reason"], world.status("web")["message"]) == ("Preempting", admission.PREEMPTED)
    assert world.condition("DisruptionTarget", "web")["reason"] == "TerminationByKubelet"
