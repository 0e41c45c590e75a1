"""Seats, queues, borrowing, and turns: who waits for whom."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.api.status import StatusError
from controlplane.apiserver.flowcontrol.defaults import objects
from controlplane.apiserver.flowcontrol.levels import Level, deal, levels
from controlplane.apiserver.flowcontrol.turnstile import Turnstile


def level(name="l", nominal=1, lendable=0, borrowable=0, queues=4, hand=2, longest=3):
    return Level(name, False, nominal, lendable, borrowable, queues, hand, longest)


async def asked(lvl, flow, others, done, tag):
    await lvl.enter(flow, others)
    done.append(tag)


def test_every_flow_has_its_own_hand() -> None:
    hands = {tuple(sorted(deal(f"user-{i}", 64, 6))) for i in range(200)}
    assert len(hands) > 190 and all(len(set(h)) == 6 for h in hands)
    assert deal("a", 64, 6) == deal("a", 64, 6) and sorted(deal("a", 3, 3)) == [0, 1, 2]


async def test_a_seat_is_handed_to_who_waits() -> None:
    one, done = level(), []
    others = {"l": one}
    await one.enter("a", others)
    waiting = asyncio.create_task(asked(one, "b", others, done, "b"))
    await asyncio.sleep(0)
    assert (one.in_use, one.waiting, done) == (1, 1, [])
    one.leave(others)
    await waiting
    assert (one.in_use, one.waiting, done) == (1, 0, ["b"])
    one.leave(others)
    assert one.in_use == 0


async def test_a_busy_flow_fills_its_own_hand_only() -> None:
    one, done = level(queues=64, hand=2, longest=2), []
    others = {"l": one}
    await one.enter("x", others)
    greedy = [asyncio.create_task(asked(one, "greedy", others, done, "greedy")) for _ in range(10)]
    await asyncio.sleep(0)
    assert one.waiting == 4  # two queues of two
    refused = [t.exception() for t in greedy if t.done()]
    assert len(refused) == 6 and all(isinstance(e, StatusError) and e.code == 429 for e in refused)
    assert one.refused == {"queue-full": 6}
    modest = asyncio.create_task(asked(one, "modest", others, done, "modest"))
    await asyncio.sleep(0)
    for _ in range(3):
        one.leave(others)
        await asyncio.sleep(0)
    assert modest.done() and done.count("greedy") <= 2  # served in turn with the two queues of the other
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)
    assert one.waiting == 0


async def test_without_queues_there_is_a_refusal_at_once() -> None:
    one = level(queues=0, hand=0)
    await one.enter("a", {})
    with pytest.raises(StatusError) as refused:
        await one.enter("b", {})
    assert refused.value.code == 429 and refused.value.headers["Retry-After"] == "1"


async def test_idle_seats_are_lent_and_come_back() -> None:
    rich, poor, done = level("rich", 4, lendable=2), level("poor", 1, borrowable=5), []
    others = {"rich": rich, "poor": poor}
    tasks = [asyncio.create_task(asked(poor, f"f{i}", others, done, i)) for i in range(5)]
    await asyncio.sleep(0)
    assert (poor.in_use, poor.waiting) == (3, 2)  # its own and two lent ones
    for _ in range(4):
        await rich.enter("r", others)  # whose seats they are is not made to wait for them
    poor.leave(others)
    await asyncio.sleep(0)
    assert (poor.in_use, poor.waiting) == (2, 2)  # nothing to borrow any more
    for _ in range(4):
        rich.leave(others)
        await asyncio.sleep(0)
    assert (poor.in_use, poor.waiting) == (3, 1)
    poor.leave(others)
    await asyncio.gather(*tasks)


async def test_who_goes_away_leaves_no_seat_taken() -> None:
    one, done = level(), []
    others = {"l": one}
    await one.enter("a", others)
    goes, stays = (asyncio.create_task(asked(one, f, others, done, f)) for f in ("goes", "stays"))
    await asyncio.sleep(0)
    one.leave(others)  # to `goes`, who is cancelled before it hears of it
    goes.cancel()
    await asyncio.gather(goes, stays, return_exceptions=True)
    assert done in (["stays"], ["goes"])
    one.leave(others)
    assert (one.in_use, one.waiting) == (0, 0)


def test_the_cluster_starts_with_kubernetes_levels() -> None:
    found = levels([o for o in objects() if o["kind"] == "PriorityLevelConfiguration"], 600)
    assert found["exempt"].exempt and found["exempt"].nominal == 0
    assert found["catch-all"].queues == 0 and found["catch-all"].nominal == 13
    assert found["workload-low"].nominal == 245 and found["workload-low"].lendable == 220
    assert found["node-high"].hand == 6 and found["node-high"].queues == 64


async def test_what_is_expensive_passes_one_by_one_and_fairly() -> None:
    turnstile, order = Turnstile(), []

    async def expensive(flow: str) -> None:
        await turnstile.turn(flow)
        order.append(flow)

    tasks = [asyncio.create_task(expensive(flow)) for flow in ["a", "a", "a", "a", "b"]]
    turns = 0
    while not all(t.done() for t in tasks):
        before = len(order)
        await asyncio.sleep(0)
        turns += 1
        assert len(order) <= before + 1
    assert order == ["a", "a", "b", "a", "a"] and turns >= 5


async def test_a_turn_whose_client_has_gone_is_nobodys() -> None:
    turnstile, order = Turnstile(), []

    async def expensive(name: str) -> None:
        await turnstile.turn(name)
        order.append(name)

    tasks = [asyncio.create_task(expensive(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "c"]
    await expensive("d")
    assert order[-1] == "d"
