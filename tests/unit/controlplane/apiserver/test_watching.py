"""Watches: nothing lost, nothing twice, in the form asked for, and no watcher hurts another."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from controlplane.apiserver import streams
from controlplane.apiserver.registry import fanout, selection
from controlplane.apiserver.streams import Chunk, Feed

CMS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


class Events:
    """The events of one watch, taken one by one."""

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        self._lines = lines
        self._rest = b""

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            while b"\n" not in self._rest:
                try:
                    self._rest += await anext(self._lines)
                except StopAsyncIteration:
                    return None
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def names(self, count: int) -> list[tuple[str, str]]:
        found = [await self.next() for _ in range(count)]
        return [(e["type"], e["object"]["metadata"].get("name", "")) for e in found]


@asynccontextmanager
async def watch(api: Any, query: str = "", path: str = CMS, **headers: str) -> AsyncIterator[Events]:
    response = await api.raw("GET", f"{path}?watch=1&{query}", headers=headers)
    assert response.status == 200
    async with aclosing(response.stream) as stream:
        events = Events(aiter(stream))
        await asyncio.sleep(0)  # let it begin
        yield events


async def make(api: Any, name: str, **labels: str) -> Any:
    return await api.ok("POST", CMS, {"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})


async def test_the_state_first_then_what_happens(api: Any) -> None:
    await make(api, "a")
    async with watch(api) as events:
        assert await events.names(1) == [("ADDED", "a")]
        await make(api, "b")
        await api.ok("PATCH", f"{CMS}/a", {"data": {"k": "w"}}, kind=MERGE)
        await api.ok("DELETE", f"{CMS}/b")
        assert await events.names(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_from_a_revision(api: Any) -> None:
    made = await make(api, "a")
    await make(api, "b")
    async with watch(api, f"resourceVersion={made['metadata']['resourceVersion']}") as events:
        assert await events.names(1) == [("ADDED", "b")]


async def test_many_watchers_see_the_same_in_order(api: Any) -> None:
    async with asyncio.TaskGroup() as group:

        async def follow() -> list[Any]:
            async with watch(api, "resourceVersion=0") as events:
                seen = []
                while len(seen) < 20:
                    seen.append((await events.next())["object"]["metadata"]["name"])
                return seen

        followers = [group.create_task(follow()) for _ in range(10)]
        for i in range(20):
            await make(api, f"c{i:02}")
    assert all(f.result() == [f"c{i:02}" for i in range(20)] for f in followers)
    assert len(api.server.handlers.fanout) == 0, "groups go with their last member"


async def test_joining_while_things_happen_loses_nothing(api: Any) -> None:
    """Each watcher starts at another revision of a stream of writes, and must see exactly the rest."""
    revisions = []
    watchers = []

    async def rest(revision: str, count: int) -> list[str]:
        async with watch(api, f"resourceVersion={revision}") as events:
            return [name for _, name in await events.names(count)]

    for i in range(30):
        made = await make(api, f"c{i:02}")
        revisions.append(made["metadata"]["resourceVersion"])
        watchers.append(asyncio.create_task(rest(revisions[-1], 40 - i - 1)))
    for i in range(30, 40):
        await make(api, f"c{i:02}")
    for i, watcher in enumerate(watchers):
        assert await watcher == [f"c{n:02}" for n in range(i + 1, 40)]


async def test_a_selector_turns_updates_into_additions_and_deletions(api: Any) -> None:
    await make(api, "a", color="red")
    async with watch(api, "labelSelector=color%3Dblue") as events:
        blue, red = ({"metadata": {"labels": {"color": c}}} for c in ("blue", "red"))
        await api.ok("PATCH", f"{CMS}/a", blue, kind=MERGE)
        await api.ok("PATCH", f"{CMS}/a", {"data": {"k": "x"}}, kind=MERGE)
        last = await api.ok("PATCH", f"{CMS}/a", red, kind=MERGE)
        seen = [await events.next() for _ in range(3)]
        assert [e["type"] for e in seen] == ["ADDED", "MODIFIED", "DELETED"]
        gone = seen[2]["object"]["metadata"]
        assert gone["labels"] == {"color": "blue"}
        assert gone["resourceVersion"] == last["metadata"]["resourceVersion"]


async def test_one_object_by_name(api: Any) -> None:
    await make(api, "a")
    async with watch(api, "fieldSelector=metadata.name%3Da") as events:
        await make(api, "b")
        await api.ok("DELETE", f"{CMS}/a")
        assert await events.names(2) == [("ADDED", "a"), ("DELETED", "a")]


async def test_initial_events_end_with_a_bookmark(api: Any) -> None:
    made = await make(api, "a")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with watch(api, query) as events:
        assert await events.names(1) == [("ADDED", "a")]
        mark = await events.next()
        assert mark["type"] == "BOOKMARK"
        meta = mark["object"]["metadata"]
        assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(meta["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
        assert (mark["object"]["kind"], mark["object"]["apiVersion"]) == ("ConfigMap", "v1")
    refused = await api("GET", f"{CMS}?watch=1&sendInitialEvents=true")
    assert refused.status == 422


async def test_it_ends_in_time_with_a_last_bookmark(api: Any) -> None:
    async with watch(api, "resourceVersion=1&timeoutSeconds=1&allowWatchBookmarks=true", f"{CMS}") as events:
        kinds = []
        while (event := await events.next()) is not None:
            kinds.append(event["type"])
        assert kinds[-1] == "BOOKMARK"


async def test_bookmarks_go_to_who_asked(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "BOOKMARK_S", 0.05)
    async with watch(api, "resourceVersion=0&allowWatchBookmarks=true") as with_, watch(api) as without:
        await api.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "other"}})
        assert (await with_.next())["type"] == "BOOKMARK"
        await make(api, "a")
        while (event := await with_.next())["type"] == "BOOKMARK":
            pass
        assert event["type"] == "ADDED"
        assert (await without.next())["type"] == "ADDED"


async def test_a_forgotten_revision_is_told_as_an_event(api: Any) -> None:
    made = await make(api, "a")
    for i in range(5000):  # more than the window holds
        api.server.cache._window_events = 10
        if i > 50:
            break
        await api.ok("PATCH", f"{CMS}/a", {"data": {"k": str(i)}}, kind=MERGE)
    async with watch(api, f"resourceVersion={made['metadata']['resourceVersion']}") as events:
        event = await events.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await events.next() is None


async def test_who_is_too_slow_is_ended_and_nobody_else(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SLOW_BYTES", 20_000)
    async with watch(api, "resourceVersion=0") as slow, watch(api, "resourceVersion=0") as quick:
        for i in range(30):
            await api.ok("POST", CMS, {"metadata": {"name": f"c{i:02}"}, "data": {"k": "x" * 1000}})
            assert await quick.names(1) == [("ADDED", f"c{i:02}")]
            if i == 0:
                assert await slow.names(1) == [("ADDED", "c00")]
        last = None
        while (event := await slow.next()) is not None:
            last = event
        assert last is not None
        assert (last["type"], last["object"]["code"]) == ("ERROR", 410)


async def test_tables_have_their_columns_once(api: Any) -> None:
    await make(api, "a")
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    for query in ("", "resourceVersion=0"):
        async with watch(api, query, Accept=accept) as events:
            first = await events.next()
            assert [c["name"] for c in first["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]
            await api.ok("PATCH", f"{CMS}/a", {"data": {"k": query}}, kind=MERGE)
            second = await events.next()
            assert not second["object"]["columnDefinitions"]
            assert second["object"]["rows"][0]["cells"][0] == "a"


async def test_metadata_only(api: Any) -> None:
    await make(api, "a")
    async with watch(api, "", Accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io") as events:
        event = await events.next()
        assert event["object"]["kind"] == "PartialObjectMetadata"
        assert "data" not in event["object"]


async def test_a_feed_that_nobody_reads_any_more_is_stopped() -> None:
    stopped = asyncio.Event()

    async def run(sink: Any) -> None:
        try:
            sink.write(Chunk(b"one"))
            await asyncio.Event().wait()
        finally:
            stopped.set()

    feed = Feed(run)
    async for piece in feed:
        assert piece == b"one"
        break
    await feed.aclose()
    assert stopped.is_set()


def test_a_chunk_is_framed_once() -> None:
    chunk = Chunk(b"x" * 300)
    assert chunk.framed == b"12c\r\n" + b"x" * 300 + b"\r\n"
    assert chunk.framed is chunk.framed


async def test_a_server_that_stops_ends_its_watches(api: Any) -> None:
    async with watch(api, "resourceVersion=0") as events:
        await make(api, "a")
        assert await events.names(1) == [("ADDED", "a")]
        api.server.handlers.fanout.close()
        assert await events.next() is None


MATCH = "resourceVersionMatch=NotOlderThan"


async def test_initial_events_without_leave_for_bookmarks_have_none(api: Any) -> None:
    await make(api, "a")
    async with watch(api, f"sendInitialEvents=true&{MATCH}") as events:
        assert await events.names(1) == [("ADDED", "a")]
        await make(api, "b")
        assert await events.names(1) == [("ADDED", "b")]


async def test_a_watch_that_wants_no_initial_events(api: Any) -> None:
    made = await make(api, "a")
    for start in ("", "&resourceVersion=0"):
        async with watch(api, f"sendInitialEvents=false&{MATCH}{start}") as events:
            await api.ok("PATCH", f"{CMS}/a", {"data": {"start": start}}, kind=MERGE)
            assert await events.names(1) == [("MODIFIED", "a")]
    revision = made["metadata"]["resourceVersion"]
    async with watch(api, f"sendInitialEvents=false&{MATCH}&resourceVersion={revision}") as events:
        assert await events.names(2) == [("MODIFIED", "a")] * 2


async def test_initial_events_at_least_as_new_as_a_revision(api: Any) -> None:
    first = await make(api, "a")
    await make(api, "b")
    query = f"sendInitialEvents=true&{MATCH}&allowWatchBookmarks=true"
    async with watch(api, f"{query}&resourceVersion={first['metadata']['resourceVersion']}") as events:
        assert await events.names(2) == [("ADDED", "a"), ("ADDED", "b")]
        assert (await events.next())["type"] == "BOOKMARK"


async def test_a_revision_that_is_to_come(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_FUTURE_WAIT_S", 0.05)
    answer = await api("GET", f"{CMS}?watch=1&resourceVersion=999999")
    assert (answer.status, answer.body["reason"]) == (504, "Timeout")
    current = api.server.cache.revision
    assert answer.body["message"] == f"Timeout: Too large resource version: 999999, current: {current}"
    assert answer.body["details"] == {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    assert answer.headers["Retry-After"] == "1"


async def test_the_initial_state_of_a_table_ends_with_a_bookmark(api: Any) -> None:
    await make(api, "a")
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    query = f"sendInitialEvents=true&{MATCH}&allowWatchBookmarks=true"
    async with watch(api, query, Accept=accept) as events:
        assert (await events.next())["object"]["rows"][0]["cells"][0] == "a"
        mark = await events.next()
        assert (mark["type"], mark["object"]["kind"]) == ("BOOKMARK", "Table")
        annotations = mark["object"]["rows"][0]["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}
