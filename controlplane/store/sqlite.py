"""The embedded store: one SQLite file, for a cluster with one control-plane machine.

Writes go to a thread that commits whatever has gathered, in one transaction (`sqlite_writer.py`); a write returns when
it is on the disk (WAL, synchronous=FULL). Reads of the past and of whole ranges run in a second thread on their own
connection, beside the writer: WAL lets both go on at once. The tables and queries are in `sqlite_log.py`.

One process at a time: a lock file beside the database keeps a second one out. It keeps no values in memory; that is
the cache's work. For more control-plane machines there is etcd.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from controlplane.store import sqlite_log
from controlplane.store.broadcaster import Broadcaster, follow
from controlplane.store.interface import (
    Compacted,
    Event,
    FutureRevision,
    Page,
    Record,
    StoreClosed,
    StoreError,
)
from controlplane.store.sqlite_writer import NO_REVISION, Outcome, Writer

P = ParamSpec("P")
T = TypeVar("T")

_HISTORY_EVENTS = 500


class SqliteStore:
    """A `Store` in the file `path`; its folder must exist. Beside it: `-wal`, `-shm` (SQLite's) and `.lock`."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._revision = 0
        self._compacted = 0
        self._live: Broadcaster[Event] = Broadcaster()
        self._writer: Writer | None = None
        self._failure: StoreError = StoreClosed("store is not open")
        self._last_begun = 0
        self._lock = -1
        self._reading: ThreadPoolExecutor | None = None
        self._reader: sqlite3.Connection | None = None

    @property
    def current_revision(self) -> int:
        return self._revision

    @property
    def compacted_revision(self) -> int:
        return self._compacted

    def trouble(self) -> str:
        if self._writer is None or not isinstance(self._failure, StoreClosed):
            return f"store: {self._failure}"
        begun, last, self._last_begun = self._writer.begun, self._last_begun, self._writer.begun
        if begun == last and self._writer.finished < begun:
            return "store: a commit does not end"
        return ""

    async def open(self) -> None:
        self._lock = self._take_lock()
        writer = Writer(self._path, self._committed, self._broken)
        try:
            self._revision, self._compacted = await writer.start()
        except BaseException:
            os.close(self._lock)
            raise
        self._reader = sqlite_log.connect(self._path, readonly=True)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="store reader")
        self._failure = StoreClosed("store closed")
        self._writer = writer

    def _take_lock(self) -> int:
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StoreError(f"{self._path} is in use by another process") from error
        return lock

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        await writer.stop()
        await asyncio.sleep(0)  # let the last batch's outcomes, queued on the loop by the thread, come first
        if self._reading is not None and self._reader is not None:
            await asyncio.get_running_loop().run_in_executor(self._reading, self._reader.close)
            self._reading.shutdown()
        self._live.close(self._failure)
        os.close(self._lock)

    # -- writing -------------------------------------------------------------------------------------------------

    def _committed(self, revision: int, events: list[Event], outcomes: list[Outcome]) -> None:
        """On the loop, once a batch. Watchers are served first: they must know before the writer goes on."""
        self._revision = revision
        if events:
            self._live.publish(events)
        for future, outcome in outcomes:
            if not future.done():
                if isinstance(outcome, int):
                    future.set_result(outcome)
                else:
                    future.set_exception(outcome)

    def _broken(self, error: StoreError) -> None:
        """The writer has given up: nothing can be promised any more until the store is opened again."""
        self._failure = error
        self._live.close(error)
        if self._writer is not None:
            self._writer.refuse(error)  # what was queued after the thread had looked for the last time

    async def create(self, key: str, value: bytes) -> int:
        return await self._open_writer().submit(key, value, 0)

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        return await self._open_writer().submit(key, value, expected_revision or NO_REVISION)

    async def delete(self, key: str, expected_revision: int) -> int:
        return await self._open_writer().submit(key, None, expected_revision or NO_REVISION)

    def _open_writer(self) -> Writer:
        if self._writer is None or not isinstance(self._failure, StoreClosed):
            raise self._failure
        return self._writer

    async def compact(self, revision: int) -> None:
        writer = self._open_writer()
        if revision > self._revision:
            raise FutureRevision(f"revision {revision} is after {self._revision}")
        if revision > self._compacted:
            await writer.compact(revision)
            self._compacted = max(self._compacted, revision)

    # -- reading -------------------------------------------------------------------------------------------------

    async def _read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`function(connection, ...)` in the reading thread."""
        self._open_writer()
        reader = self._reader
        assert reader is not None
        return await asyncio.get_running_loop().run_in_executor(
            self._reading, lambda: function(reader, *args, **kwargs)
        )

    async def get(self, key: str, revision: int | None = None) -> Record | None:
        return await self._read(sqlite_log.get, key, revision)

    async def range(
        self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int | None = None, count: bool = True
    ) -> Page:
        return await self._read(sqlite_log.select, prefix, start_after, limit, revision, count)

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[list[Event]]:
        self._open_writer()
        if after_revision < self._compacted:
            raise Compacted(self._compacted)
        return follow(self._live, prefix, after_revision, lambda: self._revision, self._history)

    async def _history(self, prefix: str, after: int, up_to: int) -> list[Event]:
        return await self._read(sqlite_log.history, prefix, after, up_to, _HISTORY_EVENTS)
