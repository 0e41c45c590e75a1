"""The watch cache over the reference store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import WatchCache
from controlplane.store.interface import Compacted, Conflict, FutureRevision, StoreClosed
from controlplane.store.memory import MemoryStore


def value(name: str, **fields: object) -> bytes:
    document = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, **fields}
    return json.dumps(document, separators=(",", ":")).encode()


@pytest.fixture
async def cache() -> AsyncIterator[WatchCache]:
    opened = WatchCache(MemoryStore())
    await opened.open()
    yield opened
    await opened.close()


async def test_a_write_is_in_the_cache_when_it_returns(cache: WatchCache) -> None:
    written = await cache.create("core/pods/a/x", value("x"))
    assert cache.get("core/pods/a/x") is written
    assert written.object["metadata"] == {"resourceVersion": "1", "name": "x"}
    newer = await cache.update("core/pods/a/x", value("x", spec={}), 1)
    assert (newer.revision, newer.create_revision) == (2, 1)
    assert cache.list("core/pods/") == ([newer], 2)
    assert await cache.delete("core/pods/a/x", 2) == 3
    assert cache.get("core/pods/a/x") is None
    assert cache.list("") == ([], 3)


async def test_returns_what_was_written_even_if_overwritten_at_once(cache: WatchCache) -> None:
    first, second = await asyncio.gather(cache.create("k/a", value("1")), cache.update("k/a", value("2"), 1))
    assert (first.object["metadata"]["name"], first.revision) == ("1", 1)
    assert (second.object["metadata"]["name"], second.revision, second.create_revision) == ("2", 2, 1)
    with pytest.raises(Conflict):
        await cache.update("k/a", value("3"), 1)


async def test_pages_are_one_moment_while_writes_go_on(cache: WatchCache) -> None:
    for i in range(30):
        await cache.create(f"core/pods/a/{i:02}", value(f"{i:02}"))
    items, revision, remaining = await cache.page("core/pods/", limit=10)
    assert (revision, remaining) == (30, 20)
    await cache.delete("core/pods/a/15", 16)
    await cache.create("core/pods/a/155", value("new"))
    await cache.update("core/pods/a/20", value("changed"), 21)
    names = [c.object["metadata"]["name"] for c in items]
    while remaining:
        items, revision, remaining = await cache.page(
            "core/pods/", start_after=items[-1].key, limit=10, revision=revision
        )
        names += [c.object["metadata"]["name"] for c in items]
    assert names == [f"{i:02}" for i in range(30)]


async def test_pages_of_a_forgotten_snapshot_come_from_history() -> None:
    cache = WatchCache(MemoryStore(), snapshots=1)
    await cache.open()
    for i in range(4):
        await cache.create(f"core/pods/a/{i}", value(str(i)))
    first, revision, _ = await cache.page("core/pods/", limit=2)
    await cache.delete("core/pods/a/3", 4)
    await cache.page("core/pods/", limit=1)  # pushes the snapshot out
    second, at, remaining = await cache.page("core/pods/", start_after=first[-1].key, limit=2, revision=revision)
    assert ([c.key for c in second], at, remaining) == (["core/pods/a/2", "core/pods/a/3"], 4, 0)
    await cache.store.compact(5)
    with pytest.raises(Compacted):
        await cache.page("core/pods/", start_after=first[-1].key, limit=2, revision=revision)
    with pytest.raises(FutureRevision):
        await cache.page("core/pods/", revision=99)
    await cache.close()


async def test_watch_from_now_and_from_the_past(cache: WatchCache) -> None:
    await cache.create("core/pods/a/x", value("x"))
    await cache.create("core/secrets/a/x", value("x"))
    await cache.update("core/pods/a/x", value("x", spec={}), 1)
    past = cache.subscribe("core/pods/", 1)
    now = cache.subscribe("core/pods/a/")
    one = cache.subscribe("core/pods/a/x", 0)
    await cache.delete("core/pods/a/x", 3)
    assert [(e.type, e.revision) for e in await past.next()] == [("MODIFIED", 3), ("DELETED", 4)]
    assert [(e.type, e.revision) for e in await one.next()] == [("ADDED", 1), ("MODIFIED", 3), ("DELETED", 4)]
    (event,) = await now.next()
    assert event.previous is not None and event.previous.revision == 3
    assert json.loads(event.line) == {
        "type": "DELETED",
        "object": {
            "kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "4", "name": "x"}, "spec": {},
        },
    }
    assert event.line is event.line and event.line.endswith(b"}\n")
    with pytest.raises(FutureRevision):
        cache.subscribe("core/pods/", 5)
    for watcher in (past, now, one):
        watcher.close()
    assert cache.watchers == 0


async def test_waiting_for_events_ends_by_event_timeout_or_close(cache: WatchCache) -> None:
    watcher = cache.subscribe("k/")
    assert await watcher.next(timeout_s=0.001) == ()
    waiting = asyncio.ensure_future(watcher.next(timeout_s=60))
    await cache.create("k/a", value("a"))
    assert [e.key for e in await waiting] == ["k/a"]
    waiting = asyncio.ensure_future(watcher.next())
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(StoreClosed):
        await waiting


async def test_slow_watcher_is_dropped_and_others_are_not() -> None:
    cache = WatchCache(MemoryStore())
    await cache.open()
    slow = cache.subscribe("k/", limit_bytes=5_000)
    quick = cache.subscribe("k/", limit_bytes=5_000)
    for i in range(50):
        await cache.create(f"k/{i}", value("x" * 500))
        assert len(await quick.next()) == 1
    with pytest.raises(Overflow):
        await slow.next()
    assert cache.watchers == 1
    await cache.close()


async def test_window_is_bounded_and_says_from_where_it_goes() -> None:
    cache = WatchCache(MemoryStore(), window_events=10)
    await cache.open()
    for i in range(30):
        await cache.create(f"k/{i}", value("x"))
    with pytest.raises(Compacted) as caught:
        cache.subscribe("k/", 19)
    assert caught.value.oldest == 20
    assert len(await cache.subscribe("k/", 20).next()) == 10
    await cache.close()


async def test_restart_keeps_a_window_of_the_past() -> None:
    store = MemoryStore()
    cache = WatchCache(store)
    await cache.open()
    await cache.create("k/a", value("a"))
    await cache.update("k/a", value("b"), 1)
    await cache.delete("k/a", 2)
    await cache.create("k/b", value("b"))
    await cache.close()
    cache = WatchCache(store, window_events=6)
    await cache.open()
    assert cache.revision == 4 and [c.key for c in cache.list("")[0]] == ["k/b"]
    events = await cache.subscribe("k/", 1).next()
    assert [(e.type, e.key, e.revision) for e in events] == [
        ("MODIFIED", "k/a", 2), ("DELETED", "k/a", 3), ("ADDED", "k/b", 4),
    ]
    with pytest.raises(Compacted):
        cache.subscribe("k/", 0)
    await cache.close()


async def test_labels_and_object_are_decoded_once(cache: WatchCache) -> None:
    labelled = json.dumps({"metadata": {"name": "x", "labels": {"app": "web"}}}, separators=(",", ":")).encode()
    cached = await cache.create("k/x", labelled)
    assert cached.labels == {"app": "web"} and cached.labels is cached.labels
    assert cached.object is cached.object
    assert (await cache.create("k/y", value("y"))).labels == {}
