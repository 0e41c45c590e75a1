"""Forgets the past, bounded by time and by size: how long `get at a past revision` and old watches go back.

Every few minutes it notes which revision it is now, and compacts to the newest note that is older than the retention.
The notes are kept in the store under one key, so that a restart does not start counting again; with several API
servers on one store it does not matter which of them writes. A store that has grown over its limit forgets the older
half of what it would keep, and again at the next round if that was not enough. How the bytes are freed is the store's
business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from controlplane import clock
from controlplane.store.interface import Conflict, KeyExists, KeyMissing, Record, Store, StoreClosed, StoreError

log = logging.getLogger(__name__)

KEY = "wherry/compaction"

Mark = tuple[float, int]
"""(seconds since the epoch, the revision that was current then)"""


class _Name(msgspec.Struct):
    name: str = "compaction"


class _Notes(msgspec.Struct):
    """The value under KEY; the metadata is there because the cache splices into every value's."""

    metadata: _Name
    marks: list[Mark]


def plan(
    marks: list[Mark], now: float, current: int, retention_s: float, *, too_large: bool = False
) -> tuple[int, list[Mark]]:
    """(the revision to compact to, 0 for none; the marks to keep, with one for now). `too_large`: keep half of it."""
    old = [mark for mark in marks if mark[0] <= now - retention_s]
    kept = [mark for mark in marks if now - retention_s < mark[0] <= now]  # the rest: the clock was set back
    if too_large and kept:
        half = (len(kept) + 1) // 2
        old, kept = kept[:half], kept[half:]
    return max((revision for _, revision in old), default=0), [*kept, (now, current)]


class Compactor:
    """Run `run()` as a task beside the server."""

    def __init__(
        self, store: Store, retention_s: float = 86_400, interval_s: float = 300,
        *, size: Callable[[], int] = lambda: 0, limit_bytes: int = 0,
    ) -> None:  # fmt: skip
        """`size`: bytes that the store takes now; over `limit_bytes` (0: no limit) the past is made shorter."""
        self._store = store
        self._size = size
        self._limit = limit_bytes
        self._retention_s = retention_s
        self._interval_s = interval_s

    async def run(self) -> None:
        """Until cancelled or the store is closed."""
        while True:
            try:
                await self.once()
            except StoreClosed:
                return
            except StoreError as error:
                log.warning("compaction failed error=%r", error)
            await asyncio.sleep(self._interval_s)

    async def once(self) -> int:
        """One round; the revision compacted to, 0 if it was not time yet. Raises StoreError."""
        store = self._store
        record = await store.get(KEY)
        marks = msgspec.json.decode(record.value, type=_Notes).marks if record is not None else []
        too_large = bool(self._limit) and self._size() > self._limit
        revision, kept = plan(
            marks, clock.wall_time(), store.current_revision + 1, self._retention_s, too_large=too_large
        )
        idle = bool(marks) and marks[-1][1] == store.current_revision  # nothing but our own note was written since
        if not idle:
            await self._note(record, kept)
        if revision > store.compacted_revision:
            await store.compact(revision)
            log.info("compacted revision=%d current=%d too_large=%s", revision, store.current_revision, too_large)
        return revision

    async def _note(self, record: Record | None, marks: list[Mark]) -> None:
        value = msgspec.json.encode(_Notes(_Name(), marks))
        with contextlib.suppress(Conflict, KeyExists, KeyMissing):  # another server's turn
            if record is None:
                await self._store.create(KEY, value)
            else:
                await self._store.update(KEY, value, record.revision)
