"""Who of one pod's running containers is being probed, and what follows from the answers.

A container is watched from its start (or its adoption by a restarted agent) to its end. Answers go to `Memory.health`;
a container that must not go on is condemned there, and the plan stops it. How one asks is probes.py's.
"""

from __future__ import annotations

from collections.abc import Callable

from nodeagent.pods.launcher import Launcher
from nodeagent.pods.memory import Condemned, Health, Memory
from nodeagent.pods.model import Desired, Object, Wanted
from nodeagent.pods.probes import ContainerProbes
from nodeagent.runtime.interface import ContainerStatus, SandboxStatus

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class HealthWatch:
    """`wake`: there is news."""

    def __init__(self, memory: Memory, launcher: Launcher, wake: Callable[[], None]) -> None:
        self._memory = memory
        self._launcher = launcher
        self._wake = wake
        self._probes: dict[str, ContainerProbes] = {}

    def begin(
        self, want: Desired, wanted: Wanted, container_id: str, started_at: float, sandbox: SandboxStatus,
        known: Health | None = None,
    ) -> None:  # fmt: skip
        """Begin to probe a running container (nothing to do for one without probes but to say so). `known`: what an
        earlier agent knew of it."""
        health = self._memory.health[container_id] = known or Health()
        probes = ContainerProbes(
            want, wanted, self._launcher.target(wanted, container_id, sandbox), started_at, health,
            self._launcher.tell, self._wake, self.condemn,
        )  # fmt: skip
        if any(wanted.spec.get(p) for p in _PROBES):
            self._probes[container_id] = probes
        probes.start()

    def condemn(self, container_id: str, sentence: Condemned) -> None:
        """The container must be stopped; its restart policy decides what follows."""
        self._memory.condemned[container_id] = sentence
        self._wake()

    def stop(self, container_id: str) -> None:
        """Ask no more; what was answered still counts."""
        probes = self._probes.pop(container_id, None)
        if probes is not None:
            probes.stop()

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        self._memory.health.pop(container_id, None)
        self._memory.condemned.pop(container_id, None)
        self.stop(container_id)

    def close(self) -> None:
        for probes in self._probes.values():
            probes.stop()


def as_last_told(pod: Object, container: ContainerStatus) -> Health | None:
    """What the API server was last told of this very container: a restarted agent goes on from there, so that no
    endpoint flaps."""
    status = pod.get("status") or {}
    for entries in ("initContainerStatuses", "containerStatuses"):
        for entry in status.get(entries) or ():
            if entry.get("containerID") == f"wherry://{container.id}":
                return Health(bool(entry.get("started")), bool(entry.get("ready")))
    return None
