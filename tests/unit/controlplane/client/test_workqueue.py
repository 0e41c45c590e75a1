import asyncio

import pytest

from controlplane.client import QueueClosed, WorkQueue


async def test_an_item_is_queued_once_and_processed_by_one_at_a_time() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.add("a")  # while in hand: not for another worker
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_get_waits_for_an_item_and_a_cancelled_getter_loses_none() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


def test_failures_wait_longer_and_longer_until_forgotten(virtual) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        waits = []
        for _ in range(20):
            start = loop.time()
            queue.add_rate_limited("a")
            await queue.get()
            queue.done("a")
            waits.append(round(loop.time() - start, 3))
        queue.forget("a")
        assert queue.num_requeues("a") == 0
        return waits

    waits = virtual(main())
    assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
    assert waits[-1] == 1000


def test_the_earliest_of_several_delays_counts(virtual) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        start = loop.time()
        queue.add_after("a", 50)
        queue.add_after("a", 5)
        queue.add_after("a", 500)
        await queue.get()
        assert loop.time() - start == pytest.approx(5)
        queue.done("a")
        queue.add_after("b", 600)
        assert await queue.get() == "b"

    virtual(main())


async def test_shut_down_drains_then_refuses() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.shut_down()
    queue.add("b")
    assert await queue.get() == "a"
    with pytest.raises(QueueClosed):
        await queue.get()


async def test_shut_down_wakes_waiting_workers() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.shut_down()
    with pytest.raises(QueueClosed):
        await waiting
