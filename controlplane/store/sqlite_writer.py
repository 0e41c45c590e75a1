"""The one thread that writes, and its group commit.

    event loop ── Write ──> queue ── everything queued ──> check each ──> one INSERT, one fsync ──> one call back

Whatever has gathered while the last commit was on its way to the disk shares the next one: alone, a write costs one
fsync; sixty-four at once cost one together. Preconditions are checked here, in queue order, against the newest revision
of each key (a dict, so no query), and a write that fails its own leaves the others of its batch alone. The event loop
is woken once a batch, with events and outcomes.

Housekeeping (sweeping after a compaction) runs in the same thread in small steps, when no write waits, or after
some batches if writes never stop. It is not a general job queue.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from controlplane.store import sqlite_log
from controlplane.store.interface import (
    Conflict,
    Event,
    EventType,
    KeyExists,
    KeyMissing,
    Record,
    StoreClosed,
    StoreError,
    StoreFull,
)

log = logging.getLogger(__name__)

_MAX_BATCH = 512
_MAX_BATCH_BYTES = 8 << 20
_BATCHES_A_CHORE = 8
_FULL_BELOW_BYTES = 1 << 20

NO_REVISION = -1
"""An expected revision that no key is at."""

Outcome = tuple["asyncio.Future[int]", int | StoreError]
Committed = Callable[[int, list[Event], list[Outcome]], None]


class Write:
    """One write that somebody awaits. `value` None deletes; `expected` 0 creates."""

    __slots__ = ("expected", "future", "key", "value")

    def __init__(self, key: str, value: bytes | None, expected: int, future: asyncio.Future[int]) -> None:
        self.key = key
        self.value = value
        self.expected = expected
        self.future = future


class Writer:
    """Owns the writing connection. `start` and `stop` are awaited; `submit` and `compact` return at once."""

    def __init__(self, path: Path, committed: Committed, failed: Callable[[StoreError], None]) -> None:
        """`committed(revision, events, outcomes)` and `failed(error)` are called on the event loop."""
        self._path = path
        self._committed = committed
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Write | _Compact | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store writer", daemon=True)
        self._ready: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._heads: dict[str, tuple[int, int]] = {}
        self._revision = 0
        self._chores: deque[_Compact] = deque()
        self.begun = self.finished = 0
        """Batches. Written by the thread, read by whoever wants to know whether it moves."""

    async def start(self) -> tuple[int, int]:
        """(current, compacted) revision of what was found. Raises StoreError."""
        self._thread.start()
        return await self._ready

    async def stop(self) -> None:
        """Commit what is queued and close the database."""
        self._queue.put(None)
        await self._stopped
        self._thread.join()

    def submit(self, key: str, value: bytes | None, expected: int) -> asyncio.Future[int]:
        """The revision of the write, once it is durable; or its error."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._queue.put(Write(key, value, expected, future))
        return future

    def compact(self, revision: int) -> asyncio.Future[None]:
        """Done when what `revision` lets go of is gone."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Compact(revision, future))
        return future

    # -- in the thread -------------------------------------------------------------------------------------------

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            log.debug("event loop is closed")

    def _run(self) -> None:
        try:
            db = sqlite_log.connect(self._path)
        except (sqlite3.Error, StoreError, OSError) as error:
            refusal = error if isinstance(error, StoreError) else StoreError(f"cannot open {self._path}: {error}")
            self._call(_settle, self._ready, refusal)
            return
        failure: StoreError | None = None
        try:
            self._revision, compacted, swept = sqlite_log.progress(db)
            self._heads = sqlite_log.heads(db)
            if swept < compacted:
                self._chores.append(_Compact(compacted, None))
            self._call(_settle, self._ready, (self._revision, compacted))
            self._serve(db)
        except Exception as error:
            log.exception("store writer ends")
            failure = StoreError(f"writing to {self._path} failed: {error}")
            failure.__cause__ = error
            self._call(_settle, self._ready, failure)
            self._call(self._failed, failure)
        finally:
            db.close()
            self.refuse(failure or StoreClosed("store closed"))
            self._call(_settle, self._stopped, None)

    def _serve(self, db: sqlite3.Connection) -> None:
        """Until told to stop."""
        since_chore = 0
        while True:
            if self._chores and (self._queue.empty() or since_chore >= _BATCHES_A_CHORE):
                since_chore = 0
                if self._chores[0].step(db, self._call):
                    self._chores.popleft()
                continue
            batch, stop = self._next_batch()
            if batch:
                self.begun += 1
                self._commit(db, batch)
                self.finished += 1
                since_chore += 1
            if stop:
                return

    def _next_batch(self) -> tuple[list[Write], bool]:
        """Everything queued (at least one thing, waiting for it), and whether to stop after that."""
        batch: list[Write] = []
        size = 0
        item = self._queue.get()
        while True:
            if item is None:
                return batch, True
            if isinstance(item, Write):
                batch.append(item)
                size += len(item.value or b"")
                if len(batch) >= _MAX_BATCH or size >= _MAX_BATCH_BYTES:
                    return batch, False
            else:
                self._chores.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False

    def _commit(self, db: sqlite3.Connection, batch: list[Write]) -> None:
        heads = self._heads
        staged: dict[str, tuple[int, int] | None] = {}
        revision = self._revision
        events: list[Event] = []
        outcomes: list[Outcome] = []
        parameters: list[Any] = []
        for write in batch:
            key, value, expected = write.key, write.value, write.expected
            head = staged[key] if key in staged else heads.get(key)
            if head is None:
                if expected:
                    outcomes.append((write.future, KeyMissing(key)))
                    continue
                created = revision + 1
            elif head[0] != expected:
                outcomes.append((write.future, Conflict(key, head[0]) if expected else KeyExists(key)))
                continue
            else:
                created = head[1]
            revision += 1
            if value is None:
                staged[key] = None
                parameters += (revision, key, created, 1, b"")
                events.append(Event(EventType.DELETE, Record(key, b"", created, revision)))
            else:
                staged[key] = (revision, created)
                parameters += (revision, key, created, 0, value)
                events.append(Event(EventType.PUT, Record(key, value, created, revision)))
            outcomes.append((write.future, revision))
        if events:
            try:
                sqlite_log.insert(db, parameters)
            except sqlite3.Error as error:
                if not self._is_full(error):
                    self._drop_batch(batch, StoreError(f"write failed: {error}"))
                    raise
                log.warning("store is full writes_refused=%d error=%r", len(batch), error)
                self._drop_batch(batch, StoreFull(f"no space for {self._path}: {error}"))
                return
            for key, head in staged.items():
                if head is None:
                    heads.pop(key, None)
                else:
                    heads[key] = head
            self._revision = revision
        self._call(self._committed, revision, events, outcomes)

    def _is_full(self, error: sqlite3.Error) -> bool:
        """Whether the disk is full: said by SQLite, or (growing its shared memory) seen as an I/O error."""
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            return True
        return code & 0xFF == sqlite3.SQLITE_IOERR and shutil.disk_usage(self._path.parent).free < _FULL_BELOW_BYTES

    def _drop_batch(self, batch: list[Write], error: StoreError) -> None:
        """Nothing of the batch happened, so also who failed a precondition (against the batch) gets `error`."""
        self._call(self._committed, self._revision, [], [(write.future, error) for write in batch])

    def refuse(self, error: StoreError) -> None:
        """Answer everything that is still queued with `error`. From the thread at its end, or after that."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, Write):
                self._drop_batch([item], error)
            elif item is not None:
                self._chores.append(item)
        for chore in self._chores:
            if chore.future is not None:
                self._call(_settle, chore.future, error)
        self._chores.clear()


class _Compact:
    """A compaction in progress, one step at a time."""

    def __init__(self, revision: int, future: asyncio.Future[None] | None) -> None:
        self.revision = revision
        self.future = future
        self._steps: Iterator[None] | None = None

    def step(self, db: sqlite3.Connection, call: Callable[..., None]) -> bool:
        """Do a little; whether that was all."""
        try:
            if self._steps is None:
                if self.revision > sqlite_log.progress(db)[1]:
                    sqlite_log.mark_compacted(db, self.revision)
                self._steps = sqlite_log.sweep(db)
                return False
            next(self._steps)
            return False
        except StopIteration:
            result: StoreError | None = None
        except sqlite3.Error as error:
            log.warning("compaction stops revision=%d error=%r", self.revision, error)
            result = StoreFull(str(error)) if error.sqlite_errorcode == sqlite3.SQLITE_FULL else StoreError(str(error))
        if self.future is not None:
            call(_settle, self.future, result)
        return True


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
