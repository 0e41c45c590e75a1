"""Containers by CRI: create, start, stop, remove, status, list, resources, logs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from nodeagent.cri import configs, statuses
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.cri.server import memory
from nodeagent.cri.server.filters import passes, plain
from nodeagent.images import references
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    Image,
    ImageService,
    LinuxResources,
    Mount,
    Runtime,
)

_CONFIG = "ContainerConfig"


class Containers:
    def __init__(self, runtime: Runtime, images: ImageService, directory: str) -> None:
        self._runtime, self._images, self._directory = runtime, images, directory
        self._resources: dict[str, Message] = {}  # as last updated; lost with the process, as with us

    async def find(self, container_id: str) -> ContainerStatus:
        """By id or the beginning of one. Raises GrpcError (NOT_FOUND)."""
        found = [c for c in await self._runtime.containers() if container_id and c.id.startswith(container_id)]
        if len(found) != 1:
            message = f'an error occurred when try to find container "{container_id}": not found'
            raise GrpcError(Code.NOT_FOUND, message)
        return found[0]

    async def running(self, container_id: str) -> ContainerStatus:
        """Raises GrpcError (NOT_FOUND, FAILED_PRECONDITION)."""
        found = await self.find(container_id)
        if found.state is not ContainerState.RUNNING:
            raise GrpcError(Code.FAILED_PRECONDITION, f"container {found.id} is not running: it is in {found.state}")
        return found

    async def create(self, request: Message) -> Message:
        given = request.get("config")
        if not given:
            raise ValueError("CreateContainer needs a config")
        reference = (given.get("image") or {}).get("image", "")
        image = await self.image(reference)
        if image is None:
            raise GrpcError(Code.NOT_FOUND, f'image "{reference}" is not on this node')
        matching = [s.id for s in await self._runtime.sandboxes() if s.id.startswith(request["pod_sandbox_id"])]
        sandbox_id = matching[0] if len(matching) == 1 and request["pod_sandbox_id"] else request["pod_sandbox_id"]
        config = configs.container_from_cri(given, image.id)
        config = dataclasses.replace(
            config,
            annotations=memory.remember(config.annotations, _CONFIG, given),
            mounts=(*self._own_mounts(sandbox_id, config), *config.mounts),
        )
        return {"container_id": await self._runtime.create_container(sandbox_id, config)}

    def _own_mounts(self, sandbox_id: str, config: ContainerConfig) -> list[Mount]:
        """The sandbox's resolv.conf and hostname, unless the client mounts something there."""
        taken = {mount.container_path for mount in config.mounts}
        found = []
        for name in ("resolv.conf", "hostname"):
            path = os.path.join(self._directory, sandbox_id, name)
            if f"/etc/{name}" not in taken and os.path.exists(path):
                found.append(Mount(path, f"/etc/{name}", readonly=config.security.readonly_rootfs))
        return found

    async def image(self, reference: str) -> Image | None:
        """Raises ValueError for what is not a reference."""
        try:
            return await self._images.status(reference) if reference else None
        except references.InvalidName as error:
            raise ValueError(str(error)) from error

    async def start(self, request: Message) -> Message:
        found = await self.find(request["container_id"])
        if found.state is not ContainerState.CREATED:
            message = f"container {found.id} cannot be started: it is in {found.state}"
            raise GrpcError(Code.FAILED_PRECONDITION, message)
        await self._runtime.start_container(found.id)
        return {}

    async def stop(self, request: Message) -> Message:
        with contextlib.suppress(GrpcError):  # idempotent: who is gone has stopped
            found = await self.find(request["container_id"])
            await self._runtime.stop_container(found.id, max(0, request["timeout"]))
        return {}

    async def remove(self, request: Message) -> Message:
        with contextlib.suppress(GrpcError):
            found = await self.find(request["container_id"])
            await self._runtime.remove_container(found.id)
            self._resources.pop(found.id, None)
        return {}

    async def status(self, request: Message) -> Message:
        found = await self.find(request["container_id"])
        info = {}
        if request["verbose"]:
            config = memory.recall(found.annotations, _CONFIG) or {}
            known = {"sandboxID": found.sandbox_id, "pid": found.pid, "config": plain(config)}
            info["info"] = json.dumps(known)
        return {"status": await self.described(found), "info": info}

    async def described(self, status: ContainerStatus) -> Message:
        """A runtime.v1.ContainerStatus."""
        given = memory.recall(status.annotations, _CONFIG) or {}
        spec, image_ref = await self._image_names(status, given)
        linux = given.get("linux") or {}
        resources = self._resources.get(status.id) or linux.get("resources")
        user = (linux.get("security_context") or {}).get("run_as_user")
        group = (linux.get("security_context") or {}).get("run_as_group")
        return {
            **statuses.container_to_cri(status, spec, image_ref),
            "annotations": memory.visible(status.annotations),
            "mounts": given.get("mounts") or (),
            "resources": {"linux": resources} if resources else None,
            "user": {"linux": {"uid": user["value"], "gid": group["value"] if group else 0}} if user else None,
            "stop_signal": given.get("stop_signal"),
        }

    async def _image_names(self, status: ContainerStatus, given: Message) -> tuple[Message, str]:
        """ImageSpec and image_ref: as the client named it, and the name that pins it down."""
        image = await self._images.status(status.image)
        name = (given.get("image") or {}).get("image") or (image.tags[0] if image and image.tags else status.image)
        spec = {"image": name, "user_specified_image": (given.get("image") or {}).get("user_specified_image", "")}
        return spec, image.digests[0] if image and image.digests else status.image

    async def list_all(self, request: Message) -> Message:
        return {"containers": await self.listed(request.get("filter"))}

    async def listed(self, wanted: Mapping[str, Any] | None) -> list[Message]:
        """Containers that pass a ContainerFilter, the newest first."""
        found = []
        for status in sorted(await self._runtime.containers(), key=lambda c: -c.created_at):
            item = {"id": status.id, "pod_sandbox_id": status.sandbox_id, "state": status.state.value}
            if not passes({**item, "labels": status.labels}, wanted):
                continue
            given = memory.recall(status.annotations, _CONFIG) or {}
            spec, image_ref = await self._image_names(status, given)
            found.append(
                {
                    **item,
                    "metadata": {"name": status.name, "attempt": status.attempt},
                    "image": spec,
                    "image_ref": image_ref,
                    "image_id": status.image,
                    "created_at": statuses.nanoseconds(status.created_at),
                    "labels": status.labels,
                    "annotations": memory.visible(status.annotations),
                }
            )
        return found

    async def update_resources(self, request: Message) -> Message:
        found = await self.find(request["container_id"])
        given = request.get("linux")
        if not given:
            raise ValueError("UpdateContainerResources needs linux resources")
        resources = configs.resources_from_cri(given)
        if resources != LinuxResources():
            await self._runtime.update_resources(found.id, resources)
        before = self._resources.get(found.id) or self._given_resources(found)
        self._resources[found.id] = {**before, **{name: value for name, value in given.items() if value}}
        return {}

    @staticmethod
    def _given_resources(status: ContainerStatus) -> Message:
        linux = (memory.recall(status.annotations, _CONFIG) or {}).get("linux") or {}
        return dict(linux.get("resources") or {})

    async def reopen_log(self, request: Message) -> Message:
        found = await self.running(request["container_id"])
        await self._runtime.reopen_log(found.id)
        return {}
