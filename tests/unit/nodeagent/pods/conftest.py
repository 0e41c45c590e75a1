"""A node without a kernel: the pods' whole machinery over the fake runtime and the fake API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.fake import FakeAPI
from controlplane.client.resources import PODS
from nodeagent.pods.cpumanager import CpuManager
from nodeagent.pods.images import Images
from nodeagent.pods.launcher import Launcher
from nodeagent.pods.manager import PodManager
from nodeagent.pods.mirror import Mirrors
from nodeagent.pods.node import NodeFacts
from nodeagent.pods.objects import Objects
from nodeagent.pods.services import ServiceVariables
from nodeagent.pods.source import ApiSource
from nodeagent.pods.static import FileSource
from nodeagent.pods.statusmanager import ClientPodApi, StatusManager
from nodeagent.pods.volumes.manager import Volumes
from nodeagent.runtime.fake import FakeContainer, FakeRuntime

Obj = dict[str, Any]


@dataclass
class NoServices:
    def by_index(self, name: str, value: str) -> list[Obj]:
        return []


@dataclass
class World:
    """`start()` and `kill()` are an agent's life; `api` and `runtime` outlive it."""

    root: Path
    api: FakeAPI = field(default_factory=FakeAPI)
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    facts: Obj = field(default_factory=dict)
    cpus: Callable[[], CpuManager] = lambda: CpuManager("")  # makes each agent's CPU manager
    manager: PodManager | None = None
    node: NodeFacts | None = None
    volumes: Volumes | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        client = self.api.client()
        root, logs = str(self.root / "node"), str(self.root / "logs")
        facts = {"allocatable": {}} | self.facts
        node = self.node = NodeFacts("node-1", ["10.77.0.11"], root, logs, **facts)
        objects = Objects(client)

        def tell(pod: Obj, kind: str, reason: str, message: str) -> None:
            self.events.append((pod["metadata"]["name"], reason, message))

        images = Images(self.runtime.images, objects, tell)
        volumes = self.volumes = Volumes(node, objects, images)
        services = ServiceVariables(NoServices(), {"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
        launcher = Launcher(node, self.runtime, images, objects, volumes, services, tell, self.cpus())
        launcher.network_ready.set()
        owner = {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "node-uid", "controller": True}
        mirrors = Mirrors(ClientPodApi(client), lambda: owner, lambda uid: statuses.renew(uid))
        statuses = StatusManager(mirrors)
        self.manager = PodManager(launcher, statuses, mirrors)
        await self.manager.start()
        source = ApiSource(client, "node-1", self.manager)
        files = FileSource(str(self.root / "manifests"), "node-1", self.manager, 0.01)
        files.scan()
        self.tasks = [asyncio.create_task(run) for run in (self.manager.run(), source.run(), files.run())]
        await source.informer.synced()

    async def kill(self) -> None:
        """The agent dies; what runs, runs."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []
        if self.manager is not None:
            await self.manager.close()
            self.manager = None

    def pod(
        self, name: str = "web", *, containers: list[Obj] | None = None, meta: Obj | None = None, **spec: Any
    ) -> Obj:
        """Create a pod bound to the node; the stored object."""
        self.runtime.images.add("busybox:1")
        given = containers or [{"name": "app", "image": "busybox:1"}]
        return self.api.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "generation": 1, **(meta or {})},
                "spec": {"nodeName": "node-1", "containers": given, **spec},
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
            }
        )

    def manifest(self, file: str = "web.yaml", text: str | None = None, **spec: Any) -> None:
        """Write a static pod's manifest: `text`, or a pod `web` of this spec. As an editor does, by a rename."""
        self.runtime.images.add("busybox:1")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
        spec.setdefault("containers", [{"name": "app", "image": "busybox:1"}])
        directory = self.root / "manifests"
        directory.mkdir(exist_ok=True)
        (directory / ".new").write_text(json.dumps(pod) if text is None else text)
        (directory / ".new").rename(directory / file)

    def status(self, name: str = "web") -> Obj:
        pod = self.api.get("pods", name, "default")
        return (pod or {}).get("status") or {}

    def container(self, name: str = "app", pod: str = "web") -> Obj:
        status = self.status(pod)
        entries = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        return next((c for c in entries if c["name"] == name), {})

    def condition(self, kind: str, pod: str = "web") -> Obj:
        return next((c for c in self.status(pod).get("conditions") or () if c["type"] == kind), {})

    async def delete(self, name: str = "web", grace: int = 30) -> None:
        """The API server marks it and waits for the node; with grace 0 it is gone at once (a forced deletion)."""
        await self.api.client().delete(PODS, name, "default", grace_period_seconds=grace)

    def uid(self, name: str = "web") -> str:
        pod = self.api.get("pods", name, "default")
        return str(pod["metadata"]["uid"]) if pod else ""

    def find(self, container: str = "app", pod: str = "web") -> FakeContainer:
        """The newest instance of a pod's container in the runtime."""
        return self.runtime.find(container, self.uid(pod))

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until `condition()` is true; fails with the pods' state otherwise."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - the condition is another's, without an event
                    await asyncio.sleep(0.005)
        except TimeoutError:
            state = {p["metadata"]["name"]: p.get("status") for p in self.api.all("pods")}
            pytest.fail(f"not in {seconds:g} s: {json.dumps(state, indent=1)} {self.events}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An agent's pods, started."""
    world = World(tmp_path)
    await world.start()
    yield world
    await world.kill()
