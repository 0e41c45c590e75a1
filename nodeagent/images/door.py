"""The images' door for the administrator of this machine: a socket that only root can open, for `wherry image`.

One message a request, several for an answer (runtime/wire.py); an archive comes as an open file beside its message, so
that nobody needs to see the other's directories. The agent alone works on its images, so that nothing must be locked
against anybody; without an agent there is nobody to ask.

    {"op": "ls"}                                    → {"image": {…}} each, {"done": true}
    {"op": "pull", "reference", "auth": […]}        → {"images": [id]}, or {"error": text}
    {"op": "load", "name"} with a descriptor        → the same
    {"op": "rm", "reference", "force"}              → {"images": []}
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from nodeagent.images.service import LocalImages
from nodeagent.runtime import wire
from nodeagent.runtime.interface import Image, RegistryAuth, RuntimeFailure

log = logging.getLogger(__name__)

Message = dict[str, Any]
_MAX_NAMES = 20


class Door:
    """`used()`: ids of images in use, which are not removed without force. `changed()` is called after a change."""

    def __init__(
        self, images: LocalImages, path: str, used: Callable[[], Awaitable[Collection[str]]],
        changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._images, self._path, self._used, self._changed = images, path, used, changed
        self._listener: wire.Socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Raises OSError."""
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        self._listener = wire.bind(self._path)
        self._listener.listen(8)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    async def close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock = wire.accept(self._listener)
        except OSError:
            return
        task = asyncio.get_running_loop().create_task(self._serve(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: wire.Socket) -> None:
        """One request on one connection."""
        fds: list[int] = []
        try:
            await _ready(sock, write=False)
            received = wire.receive(sock)
            if received is None:
                return
            message, fds = received
            try:
                async for answer in self._answers(message, fds):
                    await _send(sock, answer)
            except (RuntimeFailure, OSError, KeyError, TypeError, ValueError) as error:
                text = str(error) if isinstance(error, RuntimeFailure | OSError) else f"malformed request: {error!r}"
                await _send(sock, {"error": text[:4000]})
        except (OSError, ValueError):
            pass  # whoever asked has gone
        finally:
            for fd in fds:
                os.close(fd)
            sock.close()

    async def _answers(self, message: Message, fds: list[int]) -> Any:
        match message["op"]:
            case "ls":
                used = await self._used()
                for image in await self._images.images():
                    yield {"image": _described(image, in_use=image.id in used)}
                yield {"done": True}
            case "pull":
                auth = [RegistryAuth(*map(str, entry)) for entry in message.get("auth") or ()]
                pulled = await self._images.pull(str(message["reference"]), auth)
                self._changed()
                yield {"images": [_described(pulled)]}
            case "load":
                loaded = await self._images.load(f"/proc/self/fd/{fds[0]}", name=str(message.get("name", "")))
                self._changed()
                yield {"images": [_described(image) for image in loaded][:_MAX_NAMES]}
            case "rm":
                await self._remove(str(message["reference"]), force=bool(message.get("force")))
                self._changed()
                yield {"images": []}
            case other:
                raise ValueError(f"unknown request {other!r}")

    async def _remove(self, reference: str, *, force: bool) -> None:
        found = await self._images.status(reference)
        if found is None:
            raise RuntimeFailure(f"no such image: {reference}")
        if not force and found.id in await self._used():
            raise RuntimeFailure(f"image {reference} is in use by a pod of this node")
        await self._images.remove(reference)


def _described(image: Image, *, in_use: bool = False) -> Message:
    return {
        "id": image.id,
        "tags": list(image.tags)[:_MAX_NAMES],
        "digests": list(image.digests)[:_MAX_NAMES],
        "size": image.size_bytes,
        "in_use": in_use,
        "pinned": image.pinned,
    }


async def _send(sock: wire.Socket, message: Message) -> None:
    while True:
        try:
            wire.send(sock, message)
            return
        except BlockingIOError:
            await _ready(sock, write=True)


async def _ready(sock: wire.Socket, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(sock.fileno(), lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        remove(sock.fileno())
