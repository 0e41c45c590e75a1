"""What only the SQLite store does: group commit, one process a file, shrinking, no space."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.store import sqlite_log, sqlite_writer
from controlplane.store.cache import WatchCache
from controlplane.store.interface import KeyExists, StoreError, StoreFull
from controlplane.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db")
    await opened.open()
    yield opened
    await opened.close()


async def test_writes_that_gather_share_a_commit(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    insert = sqlite_log.insert

    def counted(db: sqlite3.Connection, parameters: list[Any]) -> None:
        rows.append(len(parameters) // sqlite_log.COLUMNS)
        insert(db, parameters)

    monkeypatch.setattr(sqlite_log, "insert", counted)
    results = await asyncio.gather(
        *(store.create(f"k/{i % 390}", b"") for i in range(400)), return_exceptions=True
    )
    assert sum(isinstance(r, KeyExists) for r in results) == 10
    assert sorted(r for r in results if isinstance(r, int)) == list(range(1, 391))
    assert sum(rows) == 390 and len(rows) < 40
    assert len((await store.range("k/")).records) == 390


async def test_second_process_is_kept_out(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in use"):
        await SqliteStore(tmp_path / "store.db").open()


async def test_unusable_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open"):
        await SqliteStore(tmp_path / "missing" / "store.db").open()
    path = tmp_path / "store.db"
    path.write_bytes(b"something else " * 1000)
    with pytest.raises(StoreError, match="not a database"):
        await SqliteStore(path).open()
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="format 99"):
        await SqliteStore(path).open()


async def test_compaction_lets_writes_pass_and_shrinks_the_file(store: SqliteStore, tmp_path: Path) -> None:
    value = b"x" * 3000
    revisions = {}
    for n in range(20):
        done = await asyncio.gather(
            *(
                store.update(f"k/{i}", value, revisions[i]) if n else store.create(f"k/{i}", value)
                for i in range(300)
            )
        )
        revisions = dict(enumerate(done))
    target = store.current_revision
    compacting = asyncio.ensure_future(store.compact(target))
    during = 0
    while not compacting.done():
        await store.create(f"during/{during}", b"")
        during += 1
    await compacting
    assert during > 5  # the writes went on between the steps
    db = sqlite3.connect(tmp_path / "store.db")
    assert db.execute("SELECT count(*) FROM log").fetchone()[0] == 300 + during
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.close()
    assert pages < 300 + sqlite_log._KEPT_FREE_PAGES + 200
    assert len((await store.range("k/", revision=target)).records) == 300


async def test_interrupted_sweep_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    revision = await store.create("k/a", b"")
    for _ in range(20):
        revision = await store.update("k/a", b"", revision)
    await store.close()
    db = sqlite3.connect(path)  # as if killed right after the mark
    db.execute("UPDATE progress SET revision = 21 WHERE name = 'compacted'")
    db.commit()
    db.close()
    await store.open()
    await store.create("k/b", b"")
    await store.compact(22)
    await store.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT revision FROM log ORDER BY 1").fetchall() == [(21,), (22,)]
    db.close()


async def test_full_disk_refuses_loses_nothing_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite_log.connect
    connections: list[sqlite3.Connection] = []

    def limited(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
        db = connect(path, readonly=readonly)
        if not readonly:
            db.execute("PRAGMA max_page_count = 100")
            connections.append(db)
        return db

    monkeypatch.setattr(sqlite_writer.sqlite_log, "connect", limited)
    cache = WatchCache(SqliteStore(tmp_path / "store.db"))
    await cache.open()
    value = b'{"metadata":{"name":"a"},"x":"' + b"x" * 2000 + b'"}'
    acknowledged: dict[str, int] = {}
    refused = 0
    for n in range(200):
        try:
            acknowledged[f"k/{n}"] = (await cache.create(f"k/{n}", value)).revision
        except StoreFull:
            refused += 1
    assert 10 < len(acknowledged) < 100 and refused
    assert {c.key: c.revision for c in cache.list("k/")[0]} == acknowledged
    assert cache.revision == len(acknowledged)  # a refused write takes no revision
    connections[0].execute("PRAGMA max_page_count = 100000")
    acknowledged["k/after"] = (await cache.create("k/after", value)).revision
    await cache.close()
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    assert {r.key: r.revision for r in (await store.range("k/")).records} == acknowledged
    await store.close()


async def test_failed_disk_ends_the_store_and_tells_everybody(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create("k/a", b"")

    def broken(db: sqlite3.Connection, parameters: list[Any]) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite_log, "insert", broken)
    stream = store.watch("k/", 1)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    results = await asyncio.gather(*(store.create(f"k/{i}", b"") for i in range(5)), return_exceptions=True)
    assert all(isinstance(r, StoreError) for r in results)
    with pytest.raises(StoreError, match="failed"):
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(StoreError, match="failed"):
        await store.create("k/b", b"")


async def test_a_commit_that_does_not_end_is_trouble_until_it_ends(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    insert = sqlite_log.insert

    def stuck(db: sqlite3.Connection, parameters: list[Any]) -> None:
        begun.set()
        assert may_end.wait(10)
        insert(db, parameters)

    monkeypatch.setattr(sqlite_log, "insert", stuck)
    assert store.trouble() == ""
    writing = asyncio.create_task(store.create("a", b"1"))
    assert await asyncio.to_thread(begun.wait, 10)
    assert store.trouble() == ""  # it has only begun
    assert store.trouble() == "store: a commit does not end"
    may_end.set()
    await writing
    async with asyncio.timeout(10):
        while store.trouble():  # noqa: ASYNC110 - the thread counts after it has answered
            await asyncio.sleep(0.001)


async def test_a_store_that_gave_up_is_trouble_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = WatchCache(SqliteStore(tmp_path / "store.db"))
    await cache.open()
    assert cache.trouble() == ""

    def failing(db: sqlite3.Connection, parameters: list[Any]) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite_log, "insert", failing)
    with pytest.raises(StoreError):
        await cache.create("a", b"1")
    async with asyncio.timeout(10):
        while "disk I/O error" not in cache.trouble():  # noqa: ASYNC110 - a thread ends
            await asyncio.sleep(0.001)
    await cache.close()
