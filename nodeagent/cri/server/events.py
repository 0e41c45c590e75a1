"""GetContainerEvents: the runtime's news, each with how its sandbox and containers are by now."""

from __future__ import annotations

from collections.abc import AsyncIterator

from controlplane import clock
from nodeagent.cri import statuses
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import GrpcError
from nodeagent.cri.server.containers import Containers
from nodeagent.cri.server.pods import Pods
from nodeagent.runtime.interface import ContainerEvent, Runtime


class Events:
    def __init__(self, runtime: Runtime, pods: Pods, containers: Containers) -> None:
        self._runtime, self._pods, self._containers = runtime, pods, containers

    async def stream(self, request: Message) -> AsyncIterator[Message]:
        """A ContainerEventResponse each, until the client leaves."""
        async for event in self._runtime.events():
            yield await self._described(event)

    async def _described(self, event: ContainerEvent) -> Message:
        try:
            status = self._pods.described(await self._pods.find(event.sandbox_id))
        except GrpcError:  # gone by now
            status = None
        containers = [await self._containers.described(c) for c in await self._runtime.containers(event.sandbox_id)]
        return {
            "container_id": event.container_id or event.sandbox_id,
            "container_event_type": f"CONTAINER_{event.type}_EVENT",
            "created_at": statuses.nanoseconds(clock.wall_time()),
            "pod_sandbox_status": status,
            "containers_statuses": containers,
        }
