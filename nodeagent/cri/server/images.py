"""ImageService by CRI, over our own images."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from controlplane import clock
from nodeagent.cri import statuses
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.images import references
from nodeagent.linux.disk import tree_usage
from nodeagent.runtime.interface import Image, ImageService, RegistryAuth, Runtime

_USAGE_LIFE_S = 30.0  # counting files costs; kubelet asks every ten seconds


class Images:
    """`directory`: where images are kept; `layers`: where containers' writable layers are."""

    def __init__(self, images: ImageService, runtime: Runtime, directory: str, layers: str) -> None:
        self._images, self._runtime = images, runtime
        self._directories = {"image_filesystems": directory, "container_filesystems": layers}
        self._usage: Message = {}
        self._usage_until = 0.0

    async def list_all(self, request: Message) -> Message:
        return {"images": await self.listed(request.get("filter"))}

    async def listed(self, wanted: Mapping[str, Any] | None) -> list[Message]:
        name = ((wanted or {}).get("image") or {}).get("image", "")
        if name:
            found = await self._find(name)
            return [statuses.image_to_cri(found)] if found else []
        return [statuses.image_to_cri(image) for image in await self._images.images()]

    async def status(self, request: Message) -> Message:
        found = await self._find(_name(request))
        if found is None:
            return {"info": {}}
        info = {}
        if request["verbose"]:
            config = found.config
            spec = {
                "Entrypoint": list(config.entrypoint), "Cmd": list(config.cmd), "Env": list(config.env),
                "WorkingDir": config.working_dir, "User": config.user, "StopSignal": config.stop_signal,
                "Volumes": {path: {} for path in config.volumes},
            }  # fmt: skip
            info["info"] = json.dumps({"imageSpec": {"config": spec}})
        return {"image": statuses.image_to_cri(found), "info": info}

    async def pull(self, request: Message) -> Message:
        auth = request.get("auth")
        image = await self._images.pull(_name(request), [_credentials(auth)] if auth else [])
        return {"image_ref": image.id}

    async def remove(self, request: Message) -> Message:
        found = await self._find(_name(request))
        if found is not None:
            if found.id in {container.image for container in await self._runtime.containers()}:
                raise GrpcError(Code.FAILED_PRECONDITION, f"image {found.id} is in use by a container")
            await self._images.remove(_name(request))
        return {}

    async def fs_info(self, request: Message) -> Message:
        now = asyncio.get_running_loop().time()
        if now >= self._usage_until:
            self._usage = {name: [await _used(path)] for name, path in self._directories.items()}
            self._usage_until = now + _USAGE_LIFE_S
        return self._usage

    async def _find(self, reference: str) -> Image | None:
        try:
            return await self._images.status(reference)
        except references.InvalidName as error:
            raise ValueError(str(error)) from error


async def _used(path: str) -> Message:
    used, inodes = await asyncio.to_thread(tree_usage, path)
    return {
        "timestamp": statuses.nanoseconds(clock.wall_time()),
        "fs_id": {"mountpoint": path},
        "used_bytes": {"value": used},
        "inodes_used": {"value": inodes},
    }


def _name(request: Message) -> str:
    name: str = (request.get("image") or {}).get("image", "")
    if not name:
        raise ValueError("an image must be named")
    return name


def _credentials(auth: Message) -> RegistryAuth:
    """`auth` is base64 of user:password, as in Docker's files. Raises ValueError."""
    user, password = auth["username"], auth["password"]
    if not user and auth["auth"]:
        try:
            user, _, password = b64decode(auth["auth"], validate=True).decode().partition(":")
        except ValueError as error:
            raise ValueError("invalid auth: not base64 of user:password") from error
    return RegistryAuth(user, password.rstrip("\0"), auth["identity_token"] or auth["registry_token"])
