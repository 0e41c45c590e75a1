"""`CriServer`: our runtime behind a socket, as CRI v1, so that crictl and a foreign kubelet find what they expect.

Here each method of the CRI meets what does it, messages meet bytes, and errors their codes. A method of the CRI that is
missing here is UNIMPLEMENTED (checkpoints, runtime metrics: see the README).
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from nodeagent.cri.codec import Malformed, Message, decode, encode
from nodeagent.cri.grpc.server import Many, Server, Unary
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.cri.server.about import About
from nodeagent.cri.server.containers import Containers
from nodeagent.cri.server.events import Events
from nodeagent.cri.server.images import Images
from nodeagent.cri.server.pods import Pods
from nodeagent.cri.server.stats import StatsMethods
from nodeagent.cri.server.streams import Streams
from nodeagent.cri.table import table
from nodeagent.runtime.interface import ImageService, NotFound, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

_PAGE = 500  # items in one answer of the Stream… methods


class CriServer:
    """Serves `runtime` and `images`. `root_dir`: the agent's data (its images, its containers' layers, our files).
    `network` and `configure`: see About."""

    def __init__(
        self, runtime: Runtime, images: ImageService, root_dir: str, *, version: str = "0",
        network: Callable[[], str] = lambda: "", configure: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        files = os.path.join(root_dir, "cri")
        layers = os.path.join(root_dir, "containers")
        containers = Containers(runtime, images, files)
        self._pods = pods = Pods(runtime, containers, files)
        self._streams = streams = Streams(runtime, pods, containers)
        events = Events(runtime, pods, containers)
        stats = StatsMethods(runtime, pods, containers, layers)
        about = About(runtime, version, network, configure)
        own = Images(images, runtime, os.path.join(root_dir, "images"), layers)
        unary: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "Version": about.version, "Status": about.status, "UpdateRuntimeConfig": about.configure,
            "RuntimeConfig": about.runtime_config,
            "RunPodSandbox": pods.run, "StopPodSandbox": pods.stop, "RemovePodSandbox": pods.remove,
            "PodSandboxStatus": pods.status, "ListPodSandbox": pods.list_all,
            "UpdatePodSandboxResources": pods.update_resources,
            "CreateContainer": containers.create, "StartContainer": containers.start,
            "StopContainer": containers.stop, "RemoveContainer": containers.remove,
            "ContainerStatus": containers.status, "ListContainers": containers.list_all,
            "UpdateContainerResources": containers.update_resources, "ReopenContainerLog": containers.reopen_log,
            "ExecSync": streams.exec_sync, "Exec": streams.exec, "Attach": streams.attach,
            "PortForward": streams.port_forward,
            "ContainerStats": stats.container, "ListContainerStats": stats.container_list,
            "PodSandboxStats": stats.pod, "ListPodSandboxStats": stats.pod_list,
            "ListImages": own.list_all, "ImageStatus": own.status, "PullImage": own.pull, "RemoveImage": own.remove,
            "ImageFsInfo": own.fs_info,
        }  # fmt: skip
        many: dict[str, Callable[[Message], AsyncIterator[Message]]] = {
            "GetContainerEvents": events.stream,
            "StreamPodSandboxes": _pages("pod_sandboxes", pods.listed),
            "StreamContainers": _pages("containers", containers.listed),
            "StreamContainerStats": _pages("container_stats", stats.containers),
            "StreamPodSandboxStats": _pages("pod_sandbox_stats", stats.pods),
            "StreamImages": _pages("images", own.listed),
        }
        methods = table().methods
        self._server = Server(
            {methods[name].path: _unary(name, method) for name, method in unary.items()},
            {methods[name].path: _many(name, method) for name, method in many.items()},
        )

    async def listen(self, path: str) -> None:
        """Serve on the socket `path`, for root only. The runtime must have started. Raises OSError."""
        await self._pods.sweep()
        await self._streams.listen()
        await self._server.listen(path)
        log.info("cri_served socket=%s", path)

    async def close(self) -> None:
        await self._server.close()
        await self._streams.close()


def _pages(
    field: str, listed: Callable[[Any], Awaitable[list[Message]]]
) -> Callable[[Message], AsyncIterator[Message]]:
    """A list in answers of bounded size."""

    async def stream(request: Message) -> AsyncIterator[Message]:
        items = await listed(request.get("filter"))
        for start in range(0, len(items), _PAGE):
            yield {field: items[start : start + _PAGE]}

    return stream


def _unary(name: str, method: Callable[[Message], Awaitable[Message]]) -> Unary:
    about = table().methods[name]

    async def serve(body: bytes) -> bytes:
        with _Codes(name):
            return encode(about.response, await method(decode(about.request, body)))

    return serve


def _many(name: str, method: Callable[[Message], AsyncIterator[Message]]) -> Many:
    about = table().methods[name]

    async def serve(body: bytes) -> AsyncIterator[bytes]:
        with _Codes(name):
            async for answer in method(decode(about.request, body)):
                yield encode(about.response, answer)

    return serve


class _Codes:
    """Turns what methods raise into GrpcError: ValueError is the client's fault, RuntimeFailure has no better code than
    UNKNOWN (which is what kubelet knows from other runtimes) unless its words tell."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        match error:
            case Malformed():
                raise GrpcError(Code.INTERNAL, f"malformed {error}") from error
            case NotFound():
                raise GrpcError(Code.NOT_FOUND, str(error)) from error
            case RuntimeFailure():
                log.info("cri_failed method=%s error=%s", self._name, error)
                raise GrpcError(_code(error), str(error)) from error
            case ValueError():
                raise GrpcError(Code.INVALID_ARGUMENT, str(error)) from error


def _code(failure: RuntimeFailure) -> Code:
    text = str(failure)
    if failure.reason == "InvalidImageName":
        return Code.INVALID_ARGUMENT
    if "exists already" in text:
        return Code.ALREADY_EXISTS
    if "is not running" in text:
        return Code.FAILED_PRECONDITION
    return Code.UNAVAILABLE if failure.reason == "RegistryUnavailable" else Code.UNKNOWN
