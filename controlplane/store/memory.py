"""The reference store: plain dicts and lists, nothing durable. Small enough to be believed by reading it.

The contract suite runs against it and against every other backend, and hypothesis compares them step by step. It is
also what tests use where a disk would only slow them down.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator

from controlplane.store.broadcaster import Broadcaster, follow
from controlplane.store.interface import (
    Compacted,
    Conflict,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyMissing,
    Page,
    Record,
    StoreClosed,
    covers,
)


class MemoryStore:
    """A `Store` whose content is kept across close and open of one object, as a disk would."""

    def __init__(self) -> None:
        self._log: list[Event] = []  # in revision order; compaction removes from it
        self._now: dict[str, Record] = {}
        self._revision = 0
        self._compacted = 0
        self._open = False
        self._live: Broadcaster[Event] = Broadcaster()

    @property
    def current_revision(self) -> int:
        return self._revision

    @property
    def compacted_revision(self) -> int:
        return self._compacted

    def trouble(self) -> str:
        return ""

    async def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False
        self._live.close(StoreClosed("store closed"))

    async def create(self, key: str, value: bytes) -> int:
        self._check_open()
        if key in self._now:
            raise KeyExists(key)
        return await self._append(key, value, self._revision + 1)

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        self._check_open()
        return await self._append(key, value, self._expect(key, expected_revision).create_revision)

    async def delete(self, key: str, expected_revision: int) -> int:
        self._check_open()
        return await self._append(key, None, self._expect(key, expected_revision).create_revision)

    def _expect(self, key: str, revision: int) -> Record:
        record = self._now.get(key)
        if record is None:
            raise KeyMissing(key)
        if record.revision != revision:
            raise Conflict(key, record.revision)
        return record

    async def _append(self, key: str, value: bytes | None, create_revision: int) -> int:
        revision = self._revision = self._revision + 1
        record = Record(key, b"" if value is None else value, create_revision, revision)
        if value is None:
            del self._now[key]
        else:
            self._now[key] = record
        event = Event(EventType.DELETE if value is None else EventType.PUT, record)
        self._log.append(event)
        self._live.publish([event])
        await asyncio.sleep(0)  # as a durable store: others run, and watchers see it, before the writer does
        return revision

    async def get(self, key: str, revision: int | None = None) -> Record | None:
        self._check_open()
        return self._at(revision)[1].get(key)

    async def range(
        self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int | None = None, count: bool = True
    ) -> Page:
        self._check_open()
        at, content = self._at(revision)
        keys = sorted(k for k in content if k.startswith(prefix) and k > start_after)
        chosen = keys[:limit] if limit else keys
        left = len(keys) - len(chosen)
        return Page([content[k] for k in chosen], at, left if count else min(left, 1))

    def _at(self, revision: int | None) -> tuple[int, dict[str, Record]]:
        if revision is None or revision == self._revision:
            return self._revision, self._now
        if revision > self._revision:
            raise FutureRevision(f"revision {revision} is after {self._revision}")
        if revision < self._compacted:
            raise Compacted(self._compacted)
        content: dict[str, Record] = {}
        for event in self._log:
            if event.revision > revision:
                break
            if event.type is EventType.PUT:
                content[event.key] = event.record
            else:
                content.pop(event.key, None)
        return revision, content

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[list[Event]]:
        self._check_open()
        if after_revision < self._compacted:
            raise Compacted(self._compacted)
        return follow(self._live, prefix, after_revision, lambda: self._revision, self._history)

    async def _history(self, prefix: str, after: int, up_to: int) -> list[Event]:
        if after < self._compacted:
            raise Compacted(self._compacted)
        first = bisect_right(self._log, after, key=lambda e: e.revision)
        return [e for e in self._log[first:] if e.revision <= up_to and covers(prefix, e.key)]

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(f"revision {revision} is after {self._revision}")
        if revision <= self._compacted:
            return
        kept = {record.revision for record in self._at(revision)[1].values()}
        self._log = [e for e in self._log if e.revision > revision or e.revision in kept]
        self._compacted = revision

    def _check_open(self) -> None:
        if not self._open:
            raise StoreClosed("store is not open")
