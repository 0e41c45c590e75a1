"""Our CRI server over the runtime in memory, and Google's own gRPC to ask it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from nodeagent.cri.server.service import CriServer
from nodeagent.runtime.fake import FakeRuntime
from tests.integration.cri import wire

IMAGE_METHODS = {"ListImages", "ImageStatus", "PullImage", "RemoveImage", "ImageFsInfo"}


@dataclass
class Foreigner:
    """A client that shares no code with us. Requests are keyword arguments, as protobuf's classes take them."""

    channel: grpc.aio.Channel
    runtime: FakeRuntime
    server: CriServer
    socket: Path
    root: Path
    types: dict[str, Any]

    def _ends(self, method: str, stem: str, kind: str) -> dict[str, Any]:
        service = "ImageService" if method in IMAGE_METHODS else "RuntimeService"
        response = {"GetContainerEvents": "ContainerEventResponse"}.get(method, f"{stem}Response")
        return {
            "method": f"/runtime.v1.{service}/{method}",
            "request_serializer": self.types[f"{stem}Request"].SerializeToString,
            "response_deserializer": self.types[response].FromString,
        }

    async def call(self, method: str, timeout: float = 10, **request: Any) -> Any:
        stub = self.channel.unary_unary(**self._ends(method, method, "unary"))
        return await stub(self.types[f"{method}Request"](**request), timeout=timeout)

    def stream(self, method: str, **request: Any) -> Any:
        stem = {"GetContainerEvents": "GetEvents"}.get(method, method)
        return self.channel.unary_stream(**self._ends(method, stem, "stream"))(self.types[f"{stem}Request"](**request))

    async def sandbox(self, name: str = "web", **rest: Any) -> str:
        metadata = {"name": name, "uid": f"uid-{name}", "namespace": "default"}
        config = {"metadata": metadata, "log_directory": str(self.root / "logs"), "hostname": name, **rest}
        return str((await self.call("RunPodSandbox", config=config)).pod_sandbox_id)

    async def container(self, sandbox_id: str, *command: str, start: bool = True, **rest: Any) -> str:
        config = {
            "metadata": {"name": "app"}, "image": {"image": "busybox"}, "command": command, "log_path": "app/0.log",
            **rest,
        }  # fmt: skip
        made = await self.call("CreateContainer", pod_sandbox_id=sandbox_id, config=config)
        if start:
            await self.call("StartContainer", container_id=made.container_id)
        return str(made.container_id)


@pytest.fixture
async def crictl(tmp_path: Path) -> AsyncIterator[Foreigner]:
    runtime = FakeRuntime()
    runtime.images.add("docker.io/library/busybox:latest")
    runtime.images.local["busybox"] = runtime.images.local["docker.io/library/busybox:latest"]
    server = CriServer(runtime, runtime.images, str(tmp_path), version="1.2.3")
    await server.listen(str(tmp_path / "cri.sock"))
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/cri.sock") as channel:
        yield Foreigner(channel, runtime, server, tmp_path / "cri.sock", tmp_path, wire.messages())
    await server.close()
