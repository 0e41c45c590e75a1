"""The audit log's file."""

from __future__ import annotations

import asyncio
import json
import os
import stat

from controlplane.apiserver.audit import sink as module
from controlplane.apiserver.audit.sink import Sink


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_event_is_a_line_for_nobody_else_to_read(tmp_path) -> None:
    path = tmp_path / "logs" / "audit.log"
    sink = Sink(str(path))
    for n in range(3):
        sink.tell({"n": n, "text": "two\nlines"})
    await sink.close()
    sink.tell({"n": 3})
    await sink.close()
    assert [e["n"] for e in lines(path)] == [0, 1, 2, 3]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


async def test_it_is_rotated_and_pruned(tmp_path) -> None:
    path = tmp_path / "audit.log"
    sink = Sink(str(path), max_bytes=100, max_backups=2)
    for n in range(6):
        sink.tell({"n": n, "pad": "x" * 60})
        await sink.flush()
    old = sorted(tmp_path.glob("audit-*.log"))
    assert lines(path)[0]["n"] == 5 and [lines(p)[0]["n"] for p in old] == [3, 4]
    os.utime(old[0], (0, 0))
    aged = Sink(str(path), max_bytes=100, max_age_days=1)
    aged.tell({"n": 6, "pad": "x" * 60})
    await aged.flush()
    assert not old[0].exists() and old[1].exists()


async def test_a_disk_that_takes_nothing_loses_nothing_at_once(tmp_path, caplog) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    path = blocked / "audit.log"
    sink = Sink(str(path))
    sink.tell({"n": 0})
    await sink.flush()
    assert "audit log not written" in caplog.text
    blocked.unlink()
    sink.tell({"n": 1})
    await sink.flush()
    assert [e["n"] for e in lines(path)] == [0, 1]


async def test_there_is_an_end_to_what_is_kept(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    sink = Sink(str(tmp_path / "audit.log"))
    for n in range(8):
        sink.tell({"n": n})
    await sink.flush()
    assert len(lines(tmp_path / "audit.log")) == 5 and "audit events dropped number=3" in caplog.text


async def test_it_writes_by_itself(tmp_path) -> None:
    path = tmp_path / "audit.log"
    sink = Sink(str(path))
    task = asyncio.create_task(sink.run())
    sink.tell({"n": 0})
    async with asyncio.timeout(5):
        while not path.exists() or not path.stat().st_size:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.005)
    task.cancel()
    assert lines(path) == [{"n": 0}]
