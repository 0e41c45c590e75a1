"""The SQL of the embedded store: one append-only table, `log`, whose row number is the revision.

    log(revision, key, create_revision, deleted, value)      log_by_key(key, revision, deleted, create_revision)

The state at revision R is, for each key, its last row up to R unless that is a delete; the index answers that without
touching values. Nothing is ever updated in place; compaction deletes rows that a later row up to the compacted
revision has replaced, a few hundred at a time, and returns free pages to the file system.

Plain blocking functions over a connection: who calls them on which thread is `sqlite_writer.py`'s and `sqlite.py`'s
business.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlplane.store.interface import (
    Compacted,
    Event,
    EventType,
    FutureRevision,
    Page,
    Record,
    StoreError,
    prefix_end,
)

_FORMAT = 1  # PRAGMA user_version; a newer program may raise it and migrate

_SCHEMA = """
CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    create_revision INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX log_by_key ON log (key, revision, deleted, create_revision);
CREATE TABLE progress (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO progress VALUES ('compacted', 0), ('swept', 0);
"""

COLUMNS = 5
MAX_ROWS = 64
"""Rows an INSERT statement has at most. Each number of rows is a statement of its own, prepared once and kept."""

_INSERTS = ["", *("INSERT INTO log VALUES " + ",".join(["(?,?,?,?,?)"] * n) for n in range(1, MAX_ROWS + 1))]

_SWEEP_ROWS = 500
_KEPT_FREE_PAGES = 1024
_VACUUM_PAGES = 64


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, to be used by one thread at a time. The writer's makes the database, too.

    Raises sqlite3.Error, StoreError if the file is not ours."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=MAX_ROWS + 32)
    try:
        if readonly:
            db.execute("PRAGMA query_only = 1")
            return db
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only has an effect before the first table
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = FULL")  # in WAL mode: fsync the log at each commit, before it is acknowledged
        db.execute("PRAGMA journal_size_limit = 67108864")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;")
        elif version != _FORMAT:
            raise StoreError(f"{path} has format {version}; this version of Wherry reads {_FORMAT}")
    except BaseException:
        db.close()
        raise
    return db


def insert(db: sqlite3.Connection, parameters: list[Any]) -> None:
    """Append rows, `COLUMNS` parameters each, durably and all or none.

    One statement is one transaction and one release of Python's global lock: with a busy event loop, every time that
    this thread takes the lock again may cost milliseconds, so rows do not get statements of their own."""
    rows = len(parameters) // COLUMNS
    if rows <= MAX_ROWS:
        db.execute(_INSERTS[rows], parameters)
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        step = MAX_ROWS * COLUMNS
        for at in range(0, len(parameters), step):
            part = parameters[at : at + step]
            db.execute(_INSERTS[len(part) // COLUMNS], part)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def progress(db: sqlite3.Connection) -> tuple[int, int, int]:
    """(current, compacted, swept) revision. A compaction may have deleted the last row: current is at least that."""
    compacted, swept = (
        db.execute("SELECT revision FROM progress WHERE name = ?", (name,)).fetchone()[0]
        for name in ("compacted", "swept")
    )
    newest = db.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
    return max(newest, compacted), compacted, swept


def heads(db: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """For each key that is there: (revision, create_revision). Reads the index only."""
    rows = db.execute("SELECT key, max(revision), create_revision, deleted FROM log INDEXED BY log_by_key GROUP BY key")
    return {key: (revision, created) for key, revision, created, deleted in rows if not deleted}


def _readable(db: sqlite3.Connection, revision: int | None) -> int:
    current, compacted, _ = progress(db)
    if revision is None:
        return current
    if revision > current:
        raise FutureRevision(f"revision {revision} is after {current}")
    if revision < compacted:
        raise Compacted(compacted)
    return revision


_STATE = """(
    SELECT key, max(revision) AS last, deleted FROM log INDEXED BY log_by_key
    WHERE key > ? AND key >= ? AND key < ? AND revision <= ? GROUP BY key
)"""
_RANGE = (
    f"SELECT log.key, log.value, log.create_revision, log.revision FROM {_STATE} AS state "
    "CROSS JOIN log ON log.revision = state.last WHERE NOT state.deleted LIMIT ?"
)
_COUNT = f"SELECT count(*) FROM {_STATE} WHERE NOT deleted"
_LAST = "\U0010ffff\U0010ffff"


def get(db: sqlite3.Connection, key: str, revision: int | None) -> Record | None:
    """As `Store.get`."""
    with _snapshot(db):
        row = db.execute(
            "SELECT key, value, create_revision, revision, deleted FROM log WHERE key = ? AND revision <= ? "
            "ORDER BY revision DESC LIMIT 1",
            (key, _readable(db, revision)),
        ).fetchone()
    return None if row is None or row[4] else Record(row[0], row[1], row[2], row[3])


def select(
    db: sqlite3.Connection, prefix: str, start_after: str, limit: int, revision: int | None, count: bool = True
) -> Page:
    """As `Store.range`."""
    with _snapshot(db):
        at = _readable(db, revision)
        bounds = (prefix, prefix_end(prefix) if prefix else _LAST, at)
        rows = db.execute(_RANGE, (start_after, *bounds, limit + 1 if limit else -1)).fetchall()
        remaining = 0
        if limit and len(rows) > limit:
            rows.pop()
            remaining = db.execute(_COUNT, (rows[-1][0], *bounds)).fetchone()[0] if count else 1
    return Page([Record(*row) for row in rows], at, remaining)


def history(db: sqlite3.Connection, prefix: str, after: int, up_to: int, limit: int) -> list[Event]:
    """The first `limit` events under `prefix` with after < revision <= up_to. Raises Compacted."""
    if not prefix:
        first, end = "", _LAST
    elif prefix.endswith("/"):
        first, end = prefix, prefix_end(prefix)
    else:
        first, end = prefix, prefix + "\0"
    with _snapshot(db):
        _readable(db, after)
        rows = db.execute(
            "SELECT key, value, create_revision, revision, deleted FROM log "
            "WHERE revision > ? AND revision <= ? AND +key >= ? AND +key < ? ORDER BY revision LIMIT ?",
            (after, up_to, first, end, limit),
        ).fetchall()
    return [Event(EventType.DELETE if row[4] else EventType.PUT, Record(*row[:4])) for row in rows]


class _snapshot:
    """A read transaction: every statement inside sees the same commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, *error: object) -> None:
        self._db.execute("COMMIT")


