"""A file system that really fills up: a small tmpfs in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import asyncio, os, sys
from controlplane.store.interface import StoreFull
from controlplane.store.sqlite import SqliteStore

async def main(folder):
    store = SqliteStore(folder + "/store.db")
    await store.open()
    ballast = folder + "/ballast"
    with open(ballast, "wb") as file:
        file.write(b"x" * 3_000_000)
    kept, refused = {}, 0

    async def write(n):
        nonlocal refused
        try:
            kept[f"k/{n}"] = await store.create(f"k/{n}", b"v" * 3000)
        except StoreFull:
            refused += 1

    for n in range(0, 3000, 20):
        await asyncio.gather(*(write(n + i) for i in range(20)))
        if refused > 200:
            break
    assert kept and refused, (len(kept), refused)
    os.unlink(ballast)
    after = refused
    for n in range(5000, 5020):
        await write(n)
    assert refused == after, "still full although there is space"
    await store.close()
    await store.open()
    there = {r.key: r.revision for r in (await store.range("")).records}
    assert there == kept, (len(there), len(kept))
    await store.close()
    print("ok", len(kept), refused)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.root
def test_store_on_a_full_tmpfs(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=8m wherry-test "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", tmp_path, sys.executable, CHILD],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("ok"), done.stderr
