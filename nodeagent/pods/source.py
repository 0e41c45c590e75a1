"""Where the pods of this node come from: the API server's, by a watch on spec.nodeName.

While the API server is away the informer keeps what it had, and so do the workers. The other source, with the same
calls, is `static.py`: files of a directory.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from controlplane.client.informer import Informer
from controlplane.client.resources import PODS
from controlplane.client.rest import Client
from nodeagent.pods.model import Object


class Sink(Protocol):
    """Takes what a source tells; PodManager is one."""

    def put(self, pod: Object) -> None: ...

    def removed(self, pod: Object) -> None: ...

    def settled(self) -> None: ...


class ApiSource:
    """Pods that the API server has bound to `node_name`."""

    def __init__(self, client: Client, node_name: str, sink: Sink) -> None:
        self._sink = sink
        self.informer = Informer(client, PODS, field_selector=f"spec.nodeName={node_name}")
        self.informer.add_handler(added=sink.put, updated=lambda old, new: sink.put(new), deleted=sink.removed)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.informer.run())
            await self.informer.synced()
            self._sink.settled()
