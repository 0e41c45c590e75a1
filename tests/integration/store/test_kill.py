"""kill -9 in the middle of a storm of writes: every acknowledged write is there afterwards, none is half there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from controlplane.store.interface import splice
from controlplane.store.sqlite import SqliteStore

WRITERS = 200

# Each writer creates keys, updates some and deletes some, and says on standard output what was acknowledged.
CHILD = """
import asyncio, sys
from controlplane.store.cache import WatchCache
from controlplane.store.sqlite import SqliteStore

def value(name, n):
    return b'{"metadata":{"name":"%s"},"n":%d,"fill":"%s"}' % (name.encode(), n, b"x" * (n % 3000))

async def main():
    cache = WatchCache(SqliteStore(sys.argv[1]))
    await cache.open()
    say = sys.stdout.write

    async def writer(w):
        n = 0
        while True:
            key = f"k/{w}/{n}"
            c = await cache.create(key, value(key, n))
            say(f"{key} {c.revision} {n}\\n")
            if n % 3:
                c = await cache.update(key, value(key, n + 1), c.revision)
                say(f"{key} {c.revision} {n + 1}\\n")
            if n % 7 == 0:
                say(f"{key} {await cache.delete(key, c.revision)} -1\\n")
            sys.stdout.flush()
            n += 1

    await asyncio.gather(*(writer(w) for w in range(int(sys.argv[2]))))

asyncio.run(main())
"""


def write_and_be_killed(path: Path, after_lines: int) -> list[str]:
    """What the child said before it died."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", CHILD.replace('f"k/{w}', f'f"k{after_lines}/{{w}}'), str(path), str(WRITERS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        told: list[str] = []
        for line in child.stdout:
            told.append(line)
            if len(told) == after_lines:
                child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    assert len(told) >= after_lines
    return told


async def test_every_acknowledged_write_survives(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: dict[str, tuple[int, int]] = {}
    for lines in (3000, 6000):  # twice: the second life starts from what the first one left
        for line in write_and_be_killed(path, lines):
            if not line.endswith("\n"):
                continue  # the kill cut the child's sentence, not the store's
            key, revision, number = line.split()
            if acknowledged.get(key, (0, 0))[0] < int(revision):
                acknowledged[key] = (int(revision), int(number))

    store = SqliteStore(path)
    await store.open()
    there = {record.key: record for record in (await store.range("")).records}
    assert store.current_revision >= max(revision for revision, _ in acknowledged.values())
    for key, (revision, number) in acknowledged.items():
        record = there.get(key)
        if record is None:
            # Deleted: either that was acknowledged, or the kill came between the delete and its acknowledgement.
            deleted = [e for e in await store._history(key, revision - 1, store.current_revision) if not e.record.value]
            assert number == -1 or deleted, key
            continue
        assert record.revision >= revision
        if record.revision == revision:
            assert f'"n":{number},'.encode() in record.value
        assert record.value.endswith(b'"}') and splice(record.value, 1)
    await store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
