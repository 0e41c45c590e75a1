import asyncio

import pytest

from controlplane.scheduler import queue as events
from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.queue import SchedulingQueue


def test_priority_then_age(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
            queue.add(PodInfo(pod(name, priority=priority)))
            await asyncio.sleep(0.01)
        assert [(await queue.pop()).pod.name for _ in range(4)] == ["b", "d", "a", "c"]
        assert len(queue) == 0

    virtual(main())


def test_a_pod_that_is_gone_is_not_tried(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        queue.add(PodInfo(pod("a")))
        queue.add(PodInfo(pod("b")))
        queue.remove("default/a")
        assert (await queue.pop()).pod.name == "b"

    virtual(main())


def test_errors_back_off_longer_and_longer(virtual, pod) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = SchedulingQueue()
        queue.add(PodInfo(pod("a")))
        waits = []
        for _ in range(6):
            start = loop.time()
            entry = await queue.pop()
            waits.append(round(loop.time() - start))
            queue.back_off(entry)
        assert waits == [0, 1, 2, 4, 8, 10]

    virtual(main())


def test_only_an_event_that_matters_wakes_an_unschedulable_pod(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        queue.add(PodInfo(pod("a")))
        queue.park(await queue.pop(), {"NodeResourcesFit"})
        for other in (events.NODE_LABELS, events.NODE_TAINTS, events.POD_ADDED):
            queue.move(other)
        assert queue.unschedulable == 1
        queue.move(events.POD_DELETED)
        assert queue.unschedulable == 0
        start = asyncio.get_running_loop().time()
        assert (await queue.pop()).attempts == 2
        assert asyncio.get_running_loop().time() == start  # nothing else to do: no reason to wait

    virtual(main())


def test_active_pods_come_before_those_in_backoff(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        queue.add(PodInfo(pod("a", priority=100)))
        queue.park(await queue.pop(), {"NodeResourcesFit"})
        queue.move(events.NODE_ADDED)
        queue.add(PodInfo(pod("b")))
        assert (await queue.pop()).pod.name == "b"
        assert (await queue.pop()).pod.name == "a"

    virtual(main())


def test_five_minutes_are_enough(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        queue.add(PodInfo(pod("a")))
        queue.park(await queue.pop(), {"NodeAffinity"})
        queue.move_stale()
        assert queue.unschedulable == 1
        await asyncio.sleep(301)
        queue.move_stale()
        assert (await queue.pop()).pod.name == "a"

    virtual(main())


def test_a_changed_pod_is_tried_as_it_is_now(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        queue.add(PodInfo(pod("a", cpu="8")))
        queue.park(await queue.pop(), {"NodeResourcesFit"})
        queue.update(PodInfo(pod("a", cpu="1")))
        entry = await queue.pop()
        assert entry.pod.requests == (("cpu", 1000),)
        assert len(queue) == 0

    virtual(main())


def test_pop_waits_for_a_pod(virtual, pod) -> None:
    async def main() -> None:
        queue = SchedulingQueue()
        asyncio.get_running_loop().call_later(50, queue.add, PodInfo(pod("a")))
        start = asyncio.get_running_loop().time()
        await queue.pop()
        assert asyncio.get_running_loop().time() - start == pytest.approx(50)

    virtual(main())
