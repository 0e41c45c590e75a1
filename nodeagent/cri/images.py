"""`CriImages`: the agent's `ImageService`, done by a foreign runtime, which pulls, unpacks and keeps the images."""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.cri import statuses
from nodeagent.cri.client import CallFailed, Client
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code
from nodeagent.images import references
from nodeagent.runtime.interface import Image, RegistryAuth, RuntimeFailure

PULL_LIMIT_S = 3600.0  # kubelet has none; a runtime gives up by itself when nothing comes any more
_PULL, _NAME, _REGISTRY = "ErrImagePull", "InvalidImageName", "RegistryUnavailable"


class CriImages:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def status(self, reference: str) -> Image | None:
        request = {"image": {"image": _named(reference)}, "verbose": True}
        answer = await self._client.call("ImageStatus", request, reason="ImageInspectError")
        found = answer.get("image")
        return statuses.image_from_cri(found, answer["info"]) if found else None

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> Image:
        last: CallFailed | None = None
        for credentials in (*auth, None) if auth else (None,):
            try:
                answer = await self._pull(_named(reference), credentials)
            except CallFailed as failure:
                last = last or failure  # with several credentials, the first word is the one to go by
                continue
            image = await self.status(answer["image_ref"]) or await self.status(reference)
            if image is None:
                raise RuntimeFailure(f'pulled image "{reference}" is not there', _PULL)
            return image
        assert last is not None
        raise RuntimeFailure(f'failed to pull image "{reference}": {last}', _reason(last)) from last

    async def _pull(self, reference: str, credentials: RegistryAuth | None) -> Message:
        request: Message = {"image": {"image": reference}}
        if credentials is not None:
            request["auth"] = {
                "username": credentials.username,
                "password": credentials.password,
                "identity_token": credentials.token,
            }
        return await self._client.call("PullImage", request, timeout_s=PULL_LIMIT_S, reason=_PULL)

    async def load(self, path: str) -> Sequence[Image]:
        raise RuntimeFailure("the CRI cannot load image archives; use the runtime's own tool (ctr images import)")

    async def images(self) -> Sequence[Image]:
        answer = await self._client.call("ListImages")
        return [statuses.image_from_cri(image) for image in answer["images"]]

    async def remove(self, reference: str) -> None:
        await self._client.call("RemoveImage", {"image": {"image": _named(reference)}})

    async def mountpoint(self) -> str:
        """A directory of the file system that images are on; empty if the runtime does not say."""
        answer = await self._client.call("ImageFsInfo")
        for entry in answer["image_filesystems"]:
            if entry.get("fs_id"):
                return str(entry["fs_id"]["mountpoint"])
        return ""


def _named(reference: str) -> str:
    """As runtimes keep names: with registry and tag. Raises RuntimeFailure (InvalidImageName)."""
    if references.image_id(reference):
        return reference
    return str(references.parse(reference))


def _reason(failure: CallFailed) -> str:
    text = str(failure)
    if failure.code is Code.UNAVAILABLE or _REGISTRY in text:
        return _REGISTRY
    if "invalid reference format" in text or failure.code is Code.INVALID_ARGUMENT:
        return _NAME
    return _PULL
