"""One writer, many watchers: hands batches of events to whoever subscribed to a prefix of their keys.

Mechanism: watchers are kept in a dict by prefix. An event looks up the few prefixes that its key has (`""`, each part
up to a `/`, the key itself), so its cost does not depend on watchers of other prefixes. All watchers of a prefix get
the same list object, once a batch; each keeps a deque of such lists and one future to wake it. The queue is bounded
in bytes: a watcher that does not keep up is dropped (`Overflow`) rather than let memory grow.

It keeps no history: `follow` adds it for stores, the cache's window for the cache. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from controlplane.store.interface import Compacted, StoreClosed, StoreError


class Overflow(StoreError):
    """The watcher was too slow: it has missed events and is closed."""


class Sendable(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def size(self) -> int: ...


E = TypeVar("E", bound=Sendable)


class Watcher(Generic[E]):
    """A bounded queue of batches. One task reads it: `next()`, or `take()` when it waits for something else too."""

    __slots__ = ("_batches", "_bytes", "_failure", "_limit", "_on_close", "_wakeup", "prefix")

    def __init__(self, prefix: str, limit_bytes: int, on_close: Callable[[Watcher[E]], None]) -> None:
        self.prefix = prefix
        self._limit = limit_bytes
        self._on_close = on_close
        self._batches: deque[Sequence[E]] = deque()
        self._bytes = 0
        self._failure: StoreError | None = None
        self._wakeup: asyncio.Future[None] | None = None

    def offer(self, batch: Sequence[E], size: int) -> None:
        """Queue `batch` of `size` bytes (0: whatever its size). The list is shared: nobody may change it."""
        if self._failure is not None:
            return
        self._bytes += size
        if self._bytes > self._limit:
            self.fail(Overflow(f"watcher of {self.prefix!r} is {self._bytes} bytes behind"))
            return
        self._batches.append(batch)
        wakeup = self._wakeup
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    def fail(self, error: StoreError) -> None:
        """End the watch: what is queued is forgotten and the reader gets `error`."""
        if self._failure is None:
            self._failure = error
            self._batches.clear()
            self._on_close(self)
            if self._wakeup is not None and not self._wakeup.done():
                self._wakeup.set_result(None)

    def close(self) -> None:
        """Stop watching. `next()` raises StoreClosed afterwards."""
        self.fail(StoreClosed("watcher closed"))

    def take(self) -> Sequence[E]:
        """All that is queued, without waiting; may be empty. Raises Overflow or StoreClosed if the watch ended."""
        if self._failure is not None:
            raise self._failure
        batches = self._batches
        if not batches:
            return ()
        self._bytes = 0
        if len(batches) == 1:
            return batches.popleft()
        events = [event for batch in batches for event in batch]
        batches.clear()
        return events

    async def next(self, timeout_s: float | None = None) -> Sequence[E]:
        """The events since the last call, at least one; after `timeout_s` without any, none. Raises as `take`."""
        if not self._batches and self._failure is None:
            loop = asyncio.get_running_loop()
            wakeup = self._wakeup = loop.create_future()
            timer = None if timeout_s is None else loop.call_later(timeout_s, _wake, wakeup)
            try:
                await wakeup
            finally:
                self._wakeup = None
                if timer is not None:
                    timer.cancel()
        return self.take()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Broadcaster(Generic[E]):
    """Who watches what. `publish` never blocks and never fails because of a watcher."""

    def __init__(self) -> None:
        self._watchers: dict[str, dict[Watcher[E], None]] = {}

    def __len__(self) -> int:
        return sum(len(group) for group in self._watchers.values())

    def subscribe(self, prefix: str, limit_bytes: int) -> Watcher[E]:
        """A watcher of every event published from now on whose key has `prefix`."""
        watcher = Watcher(prefix, limit_bytes, self._forget)
        self._watchers.setdefault(prefix, {})[watcher] = None
        return watcher

    def _forget(self, watcher: Watcher[E]) -> None:
        group = self._watchers.get(watcher.prefix)
        if group is not None:
            group.pop(watcher, None)
            if not group:
                del self._watchers[watcher.prefix]

    def publish(self, events: Sequence[E]) -> None:
        """Hand `events` (in revision order; not changed afterwards) to the watchers of each one's prefixes."""
        watchers = self._watchers
        if len(watchers) == 1 and "" in watchers:  # a store, whose only watcher is the cache
            together = sum([event.size for event in events])
            for watcher in tuple(watchers[""]):
                watcher.offer(events, together)
            return
        batches: dict[str, tuple[list[E], list[int]]] = {}
        for event in events:
            for prefix in _prefixes(event.key):
                if prefix in watchers:
                    entry = batches.get(prefix)
                    if entry is None:
                        entry = batches[prefix] = ([], [0])
                    entry[0].append(event)
                    entry[1][0] += event.size
        for prefix, (batch, size) in batches.items():
            for watcher in tuple(watchers.get(prefix, ())):
                watcher.offer(batch, size[0])

    def close(self, error: StoreError) -> None:
        """End every watch with `error`."""
        for group in tuple(self._watchers.values()):
            for watcher in tuple(group):
                watcher.fail(error)


def _prefixes(key: str) -> tuple[str, ...]:
    above = key[: key.rfind("/") + 1]
    found = _above.get(above)
    if found is None:
        if len(_above) >= _MOST_REMEMBERED:
            _above.clear()
        found = _above[above] = ("", *(above[: at + 1] for at, char in enumerate(above) if char == "/"))
    return (key, *found)


_above: dict[str, tuple[str, ...]] = {}  # of a kind, and of a namespace: they are few, and always the same
_MOST_REMEMBERED = 10_000


History = Callable[[str, int, int], Awaitable[list[E]]]
"""(prefix, after, up_to) -> the first events with after < revision <= up_to, at least one if there is one.
Raises Compacted if `after` is forgotten."""

_FOLLOW_LIMIT_BYTES = 64 << 20


async def follow(
    live: Broadcaster[E], prefix: str, after: int, current: Callable[[], int], history: History[E]
) -> AsyncIterator[list[E]]:
    """The watch of a store that has a history: past events first, then live ones, no gap and no double. A reader
    too slow for the queue goes back to the history, so it loses nothing unless that is compacted."""
    while True:
        watcher = live.subscribe(prefix, _FOLLOW_LIMIT_BYTES)
        try:
            seam = current()  # what is published later reaches the watcher; what came before is history
            while after < seam:
                past = await history(prefix, after, seam)
                after = past[-1].revision if past else seam
                if past:
                    yield past
            while True:
                events = [event for event in await watcher.next() if event.revision > after]
                if events:
                    after = events[-1].revision
                    yield events
        except Overflow:
            continue
        finally:
            watcher.close()


__all__ = ["Broadcaster", "Compacted", "Overflow", "Watcher", "follow"]
