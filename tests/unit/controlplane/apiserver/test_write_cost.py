"""What a write costs does not depend on how much is stored, nor on who watches something else.

The cost is counted in the interpreter's own instructions on this thread, from the request to its answer, with the watch
cache, the watch groups and the connections' writes that happen meanwhile. So it is the same on every machine.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import FrameType
from typing import Any

import pytest

MERGE = "application/merge-patch+json"
MARGIN = 1.15
"""A bisection more, a chunk that is split: nothing that grows with the thousands."""


async def instructions(work: Callable[[], Awaitable[Any]]) -> int:
    """How many instructions of the interpreter run until `work` is done, its own and everybody's."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        else:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace

    async def whole() -> None:
        await work()
        for _ in range(5):  # those who are told of it have their turn
            await asyncio.sleep(0)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await whole()
    finally:
        sys.settrace(before)
    return count


async def costs(api: Any, path: str, name: str) -> dict[str, int]:
    """Of one write of each sort, the second of its sort: the first compiles what it needs."""
    found = {}
    for each in (f"{name}-first", name):
        body = {"metadata": {"name": each, "labels": {"app": "x"}}, "data": {"k": "v"}}
        changed = {**body, "data": {"k": "w"}}
        one = f"{path}/{each}"
        found["POST"] = await instructions(lambda body=body: api.ok("POST", path, body))
        found["PUT"] = await instructions(lambda one=one, changed=changed: api.ok("PUT", one, changed))
        patch = {"data": {"k": "y"}}
        found["PATCH"] = await instructions(lambda one=one, patch=patch: api.ok("PATCH", one, patch, kind=MERGE))
        found["DELETE"] = await instructions(lambda one=one: api.ok("DELETE", one))
    return found


@asynccontextmanager
async def watching(api: Any, targets: list[str]) -> AsyncIterator[None]:
    """Watches that are read, each in a task."""

    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    async with AsyncExitStack() as stack:
        tasks = []
        for target in targets:
            response = await api.raw("GET", target)
            assert response.status == 200
            stream = await stack.enter_async_context(aclosing(response.stream))
            tasks.append(asyncio.create_task(read(aiter(stream))))
        await asyncio.sleep(0)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def path(api: Any) -> str:
    return f"{await api.namespace('cost')}/configmaps"


async def test_ten_times_the_objects_do_not_make_a_write_dearer(api: Any, path: str) -> None:
    async def fill(first: int, last: int) -> None:
        for i in range(first, last):
            await api.ok("POST", path, {"metadata": {"name": f"n-{i:05}"}})

    await fill(0, 300)
    few = await costs(api, path, "n-00100-x")
    await fill(300, 3_000)
    many = await costs(api, path, "n-00100-x")
    assert {verb: many[verb] for verb in few if many[verb] > MARGIN * few[verb]} == {}, few


async def test_watches_of_other_kinds_and_namespaces_do_not_make_a_write_dearer(api: Any, path: str) -> None:
    alone = await costs(api, path, "x")
    namespace = path.rpartition("/")[0]
    other = await api.namespace("other")
    kinds = [
        f"{namespace}/secrets",
        f"{namespace}/pods",
        f"{other}/configmaps",
        "/api/v1/nodes",
        "/apis/apps/v1/deployments",
    ]
    queries = ["", *(f"&labelSelector=app%3Dw{i}" for i in range(40))]
    async with watching(api, [f"{kind}?watch=1{query}" for kind in kinds for query in queries]):
        assert api.server.handlers.fanout.members == len(kinds) * len(queries)
        among = await costs(api, path, "x")
    assert {verb: among[verb] for verb in alone if among[verb] > MARGIN * alone[verb]} == {}, alone


async def test_the_count_sees_watches_of_the_same_kind(api: Any, path: str) -> None:
    """Each selection of its own costs something: or else the tests above could not fail."""
    alone = await costs(api, path, "x")
    async with watching(api, [f"{path}?watch=1&labelSelector=app%3Dw{i}" for i in range(40)]):
        among = await costs(api, path, "x")
    assert all(among[verb] > 1.5 * alone[verb] for verb in alone), (alone, among)