def mark_compacted(db: sqlite3.Connection, revision: int) -> None:
    """From now on nothing before `revision` can be read. Durable."""
    db.execute("UPDATE progress SET revision = ? WHERE name = 'compacted'", (revision,))


def sweep(db: sqlite3.Connection) -> Iterator[None]:
    """Delete what the compacted revision allows to delete, a little at each step, and shrink the file. Takes up again
    where it was interrupted.

    What is superfluous is found from its successor: for each row up to the compacted revision, the earlier rows of
    its key, and itself if it is a delete."""
    _, compacted, swept = progress(db)
    while swept < compacted:
        upto = min(swept + _SWEEP_ROWS, compacted)
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(
                "DELETE FROM log WHERE revision IN (SELECT old.revision FROM log AS new CROSS JOIN log AS old "
                "ON old.key = new.key AND old.revision < new.revision WHERE new.revision > ? AND new.revision <= ?)",
                (swept, upto),
            )
            db.execute("DELETE FROM log WHERE revision > ? AND revision <= ? AND deleted", (swept, upto))
            db.execute("UPDATE progress SET revision = ? WHERE name = 'swept'", (upto,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        swept = upto
        yield
    while db.execute("PRAGMA freelist_count").fetchone()[0] > _KEPT_FREE_PAGES:
        db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        yield
