"""A queue of keys for workers: no key twice, no key in two hands, failures come back later and later.

The semantics of client-go's workqueue: a key added while it is queued is dropped; added while it is being processed,
it is queued again when `done` is called. `add_rate_limited` waits 5 ms, 10 ms, 20 ms … up to 1,000 s an item until
`forget`. It has no workers of its own.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_BASE_SECONDS = 0.005
_MAX_SECONDS = 1000.0


class QueueClosed(Exception):
    """`shut_down` was called and nothing is left."""


class WorkQueue(Generic[K]):
    """For one event loop. Every method but `get` returns at once."""

    def __init__(self, *, base: float = _BASE_SECONDS, longest: float = _MAX_SECONDS) -> None:
        """`base`, `longest`: seconds of the first and of the longest rate-limited wait."""
        self._base, self._longest = base, longest
        self._queue: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._getters: deque[asyncio.Future[None]] = deque()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._closed = False

    def add(self, item: K) -> None:
        """Queue `item` unless it is queued already."""
        if self._closed or item in self._dirty:
            return
        self._dirty.add(item)
        if item not in self._processing:
            self._queue.append(item)
            self._wake()

    def add_after(self, item: K, seconds: float) -> None:
        """`add` after a while. Of several, the earliest counts."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(item)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(item)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[item] = loop.call_later(seconds, self._due, item)

    def add_rate_limited(self, item: K) -> None:
        """`add_after`, the longer the more often this was called since `forget`."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        self.add_after(item, min(self._base * 2.0 ** min(failures, 60), self._longest))

    def forget(self, item: K) -> None:
        """`item` succeeded: the next `add_rate_limited` starts from the shortest wait."""
        self._failures.pop(item, None)

    def num_requeues(self, item: K) -> int:
        """How often `item` was rate limited since `forget`."""
        return self._failures.get(item, 0)

    async def get(self) -> K:
        """The next item, which is then being processed until `done`. Raises QueueClosed."""
        while not self._queue:
            if self._closed:
                raise QueueClosed
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled() and self._queue:
                    self._wake()  # somebody else must take what this one was woken for
                raise
        item = self._queue.popleft()
        self._processing.add(item)
        self._dirty.discard(item)
        return item

    def done(self, item: K) -> None:
        """Processing of `item` ended; it is queued again if it was added meanwhile."""
        self._processing.discard(item)
        if item in self._dirty:
            self._queue.append(item)
            self._wake()

    def shut_down(self) -> None:
        """Take nothing more; `get` drains what is there, then raises QueueClosed."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._getters:
            self._wake()

    def __len__(self) -> int:
        """Items that wait for a worker now."""
        return len(self._queue)

    def _due(self, item: K) -> None:
        self._timers.pop(item, None)
        self.add(item)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
