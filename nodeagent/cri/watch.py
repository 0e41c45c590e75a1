"""News of a foreign runtime's containers, whether it tells (GetContainerEvents) or must be asked (every second).

Whatever the source, every container passes the same stages in order, each told once: who missed a start tells it before
the end. What we do ourselves is told at once, without waiting for an echo.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from nodeagent.runtime.interface import ContainerEvent, ContainerState, ContainerStatus, SandboxState, SandboxStatus

_STAGES = ("CREATED", "STARTED", "STOPPED", "DELETED")
_STAGE_OF = {ContainerState.CREATED: 0, ContainerState.RUNNING: 1, ContainerState.EXITED: 2, ContainerState.UNKNOWN: 2}


class News:
    """What listeners have been told, and what they have not."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Queue[ContainerEvent]] = []
        self._containers: dict[str, tuple[str, int]] = {}  # id → sandbox, stage told
        self._sandboxes: dict[str, tuple[str, bool]] = {}  # id → pod uid, ready
        self._gone: deque[str] = deque(maxlen=1000)  # lately: a list that was made before may still have them

    async def events(self) -> AsyncIterator[ContainerEvent]:
        queue: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def sandbox(self, sandbox_id: str, uid: str, *, ready: bool) -> None:
        if sandbox_id in self._gone:
            return
        known = self._sandboxes.get(sandbox_id)
        self._sandboxes[sandbox_id] = uid, ready
        if known is None and ready:
            self._tell(sandbox_id, "", "STARTED")
        elif known is not None and known[1] and not ready:
            self._tell(sandbox_id, "", "STOPPED")

    def sandbox_gone(self, sandbox_id: str) -> None:
        if sandbox_id in self._sandboxes:
            for container_id, (of, _) in list(self._containers.items()):
                if of == sandbox_id:
                    self.container_gone(container_id)
            self._tell(sandbox_id, "", "DELETED")
            del self._sandboxes[sandbox_id]
            self._gone.append(sandbox_id)

    def container(self, container_id: str, sandbox_id: str, state: ContainerState) -> None:
        _, told = self._containers.get(container_id, ("", -1))
        stage = _STAGE_OF[state]
        if stage > told and container_id not in self._gone:
            self._containers[container_id] = sandbox_id, stage
            for step in _STAGES[told + 1 : stage + 1]:
                self._tell(sandbox_id, container_id, step)

    def container_gone(self, container_id: str) -> None:
        sandbox_id, told = self._containers.pop(container_id, ("", -1))
        if told >= 0:
            self._gone.append(container_id)
            for step in ("STOPPED", "DELETED") if told == _STAGE_OF[ContainerState.RUNNING] else ("DELETED",):
                self._tell(sandbox_id, container_id, step)

    def known(self) -> set[str]:
        """Of whom listeners have heard and not that they are gone. To be asked before looking: see `seen`."""
        return {*self._containers, *self._sandboxes}

    def seen(
        self, sandboxes: Iterable[SandboxStatus], containers: Iterable[ContainerStatus], known: set[str]
    ) -> None:  # fmt: skip
        """All that there is, as it was looked at after `known` was known; who was known and is not there is gone."""
        there: set[str] = set()
        for sandbox in sandboxes:
            there.add(sandbox.id)
            self.sandbox(sandbox.id, sandbox.identity.uid, ready=sandbox.state is SandboxState.READY)
        for container in containers:
            there.add(container.id)
            self.container(container.id, container.sandbox_id, container.state)
        for gone in known - there:
            self.container_gone(gone)
        for gone in known - there:
            self.sandbox_gone(gone)

    def _tell(self, sandbox_id: str, container_id: str, kind: str) -> None:
        event = ContainerEvent(sandbox_id, container_id, self._sandboxes.get(sandbox_id, ("", False))[0], kind)
        for queue in self._listeners:
            queue.put_nowait(event)
