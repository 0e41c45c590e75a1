"""One containerd for all tests of a file, with our own CNI configuration in it."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nodeagent.cri import cni
from nodeagent.cri.client import Client
from nodeagent.cri.grpc.client import Channel
from nodeagent.cri.images import CriImages
from nodeagent.cri.podgroups import PodGroups
from nodeagent.cri.runtime import CriRuntime
from nodeagent.runtime.interface import ContainerConfig, PodIdentity, SandboxConfig, SandboxStatus
from tests.linux import containerd

BRIDGE, SUBNET = f"wcb{os.getpid()}", f"10.213.{os.getpid() % 250}.0/24"
GROUP = f"wherry-cri-{os.getpid()}"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[containerd.Containerd]:
    with containerd.running(tmp_path_factory.mktemp("containerd")) as found:
        cni.ensure(str(found.cni), cni.conflist(SUBNET, BRIDGE, 1400, str(found.directory / "addresses")))
        try:
            yield found
        finally:
            subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
            PodGroups("").remove(GROUP)


@dataclass
class Foreign:
    runtime: CriRuntime
    images: CriImages
    daemon: containerd.Containerd
    logs: Path

    async def again(self) -> "Foreign":
        """The same after a restart of the agent: another client that remembers nothing."""
        await self.runtime.close()
        client = Client(Channel(str(self.daemon.socket)))
        self.runtime, self.images = CriRuntime(client), CriImages(client)
        await self.runtime.start()
        return self

    async def sandbox(self, name: str, **rest: Any) -> SandboxStatus:
        identity = PodIdentity("default", name, f"uid-{name}")
        rest = {"cgroup_parent": f"{GROUP}/pod-{name}", **rest}
        return await self.runtime.run_sandbox(SandboxConfig(identity, name, str(self.logs / name), **rest))

    async def container(self, sandbox: SandboxStatus, *command: str, start: bool = True, **rest: Any) -> str:
        image = await self.images.status(containerd.BUSYBOX)
        assert image is not None
        name = rest.pop("name", "app")
        config = ContainerConfig(name, 0, image.id, command=command, log_path=f"{name}.log", **rest)
        container_id = await self.runtime.create_container(sandbox.id, config)
        if start:
            await self.runtime.start_container(container_id)
        return container_id


@pytest.fixture
async def foreign(daemon: containerd.Containerd, tmp_path: Path) -> AsyncIterator[Foreign]:
    client = Client(Channel(str(daemon.socket)))
    runtime = CriRuntime(client)
    async with asyncio.timeout(20):
        while await runtime.condition("NetworkReady"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await runtime.start()
    found = Foreign(runtime, CriImages(client), daemon, tmp_path / "logs")
    yield found
    for sandbox in await found.runtime.sandboxes():
        await found.runtime.remove_sandbox(sandbox.id)
    await found.runtime.close()
