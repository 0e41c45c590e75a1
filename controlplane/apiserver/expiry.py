"""Events do not live for ever: one that was not written for an hour (Kubernetes' --event-ttl) is deleted.

An Event's age is counted from when this server first saw its revision, so nothing is decoded; after a restart the hour
begins again.
"""

import asyncio
import contextlib

from controlplane.store.cache import WatchCache
from controlplane.store.interface import Conflict, KeyMissing

_PREFIX = "core/events/"


class EventExpiry:
    def __init__(self, cache: WatchCache, ttl_s: float) -> None:
        self._cache = cache
        self._ttl_s = ttl_s
        self._seen: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(min(60.0, self._ttl_s))
            await self.sweep(asyncio.get_running_loop().time())

    async def sweep(self, now: float) -> int:
        """Delete what is too old at loop time `now`; returns how many that were."""
        before, self._seen = self._seen, {}
        old = []
        for cached in self._cache.list(_PREFIX)[0]:
            revision, since = before.get(cached.key, (0, now))
            if revision != cached.revision:
                since = now
            elif now - since >= self._ttl_s:
                old.append(cached)
                continue
            self._seen[cached.key] = cached.revision, since
        for cached in old:
            with contextlib.suppress(Conflict, KeyMissing):  # written again, or deleted by somebody else
                await self._cache.delete(cached.key, cached.revision)
        return len(old)
