"""The pods' cgroups when a foreign runtime runs the containers, which makes only theirs, below the pod's.

As with kubelet, the pod's own cgroup, its limits and its end are the agent's business. On v1 its end is in every
hierarchy: runc makes the pod's directory also in those that we do not use (blkio, freezer, …).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable

from nodeagent.linux.cgroups import Cgroups, Limits, Usage, detect
from nodeagent.runtime.interface import LinuxResources, RuntimeFailure

log = logging.getLogger(__name__)

_PAUSES_S = (0.01, 0.05, 0.2, 1.0)  # while what was killed is still dying
_SUMMED = ("cpu_ns", "memory_bytes", "working_set_bytes", "rss_bytes", "page_faults", "major_page_faults", "pids")


class PodGroups:
    """Cgroups by sandbox. Paths are relative to the node's cgroup, `root`, itself relative to the mounts' tops."""

    def __init__(self, root: str) -> None:
        self._cgroups = Cgroups(detect(root or "/"))
        self._tops = [os.path.join(point, root.strip("/")) for point in hierarchies()]
        self._paths: dict[str, str] = {}

    def make(self, path: str, resources: LinuxResources) -> bool:
        """Make a pod's cgroup; whether no other sandbox had it already. Raises RuntimeFailure."""
        if not path:
            return False
        self.set(path, resources)
        return path not in self._paths.values()

    def set(self, path: str, resources: LinuxResources) -> None:
        try:
            self._cgroups.create(path, _limits(resources))
        except OSError as error:
            raise RuntimeFailure(f"set_group {path}: {error}", "CreatePodSandboxError") from error

    def belongs(self, sandbox_id: str, path: str) -> None:
        if path:
            self._paths[sandbox_id] = path.strip("/")

    def update(self, sandbox_id: str, resources: LinuxResources) -> None:
        path = self._paths.get(sandbox_id)
        if path is None:
            return
        try:
            self._cgroups.update(path, _limits(resources))
        except OSError as error:
            raise RuntimeFailure(f"update_sandbox_resources: {error}") from error

    def usage(self, sandbox_id: str, containers: Iterable[Usage]) -> Usage:
        """Of the pod's cgroup; if it has none that we know, of its containers together."""
        path = self._paths.get(sandbox_id)
        found = self._cgroups.usage(path) if path else None
        if found is not None:
            return found
        parts = list(containers)
        return Usage(**{name: sum(getattr(part, name) for part in parts) for name in _SUMMED})

    async def sandbox_gone(self, sandbox_id: str) -> None:
        path = self._paths.pop(sandbox_id, None)
        if path is None or path in self._paths.values():
            return
        for pause in _PAUSES_S:
            if self.remove(path):
                return
            await asyncio.sleep(pause)
        log.warning("cgroup_stays_busy path=%s", path)

    def remove(self, path: str) -> bool:
        """Whether nothing is left of it."""
        path = path.strip("/")
        if not path:
            return True
        removed = self._cgroups.remove(path)
        for top in self._tops:
            for directory, _, _ in os.walk(os.path.join(top, path), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return removed and not any(os.path.isdir(os.path.join(top, path)) for top in self._tops)


def hierarchies() -> list[str]:
    """Where the hierarchies of cgroups v1 are mounted, named ones too."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.partition(" - ") for line in file]
    return [left.split()[4] for left, _, right in lines if right.startswith("cgroup ")]


def _limits(resources: LinuxResources) -> Limits:
    return Limits(
        resources.cpu_shares, resources.cpu_quota_us, resources.cpu_period_us, resources.memory_limit_bytes,
        resources.pids_limit, resources.cpuset_cpus,
    )  # fmt: skip
