"""The cgroups between the node and its pods: how much CPU a QoS class may claim when all claim it.

    kubepods/burstable      what its pods ask for together
    kubepods/besteffort     the least there is
    kubepods/pod<uid>       Guaranteed pods stand beside these two, each with what it asks for

Without this every class would have the kernel's default, and one BestEffort pod would take as much as all Burstable
ones. Rules: kubelet's cm/qos_container_manager_linux.go. It sets shares, no limits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from controlplane.api import podresources
from nodeagent.pods import resources
from nodeagent.pods.model import Object, qos_class
from nodeagent.runtime.interface import LinuxResources, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

BURSTABLE, BEST_EFFORT = "kubepods/burstable", "kubepods/besteffort"


def shares(pods: Iterable[Object]) -> dict[str, int]:
    """CFS shares of each class's cgroup, for these pods."""
    asked = (podresources.effective(pod, "requests", "cpu") for pod in pods if qos_class(pod) == "Burstable")
    return {BURSTABLE: resources.shares(-(-sum(asked) // 10**6)), BEST_EFFORT: resources.MINIMUM_SHARES}


class Groups:
    """Keeps the classes' cgroups in step with the node's pods."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._changed = asyncio.Event()
        self._set: dict[str, int] = {}

    def poke(self, *, anew: bool = False) -> None:
        """Pods came or went; `anew`: write even what should be there, should somebody have changed it."""
        if anew:
            self._set.clear()
        self._changed.set()

    async def run(self, pods: Callable[[], Sequence[Object]]) -> None:
        """Follow `poke`, until cancelled. A failure is logged and tried again at the next one."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for path, wanted in shares(pods()).items():
                if self._set.get(path) == wanted:
                    continue
                try:
                    await self._runtime.set_group(path, LinuxResources(cpu_shares=wanted))
                    self._set[path] = wanted
                except RuntimeFailure as failure:
                    log.warning("qos_cgroup path=%s shares=%d error=%s", path, wanted, failure)
