"""The cgroups between the node and its pods: how much CPU a QoS class may claim when all claim it.

    kubepods                what the node does not keep for itself: memory, process ids, and CPU shares of that
    kubepods/burstable      what its pods ask for together
    kubepods/besteffort     the least there is
    kubepods/pod<uid>       Guaranteed pods stand beside these two, each with what it asks for

Without this every class would have the kernel's default, and one BestEffort pod would take as much as all Burstable
ones. Rules: kubelet's cm/qos_container_manager_linux.go. It sets shares of the classes, no
limits. The limits of `kubepods` (--enforce-node-allocatable) see to it that the pods together leave something to the
node: who asks too much meets them, and not the daemons. Rule: cm/node_container_manager_linux.go.
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

ALL = "kubepods"
BURSTABLE, BEST_EFFORT = "kubepods/burstable", "kubepods/besteffort"


def shares(pods: Iterable[Object]) -> dict[str, int]:
    """CFS shares of each class's cgroup, for these pods."""
    asked = (podresources.effective(pod, "requests", "cpu") for pod in pods if qos_class(pod) == "Burstable")
    return {BURSTABLE: resources.shares(-(-sum(asked) // 10**6)), BEST_EFFORT: resources.MINIMUM_SHARES}


class Groups:
    """Keeps the classes' cgroups in step with the node's pods."""

    def __init__(self, runtime: Runtime, whole: LinuxResources | None = None) -> None:
        """`whole`: the settings of all pods' cgroup, if it has any."""
        self._runtime = runtime
        self._whole = whole
        self._changed = asyncio.Event()
        self._set: dict[str, LinuxResources] = {}

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
            settings = {path: LinuxResources(cpu_shares=wanted) for path, wanted in shares(pods()).items()}
            if self._whole is not None:
                settings = {ALL: self._whole, **settings}
            for path, wanted in settings.items():
                if self._set.get(path) == wanted:
                    continue
                try:
                    await self._runtime.set_group(path, wanted)
                    self._set[path] = wanted
                except RuntimeFailure as failure:
                    log.warning("qos_cgroup path=%s wanted=%s error=%s", path, wanted, failure)
