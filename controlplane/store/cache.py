"""The watch cache: everything the API server reads, in memory, kept up to date by one watch of the store.

    store ── watch("") ──> apply ──> sorted map of Cached ──> get, list, page
                             └─────> window of events ─────> subscribe ──> Watcher, Watcher, ...

Reads are plain function calls: no lock, no await, no copy. A write goes through the cache to the store and returns when
the store has made it durable *and* the cache contains it, so a client always reads its own writes. The window keeps
the last events so that a watch can start in the past; it is filled from the store's history at start, so that a
restart does not send every client back to a list.

What it is not: it decides nothing about objects, and it is not durable; it can be thrown away and built again.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence

from controlplane.store.broadcaster import Broadcaster, Overflow, Watcher
from controlplane.store.cached import Cached, CacheEvent
from controlplane.store.interface import (
    Compacted,
    Event,
    EventType,
    FutureRevision,
    Record,
    Store,
    StoreClosed,
    StoreError,
    covers,
    prefix_end,
    splice,
)
from controlplane.store.sortedmap import Snapshot, SortedMap

log = logging.getLogger(__name__)

__all__ = ["CacheEvent", "CacheWatcher", "Cached", "Overflow", "WatchCache"]

CacheWatcher = Watcher[CacheEvent]
Items = list[Cached]  # inside the class, `list` is its method

_LOAD_PAGE = 10_000


class WatchCache:
    """See the module. `open()` opens the store too, `close()` closes it."""

    def __init__(
        self,
        store: Store,
        *,
        window_events: int = 4_096,
        window_bytes: int = 16 << 20,
        watcher_limit_bytes: int = 16 << 20,
        snapshots: int = 32,
    ) -> None:
        """`window_*`: how much past a watch can start in. `watcher_limit_bytes`: how far a watcher may fall behind.
        `snapshots`: how many paged lists stay fast; older ones are read from the store's history."""
        self.store = store
        self._window_events = window_events
        self._window_limit = window_bytes
        self._watcher_limit = watcher_limit_bytes
        self._snapshot_limit = snapshots
        self._content: SortedMap[Cached] = SortedMap()
        self._by_key: dict[str, Cached] = {}
        self._revision = 0
        self._window: deque[CacheEvent] = deque()
        self._window_size = 0
        self._window_start = 0  # a watch can start after this revision
        self._watchers: Broadcaster[CacheEvent] = Broadcaster()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap by revision
        self._waits = 0
        self._snapshots: OrderedDict[tuple[str, int], Snapshot[Cached]] = OrderedDict()
        self._follower: asyncio.Task[None] | None = None
        self._failure = ""

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store and load it. Raises StoreError."""
        await self.store.open()
        target = self.store.current_revision
        await self._load()
        self._follower = asyncio.create_task(self._follow(), name="watch cache")
        await self.reached(target)

    def trouble(self) -> str:
        """What is wrong that only a new start would mend, or ""."""
        return self._failure or self.store.trouble()

    async def close(self) -> None:
        """End every watch with StoreClosed and close the store."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower
        self._end(StoreClosed("store closed"))
        await self.store.close()

    async def _load(self) -> None:
        """The content as it was some events ago; following the store from there fills the window by the way."""
        store = self.store
        start = max(store.compacted_revision, store.current_revision - self._window_events // 2)
        pairs: list[tuple[str, Cached]] = []
        while True:
            after = pairs[-1][0] if pairs else ""
            page = await store.range("", start_after=after, limit=_LOAD_PAGE, revision=start, count=False)
            pairs += [(record.key, _cached(record)) for record in page.records]
            if not page.remaining:
                break
        self._content = SortedMap(pairs)
        self._by_key = dict(pairs)
        self._revision = self._window_start = start

    async def _follow(self) -> None:
        try:
            async for events in self.store.watch("", self._revision):
                self._apply(events)
        except asyncio.CancelledError:
            raise
        except StoreError as error:
            log.warning("watch cache ends error=%r", error)
            self._failure = f"watch cache: {error}"
            self._end(error)
        except Exception as error:
            log.exception("watch cache ends")
            self._failure = f"watch cache: {error!r}"
            self._end(StoreError(f"watch cache failed: {error!r}"))

    def _end(self, error: StoreError) -> None:
        self._watchers.close(error)
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    # -- the store's events --------------------------------------------------------------------------------------

    def _apply(self, events: Sequence[Event]) -> None:
        batch = [self._apply_one(event) for event in events]
        self._revision = batch[-1].revision
        window = self._window
        window.extend(batch)
        self._window_size += sum(event.size for event in batch)
        while len(window) > self._window_events or self._window_size > self._window_limit:
            oldest = window.popleft()
            self._window_size -= oldest.size
            self._window_start = oldest.revision
        self._watchers.publish(batch)
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._revision:
            future = heapq.heappop(waiting)[2]
            if not future.done():
                future.set_result(None)

    def _apply_one(self, event: Event) -> CacheEvent:
        record = event.record
        key = record.key
        previous = self._by_key.get(key)
        if event.type is EventType.PUT:
            cached = self._by_key[key] = _cached(record)
            self._content.put(key, cached)
            return CacheEvent("MODIFIED" if previous is not None else "ADDED", cached, previous)
        if previous is None:
            raise StoreError(f"delete of {key} at {record.revision}, which was not there")
        del self._by_key[key]
        self._content.remove(key)
        return CacheEvent("DELETED", previous.at_revision(record.revision), previous)

    async def reached(self, revision: int) -> None:
        """Wait until the cache is as new as `revision`. Bound it with a timeout: it may never come."""
        if self._revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits += 1
        heapq.heappush(self._waiting, (revision, self._waits, future))
        await future

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """How new the cache is."""
        return self._revision

    def __len__(self) -> int:
        return len(self._by_key)

    def count(self, prefix: str) -> int:
        """How many objects there are under `prefix`."""
        return self._content.count(prefix, prefix_end(prefix))

    def get(self, key: str) -> Cached | None:
        return self._by_key.get(key)

    def list(self, prefix: str) -> tuple[Items, int]:
        """Everything under `prefix` sorted by key, and the revision it is at. Costs what it returns."""
        return self._content.range(prefix, prefix_end(prefix) if prefix else None), self._revision

    async def page(
        self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int | None = None
    ) -> tuple[Items, int, int]:
        """A part of the list as of `revision` (None: now): (objects after key `start_after`, revision, how many
        remain). Recent revisions that were paged before come from a snapshot, others from the store's history.
        Raises Compacted, FutureRevision."""
        at = self._revision if revision is None else revision
        if at > self._revision:
            raise FutureRevision(f"revision {at} is after {self._revision}")
        if at == self._revision:
            snapshot = self._content.snapshot(prefix, prefix_end(prefix) if prefix else None)
        else:
            kept = self._snapshots.get((prefix, at))
            if kept is None:
                return await self._page_of_history(prefix, start_after, limit, at)
            snapshot = kept
        items, remaining = snapshot.page(start_after, limit)
        if remaining:
            self._snapshots[prefix, at] = snapshot
            self._snapshots.move_to_end((prefix, at))
            if len(self._snapshots) > self._snapshot_limit:
                self._snapshots.popitem(last=False)
        else:
            self._snapshots.pop((prefix, at), None)
        return items, at, remaining

    async def _page_of_history(
        self, prefix: str, start_after: str, limit: int, revision: int
    ) -> tuple[Items, int, int]:
        page = await self.store.range(prefix, start_after=start_after, limit=limit, revision=revision)
        return [_cached(record) for record in page.records], page.revision, page.remaining

    async def get_at(self, key: str, revision: int) -> Cached | None:
        """The object as it was at `revision`. Raises Compacted, FutureRevision."""
        cached = self._by_key.get(key)
        if cached is not None and cached.revision <= revision <= self._revision:
            return cached
        record = await self.store.get(key, revision)
        return None if record is None else _cached(record)

    # -- writing -------------------------------------------------------------------------------------------------

    async def create(self, key: str, value: bytes) -> Cached:
        """As `Store.create`; returns the object as it was written."""
        revision = await self.store.create(key, value)
        return await self._written(key, value, revision, revision)

    async def update(self, key: str, value: bytes, expected_revision: int) -> Cached:
        """As `Store.update`; returns the object as it was written."""
        before = self._by_key.get(key)
        revision = await self.store.update(key, value, expected_revision)
        return await self._written(key, value, revision, before.create_revision if before else 0)

    async def delete(self, key: str, expected_revision: int) -> int:
        """As `Store.delete`."""
        revision = await self.store.delete(key, expected_revision)
        await self.reached(revision)
        return revision

    async def _written(self, key: str, value: bytes, revision: int, create_revision: int) -> Cached:
        await self.reached(revision)
        cached = self._by_key.get(key)
        if cached is not None and cached.revision == revision:
            return cached
        return Cached(key, splice(value, revision), revision, create_revision)  # somebody else has overwritten it

    # -- watching ------------------------------------------------------------------------------------------------

    def subscribe(
        self, prefix: str, after_revision: int | None = None, *, limit_bytes: int | None = None
    ) -> CacheWatcher:
        """A watcher of all events under `prefix` after `after_revision` (None: from now), in order. Read it with
        `next()`, which hands over batches, and `close()` it. Raises Compacted if the window has forgotten that
        revision, FutureRevision if the cache has not reached it (await `reached` first)."""
        past: list[CacheEvent] = []
        if after_revision is not None:
            if after_revision > self._revision:
                raise FutureRevision(f"revision {after_revision} is after {self._revision}")
            if after_revision < self._window_start:
                raise Compacted(self._window_start)
            for event in reversed(self._window):
                if event.revision <= after_revision:
                    break
                if covers(prefix, event.key):
                    past.append(event)
            past.reverse()
        watcher = self._watchers.subscribe(prefix, self._watcher_limit if limit_bytes is None else limit_bytes)
        if past:
            watcher.offer(past, 0)  # shared with the window, so not counted against the watcher
        return watcher

    @property
    def watchers(self) -> int:
        """How many watchers there are."""
        return len(self._watchers)


def _cached(record: Record) -> Cached:
    return Cached(record.key, splice(record.value, record.revision), record.revision, record.create_revision)
