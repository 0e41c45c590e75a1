"""What every store must do, whatever keeps the bytes. A backend joins by adding a factory to `STORES`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from controlplane.store.interface import (
    Compacted,
    Conflict,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyMissing,
    Store,
    StoreClosed,
)
from controlplane.store.memory import MemoryStore
from controlplane.store.sqlite import SqliteStore

Factory = Callable[[], Store]


def _memory(folder: Path) -> Factory:
    kept = MemoryStore()
    return lambda: kept


def _sqlite(folder: Path) -> Factory:
    return lambda: SqliteStore(folder / "store.db")


STORES: dict[str, Callable[[Path], Factory]] = {"memory": _memory, "sqlite": _sqlite}


@pytest.fixture(params=sorted(STORES))
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Factory:
    """Makes stores over the same data, one after the other."""
    return STORES[request.param](tmp_path)


@pytest.fixture
async def store(factory: Factory) -> AsyncIterator[Store]:
    opened = factory()
    await opened.open()
    yield opened
    await opened.close()


async def take(stream: AsyncIterator[list[Event]], count: int) -> list[Event]:
    """The next `count` events of a watch, however they are batched."""
    events: list[Event] = []

    async def collect() -> None:
        while len(events) < count:
            events.extend(await anext(stream))

    await asyncio.wait_for(collect(), 10)
    assert len(events) == count
    return events


def brief(events: list[Event]) -> list[tuple[EventType, str, bytes, int]]:
    return [(e.type, e.key, e.record.value, e.revision) for e in events]


async def test_revisions_count_writes_of_all_keys(store: Store) -> None:
    assert store.current_revision == 0
    first = await store.create("core/pods/a/x", b"1")
    second = await store.create("core/pods/a/y", b"2")
    third = await store.update("core/pods/a/x", b"3", first)
    fourth = await store.delete("core/pods/a/y", second)
    assert [first, second, third, fourth] == [1, 2, 3, 4]
    assert store.current_revision == 4
    record = await store.get("core/pods/a/x")
    assert record is not None
    assert (record.value, record.create_revision, record.revision) == (b"3", 1, 3)
    assert await store.get("core/pods/a/y") is None


async def test_preconditions_are_checked_and_fail_alone(store: Store) -> None:
    revision = await store.create("k/a", b"1")
    with pytest.raises(KeyExists):
        await store.create("k/a", b"2")
    with pytest.raises(KeyMissing):
        await store.update("k/b", b"2", 1)
    with pytest.raises(KeyMissing):
        await store.delete("k/b", 1)
    with pytest.raises(KeyMissing):
        await store.update("k/b", b"2", 0)
    with pytest.raises(Conflict):
        await store.update("k/a", b"2", 0)
    newer = await store.update("k/a", b"2", revision)
    with pytest.raises(Conflict) as caught:
        await store.update("k/a", b"3", revision)
    assert caught.value.current == newer
    with pytest.raises(Conflict):
        await store.delete("k/a", revision)
    assert store.current_revision == newer  # a refused write takes no revision
    record = await store.get("k/a")
    assert record is not None and record.value == b"2"


async def test_one_of_many_racing_writers_wins(store: Store) -> None:
    created = await asyncio.gather(*(store.create("k/a", b"%d" % i) for i in range(50)), return_exceptions=True)
    (revision,) = [r for r in created if isinstance(r, int)]
    assert all(isinstance(r, KeyExists) for r in created if not isinstance(r, int))
    updated = await asyncio.gather(
        *(store.update("k/a", b"%d" % i, revision) for i in range(50)), return_exceptions=True
    )
    (newest,) = [r for r in updated if isinstance(r, int)]
    assert all(isinstance(r, Conflict) and r.current == newest for r in updated if not isinstance(r, int))


async def test_writes_queued_together_see_each_other_in_order(store: Store) -> None:
    one, two, three, four = await asyncio.gather(
        store.create("k/a", b"1"),
        store.update("k/a", b"2", 1),
        store.delete("k/a", 2),
        store.create("k/a", b"3"),
    )
    assert (one, two, three, four) == (1, 2, 3, 4)
    record = await store.get("k/a")
    assert record is not None and record.create_revision == 4


async def test_recreated_key_has_a_new_create_revision(store: Store) -> None:
    first = await store.create("k/a", b"1")
    await store.delete("k/a", first)
    again = await store.create("k/a", b"2")
    record = await store.get("k/a")
    assert record is not None
    assert (record.create_revision, record.revision, record.value) == (again, again, b"2")


async def test_range_is_sorted_limited_and_counts_what_remains(store: Store) -> None:
    names = ["core/pods/b/1", "core/pods/a/2", "core/pods/a/1", "core/podtemplates/a/1", "core/pods/a-b/1"]
    for name in names:
        await store.create(name, name.encode())
    page = await store.range("core/pods/")
    assert [r.key for r in page.records] == ["core/pods/a-b/1", "core/pods/a/1", "core/pods/a/2", "core/pods/b/1"]
    assert (page.revision, page.remaining) == (5, 0)
    page = await store.range("core/pods/", limit=3)
    assert [r.key for r in page.records] == ["core/pods/a-b/1", "core/pods/a/1", "core/pods/a/2"]
    assert page.remaining == 1
    assert (await store.range("core/pods/", limit=1)).remaining == 3
    assert (await store.range("core/pods/", limit=1, count=False)).remaining == 1
    assert (await store.range("core/pods/", limit=4, count=False)).remaining == 0
    page = await store.range("core/pods/", limit=3, start_after="core/pods/a/2")
    assert [r.key for r in page.records] == ["core/pods/b/1"]
    assert page.remaining == 0
    assert [r.key for r in (await store.range("core/pods/a/")).records] == ["core/pods/a/1", "core/pods/a/2"]
    assert len((await store.range("")).records) == 5
    assert (await store.range("apps/")).records == []


async def test_keys_sort_by_code_point(store: Store) -> None:
    keys = ["k/é", "k/z", "k/Z", "k/\U0001f600", "k/\uffee"]
    for key in keys:
        await store.create(key, b"")
    assert [r.key for r in (await store.range("k/")).records] == sorted(keys)


async def test_the_past_stays_readable(store: Store) -> None:
    await store.create("k/a", b"1")  # 1
    await store.create("k/b", b"1")  # 2
    await store.update("k/a", b"2", 1)  # 3
    await store.delete("k/b", 2)  # 4
    await store.create("k/c", b"1")  # 5
    seen = {r: [(x.key, x.value) for x in (await store.range("k/", revision=r)).records] for r in range(1, 6)}
    assert seen == {
        1: [("k/a", b"1")],
        2: [("k/a", b"1"), ("k/b", b"1")],
        3: [("k/a", b"2"), ("k/b", b"1")],
        4: [("k/a", b"2")],
        5: [("k/a", b"2"), ("k/c", b"1")],
    }
    assert (await store.range("k/", limit=1, revision=3)).remaining == 1
    assert (await store.range("k/", limit=1, revision=4)).remaining == 0
    old = await store.get("k/b", 3)
    assert old is not None and old.value == b"1"
    assert await store.get("k/b", 4) is None
    assert await store.get("k/c", 4) is None
    with pytest.raises(FutureRevision):
        await store.range("k/", revision=6)
    with pytest.raises(FutureRevision):
        await store.get("k/a", 6)


async def test_watch_replays_the_past_then_follows(store: Store) -> None:
    await store.create("k/a", b"1")
    await store.create("other/a", b"1")
    await store.update("k/a", b"2", 1)
    stream = store.watch("k/", 1)
    assert brief(await take(stream, 1)) == [(EventType.PUT, "k/a", b"2", 3)]
    await store.delete("k/a", 3)
    await store.create("other/b", b"1")
    await store.create("k/a", b"3")
    events = await take(stream, 2)
    assert brief(events) == [(EventType.DELETE, "k/a", b"", 4), (EventType.PUT, "k/a", b"3", 6)]
    assert [e.record.create_revision for e in events] == [1, 6]


async def test_watch_of_one_key_sees_only_that_key(store: Store) -> None:
    await store.create("k/a", b"1")
    await store.create("k/ab", b"1")
    stream = store.watch("k/a", 0)
    assert [e.key for e in await take(stream, 1)] == ["k/a"]
    await store.create("k/abc", b"1")
    await store.update("k/a", b"2", 1)
    assert brief(await take(stream, 1)) == [(EventType.PUT, "k/a", b"2", 4)]


async def test_watchers_miss_nothing_while_many_write(store: Store) -> None:
    """Watches that start at different moments of a storm of writes all see each later event once, in order."""
    writers, writes = 20, 20

    async def write(name: str) -> None:
        revision = await store.create(f"k/{name}", b"0")
        for i in range(1, writes):
            revision = await store.update(f"k/{name}", b"%d" % i, revision)

    async def follow(after: int) -> list[int]:
        return [e.revision for e in await take(store.watch("k/", after), writers * writes - after)]

    followers: list[asyncio.Task[list[int]]] = []

    async def join_in() -> None:
        for _ in range(5):
            followers.append(asyncio.create_task(follow(store.current_revision)))
            followers.append(asyncio.create_task(follow(store.current_revision // 2)))
            target = min(store.current_revision + 40, writers * writes)
            if store.current_revision == target:
                break
            async for events in store.watch("", store.current_revision):
                if events[-1].revision >= target:
                    break

    await asyncio.gather(join_in(), *(write(f"w{n}") for n in range(writers)))
    for revisions in await asyncio.gather(*followers):
        assert revisions == list(range(writers * writes - len(revisions) + 1, writers * writes + 1))


async def test_a_watcher_is_told_before_the_writer_returns(store: Store) -> None:
    seen: list[int] = []

    async def follow() -> None:
        async for events in store.watch("k/", 0):
            seen.extend(e.revision for e in events)

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0)
    for i in range(20):
        revision = await store.create(f"k/{i}", b"")
        assert revision in seen
    follower.cancel()


async def test_compaction_forgets_the_past_and_keeps_the_present(store: Store) -> None:
    await store.create("k/a", b"1")  # 1
    await store.create("k/b", b"1")  # 2
    await store.update("k/a", b"2", 1)  # 3
    await store.delete("k/b", 2)  # 4
    await store.update("k/a", b"3", 3)  # 5
    with pytest.raises(FutureRevision):
        await store.compact(6)
    await store.compact(3)
    await store.compact(2)  # already
    assert store.compacted_revision == 3
    for late in (store.range("k/", revision=2), store.get("k/a", 2)):
        with pytest.raises(Compacted) as caught:
            await late
        assert caught.value.oldest == 3
    with pytest.raises(Compacted):
        await anext(store.watch("k/", 2))
    assert [(r.key, r.value) for r in (await store.range("k/", revision=3)).records] == [("k/a", b"2"), ("k/b", b"1")]
    assert [e.revision for e in await take(store.watch("k/", 3), 2)] == [4, 5]
    await store.compact(5)
    record = await store.get("k/a")
    assert record is not None and (record.value, record.create_revision, record.revision) == (b"3", 1, 5)
    assert await store.get("k/b") is None
    assert await store.create("k/c", b"") == 6


async def test_reopening_restores_everything(factory: Factory) -> None:
    store = factory()
    await store.open()
    await store.create("k/a", b"1")
    await store.update("k/a", b"2", 1)
    await store.create("k/b", b"1")
    await store.delete("k/b", 3)
    await store.close()
    store = factory()
    await store.open()
    assert store.current_revision == 4
    record = await store.get("k/a")
    assert record is not None and (record.value, record.create_revision, record.revision) == (b"2", 1, 2)
    assert [r.value for r in (await store.range("k/", revision=1)).records] == [b"1"]
    assert [e.revision for e in await take(store.watch("", 1), 3)] == [2, 3, 4]
    with pytest.raises(Conflict):
        await store.update("k/a", b"3", 1)
    await store.compact(4)  # forgets the delete of k/b, which was the last write
    await store.close()
    store = factory()
    await store.open()
    assert (store.current_revision, store.compacted_revision) == (4, 4)
    with pytest.raises(Compacted):
        await store.range("k/", revision=3)
    assert await store.create("k/b", b"") == 5
    await store.close()


async def test_closed_store_refuses_and_ends_watches(factory: Factory) -> None:
    store = factory()
    with pytest.raises(StoreClosed):
        await store.create("k/a", b"")
    await store.open()
    stream = store.watch("k/", 0)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    with pytest.raises(StoreClosed):
        await asyncio.wait_for(waiting, 10)
    for refused in (store.create("k/a", b""), store.update("k/a", b"", 1), store.delete("k/a", 1), store.get("k/a")):
        with pytest.raises(StoreClosed):
            await refused
    with pytest.raises(StoreClosed):
        await store.range("k/")
    with pytest.raises(StoreClosed):
        await store.compact(0)
