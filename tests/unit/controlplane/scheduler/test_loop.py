"""The scheduler at work, over an API server in a dict."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from controlplane.api import status
from controlplane.client import LeaderElector, Unreachable
from controlplane.client.fake import FakeAPI
from controlplane.client.resources import NODES, PODS
from controlplane.scheduler.loop import Scheduler


@contextlib.asynccontextmanager
async def running(api: FakeAPI, **settings: Any) -> AsyncIterator[Scheduler]:
    client = api.client()
    scheduler = Scheduler(client, **settings)
    ready = asyncio.Event()
    elector = LeaderElector(client, "kube-scheduler", identity="test")
    task = asyncio.create_task(scheduler.run(elector, ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 10)
        yield scheduler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


def placement(api: FakeAPI) -> dict[str, str]:
    return {p["metadata"]["name"]: p["spec"].get("nodeName", "") for p in api.all("pods")}


def events_of(api: FakeAPI, name: str) -> list[str]:
    return [f"{e['reason']}: {e['message']}" for e in api.all("events") if e["involvedObject"]["name"] == name]


def bound(api: FakeAPI) -> int:
    return sum(1 for node in placement(api).values() if node)


def test_pods_are_bound_and_spread(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        for name in "abc":
            api.put(node(name))
        async with running(api):
            client = api.client()
            for i in range(30):
                await client.create(PODS, pod(f"p{i}", owner="rs"))
            await eventually(lambda: bound(api) == 30)
            assert Counter(placement(api).values()) == {"a": 10, "b": 10, "c": 10}
            await eventually(lambda: events_of(api, "p0"))
            assert events_of(api, "p0") == [f"Scheduled: Successfully assigned default/p0 to {placement(api)['p0']}"]
            conditions = api.get("pods", "p0", "default")["status"]["conditions"]
            assert [(c["type"], c["status"]) for c in conditions] == [("PodScheduled", "True")]

    virtual(main())


def test_a_pod_that_fits_nowhere_says_why_and_is_bound_when_it_fits(api, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        api.put(node("a", cpu="1"))
        api.put(node("b", cpu="1"))
        api.put(node("c", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]))
        async with running(api):
            client = api.client()
            await client.create(PODS, pod("p", cpu="2"))
            await eventually(lambda: events_of(api, "p"))
            why = (
                "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu. "
                "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, "
                "2 No preemption victims found for incoming pod."
            )
            assert events_of(api, "p")[0] == f"FailedScheduling: {why}"

            def condition() -> dict[str, Any]:
                conditions = api.get("pods", "p", "default")["status"].get("conditions") or [{}]
                return conditions[0]

            await eventually(lambda: condition().get("reason") == "Unschedulable")
            assert condition()["message"] == why
            await client.patch(NODES, "a", {"status": {"allocatable": {"cpu": "3"}}}, subresource="status")
            await eventually(lambda: placement(api)["p"] == "a")

    virtual(main())


def test_binding_trouble_is_overcome(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        api.put(node("a", cpu="1"))
        async with running(api) as scheduler:
            api.fail(status.internal("oops"), containing="/binding")
            await api.client().create(PODS, pod("p", cpu="1"))
            await eventually(lambda: placement(api)["p"] == "a")
            assert scheduler.snapshot.nodes["a"].free["cpu"] == 0
            await api.client().delete(PODS, "p", "default", grace_period_seconds=0)
            api.fail(Unreachable("reset"), containing="/binding", times=3)
            await api.client().create(PODS, pod("q", cpu="1"))
            await eventually(lambda: placement(api).get("q") == "a")

    virtual(main())


def test_nothing_is_overcommitted_while_bindings_are_under_way(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        for name in "abcd":
            api.put(node(name, cpu="2"))
        for i in range(20):
            api.put(pod(f"p{i}", cpu="500m"))
        async with running(api):
            await eventually(lambda: bound(api) == 16)
            await asyncio.sleep(30)
            assert Counter(placement(api).values()) == {"a": 4, "b": 4, "c": 4, "d": 4, "": 4}

    virtual(main())


def test_more_important_pods_make_room(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        api.put(node("a", cpu="1"))
        async with running(api) as scheduler:
            client = api.client()
            await client.create(PODS, pod("low", cpu="1", terminationGracePeriodSeconds=0))
            await eventually(lambda: placement(api)["low"] == "a")
            await client.create(PODS, pod("high", cpu="1", priority=1000))
            await eventually(lambda: placement(api).get("high") == "a")
            assert "low" not in placement(api)
            await eventually(lambda: events_of(api, "low"))
            assert any("Preempted" in e for e in events_of(api, "low"))
            assert not scheduler.snapshot.nominated

    virtual(main())


def test_a_victim_that_takes_its_time_is_waited_for(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        api.put(node("a", cpu="1"))
        api.put(node("b", cpu="1"))
        async with running(api):
            client = api.client()
            for name in ("low1", "low2"):
                await client.create(PODS, pod(name, cpu="1"))
            await eventually(lambda: bound(api) == 2)
            await client.create(PODS, pod("high", cpu="1", priority=1000))
            await eventually(lambda: any("deletionTimestamp" in p["metadata"] for p in api.all("pods")))
            await asyncio.sleep(20)
            ending = [p for p in api.all("pods") if "deletionTimestamp" in p["metadata"]]
            assert len(ending) == 1  # not both, however long it takes
            assert api.get("pods", "high", "default")["status"]["nominatedNodeName"] == ending[0]["spec"]["nodeName"]
            await client.delete(PODS, ending[0]["metadata"]["name"], "default", grace_period_seconds=0)
            await eventually(lambda: placement(api)["high"] == ending[0]["spec"]["nodeName"])

    virtual(main())


def test_gated_foreign_and_assigned_pods_are_left_alone(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        api.put(node("a"))
        async with running(api) as scheduler:
            client = api.client()
            await client.create(PODS, pod("gated", schedulingGates=[{"name": "wait"}]))
            await client.create(PODS, pod("foreign", schedulerName="another"))
            await client.create(PODS, pod("mine"))
            await client.create(PODS, pod("placed", cpu="1", nodeName="a"))
            await eventually(lambda: placement(api)["mine"] == "a")
            await eventually(lambda: scheduler.snapshot.node_of("default/placed") == "a")
            assert placement(api)["gated"] == placement(api)["foreign"] == ""
            await client.patch(PODS, "gated", {"spec": {"schedulingGates": None}}, "default")
            await eventually(lambda: placement(api)["gated"] == "a")

    virtual(main())


def test_finished_pods_give_their_room_back(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        api.put(node("a", cpu="1"))
        async with running(api):
            client = api.client()
            await client.create(PODS, pod("job", cpu="1"))
            await eventually(lambda: placement(api)["job"] == "a")
            await client.create(PODS, pod("next", cpu="1"))
            await asyncio.sleep(1)
            assert placement(api)["next"] == ""
            await client.patch(PODS, "job", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
            await eventually(lambda: placement(api)["next"] == "a")

    virtual(main())


def test_an_outage_in_the_middle_of_a_backlog(api: FakeAPI, virtual, eventually, node, pod) -> None:
    async def main() -> None:
        for name in "abc":
            api.put(node(name, cpu="100"))
        async with running(api) as scheduler:
            for i in range(200):
                api.put(pod(f"p{i}", cpu="1"))
            await eventually(lambda: bound(api) > 20)
            api.offline = True
            api.break_watches()
            await asyncio.sleep(8)
            api.expire()
            api.offline = False
            await eventually(lambda: bound(api) == 200, seconds=120)
            used = sum(100_000 - n.free["cpu"] for n in scheduler.snapshot.nodes.values())
            assert used == 200_000

    virtual(main())
