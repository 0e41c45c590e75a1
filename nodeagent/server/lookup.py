"""From the names in a path to what runs: a pod's worker, its sandbox, a container's instances."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.api.status import StatusError, internal
from nodeagent.pods.manager import PodManager
from nodeagent.pods.model import LABEL_UID
from nodeagent.pods.worker import Worker
from nodeagent.runtime.interface import (
    ContainerState,
    ContainerStatus,
    Runtime,
    RuntimeFailure,
    SandboxState,
    SandboxStatus,
)


@dataclass(frozen=True, slots=True)
class Lookup:
    pods: PodManager
    runtime: Runtime

    def worker(self, namespace: str, pod: str, uid: str = "") -> Worker:
        """Raises StatusError (404)."""
        worker = self.pods.find(namespace, pod, uid)
        if worker is None:
            raise StatusError(404, "NotFound", "pod does not exist")
        return worker

    async def instances(self, worker: Worker, name: str) -> list[ContainerStatus]:
        """The instances of a container, newest first. Raises StatusError (500)."""
        try:
            everything = [
                c
                for c in await self.runtime.containers()
                if c.labels.get(LABEL_UID) == worker.want.uid and c.name == name
            ]
        except RuntimeFailure as failure:
            raise internal(str(failure)) from failure
        return sorted(everything, key=lambda c: (c.attempt, c.created_at), reverse=True)

    async def running(self, worker: Worker, name: str) -> ContainerStatus:
        """The running instance of a container. Raises StatusError: 500, as kubelet has it, in its words."""
        found = await self.instances(worker, name)
        if not found or found[0].state is not ContainerState.RUNNING:
            raise StatusError(500, "InternalError", f'container not found ("{name}")')
        return found[0]

    async def sandbox(self, worker: Worker) -> SandboxStatus:
        """The pod's ready sandbox. Raises StatusError (500)."""
        try:
            found = [s for s in await self.runtime.sandboxes() if s.identity.uid == worker.want.uid]
        except RuntimeFailure as failure:
            raise internal(str(failure)) from failure
        ready = [s for s in found if s.state is SandboxState.READY]
        if not ready:
            name = f"{worker.want.pod['metadata']['name']}_{worker.want.pod['metadata'].get('namespace', '')}"
            raise StatusError(500, "InternalError", f'cannot find pod "{name}"')
        return max(ready, key=lambda s: s.identity.attempt)
