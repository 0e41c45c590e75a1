"""The audit log's file: JSON lines, 0600, written in batches by a thread, rotated by size and pruned by age and number.

An event is told when its request has been answered and is on disk within `BATCH_S`; `close` writes the rest. When the
disk takes nothing, requests go on, events are dropped from `MOST_WAITING` on, and the log says how many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from controlplane import clock

log = logging.getLogger(__name__)

BATCH_S = 0.2
MOST_WAITING = 100_000
_DAY_S = 86_400.0


class Sink:
    """`path`: "-" is standard output. `max_bytes`, `max_backups`, `max_age_days`: 0 for no limit."""

    def __init__(self, path: str, *, max_bytes: int = 100 << 20, max_backups: int = 0, max_age_days: int = 0) -> None:
        self._path = path
        self._max_bytes, self._max_backups, self._max_age_days = max_bytes, max_backups, max_age_days
        self._waiting: list[dict[str, Any]] = []
        self._dropped = 0
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    def tell(self, event: dict[str, Any]) -> None:
        """Note an event. Returns at once."""
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Write what is told, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await asyncio.sleep(BATCH_S)

    async def flush(self) -> None:
        """Write what is waiting. A failure is logged, and tried again with the next batch."""
        async with self._writing:
            batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                log.error("audit log not written path=%s events=%d error=%s", self._path, len(batch), error)
                self._waiting = [*batch, *self._waiting][:MOST_WAITING]
                return
            if self._dropped:
                log.error("audit events dropped number=%d", self._dropped)
                self._dropped = 0

    async def close(self) -> None:
        await self.flush()

    # On a thread.

    def _write(self, batch: list[dict[str, Any]]) -> None:
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in batch)
        if self._path == "-":
            _write_all(1, data)
            return
        os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._max_bytes and os.stat(self._path).st_size + len(data) > self._max_bytes:
                self._rotate()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, data)
        finally:
            os.close(fd)

    def _rotate(self) -> None:
        """`audit.log` becomes `audit-<time>.log`; the oldest of those go."""
        path = Path(self._path)
        stamp = clock.rfc3339_micro().replace(":", "-")
        os.rename(path, path.with_name(f"{path.stem}-{stamp}{path.suffix}"))
        old = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"), reverse=True)
        now = clock.wall_time()
        for index, each in enumerate(old):
            many = self._max_backups and index >= self._max_backups
            aged = self._max_age_days and now - each.stat().st_mtime > self._max_age_days * _DAY_S
            if many or aged:
                each.unlink(missing_ok=True)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
