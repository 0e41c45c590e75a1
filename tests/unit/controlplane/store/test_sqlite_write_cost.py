"""What a write costs SQLite, in instructions of its virtual machine: the same with many rows as with few."""

import sqlite3
from pathlib import Path

from controlplane.store import sqlite_log


def _steps(db: sqlite3.Connection, revision: int) -> int:
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(step, 1)
    sqlite_log.insert(db, [revision, f"core/pods/default/p-{revision * 7919 % 100_003}", revision, 0, b"{}"])
    db.set_progress_handler(None, 1)
    return steps


def test_rows_do_not_make_an_insert_dearer(tmp_path: Path) -> None:
    db = sqlite_log.connect(tmp_path / "wherry.db")
    try:
        few = [_steps(db, revision) for revision in range(1, 20)]
        parameters = [
            value
            for revision in range(20, 20_000)
            for value in (revision, f"core/pods/default/p-{revision * 7919 % 100_003}", revision, 0, b"{}")
        ]
        sqlite_log.insert(db, parameters)
        many = [_steps(db, revision) for revision in range(20_000, 20_020)]
        assert max(few) > 0
        assert max(many) <= 1.2 * max(few)
    finally:
        db.close()
