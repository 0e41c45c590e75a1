"""Rotation of container logs: `0.log` becomes `0.log.20261121-100000` when it is too large, old ones are compressed and
the oldest removed.

One round every ten seconds looks at the size of each running container's log (one stat each). After the rename the
runtime is asked to open the file anew; lines written in between are in the renamed file. Names: kubelet's
pkg/kubelet/logs/container_log_manager.go.
"""

from __future__ import annotations

import asyncio
import glob
import gzip
import logging
import os
import shutil
import time

from controlplane import clock
from nodeagent.runtime.interface import ContainerState, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

PERIOD_S = 10.0


class LogRotation:
    """`max_files` counts the current file."""

    def __init__(self, runtime: Runtime, max_bytes: int, max_files: int) -> None:
        self._runtime = runtime
        self._max_bytes = max_bytes
        self._max_files = max(max_files, 2)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.round()
            except (RuntimeFailure, OSError) as error:
                log.warning("log_rotation_failed error=%s", error)

    async def round(self) -> None:
        """Look at every running container's log once."""
        for container in await self._runtime.containers():
            if container.state is ContainerState.RUNNING and container.log_path:
                try:
                    size = os.stat(container.log_path).st_size
                except OSError:
                    continue
                if size > self._max_bytes:
                    await self._rotate(container.id, container.log_path)

    async def _rotate(self, container_id: str, path: str) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(clock.wall_time()))
        rotated = f"{path}.{stamp}"
        if os.path.exists(rotated):
            return
        await asyncio.to_thread(self._tidy, path)
        os.rename(path, rotated)
        try:
            await self._runtime.reopen_log(container_id)
        except RuntimeFailure:
            os.rename(rotated, path)
            raise
        log.info("log_rotated path=%s", path)

    def _tidy(self, path: str) -> None:
        """Compress all rotated files (the newest will be the one still to be made) and remove the oldest."""
        old = sorted(glob.glob(glob.escape(path) + ".*"))
        for name in [n for n in old if n.endswith(".tmp")]:
            os.unlink(name)
        kept = [n for n in old if not n.endswith(".tmp")]
        for name in kept[: max(0, len(kept) - (self._max_files - 2))]:
            os.unlink(name)
        for name in kept[max(0, len(kept) - (self._max_files - 2)) :]:
            if not name.endswith(".gz"):
                with open(name, "rb") as source, gzip.open(name + ".tmp", "wb") as target:
                    shutil.copyfileobj(source, target)
                os.rename(name + ".tmp", name + ".gz")
                os.unlink(name)
