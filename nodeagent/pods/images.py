"""Getting the image of a container by its pull policy, with back-off and credentials.

One pull of a reference at a time: pods that need the same image with the same credentials wait for the same pull. A
failed pull is not tried again before its back-off (10 s … 5 min) has passed; asking earlier fails at once with
ImagePullBackOff.
Policies and messages: kubelet's pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from controlplane import clock
from nodeagent.images import credentials, references
from nodeagent.pods.backoff import Backoff
from nodeagent.pods.model import Object
from nodeagent.pods.objects import Objects
from nodeagent.runtime.interface import Image, ImageService, RegistryAuth, RuntimeFailure

log = logging.getLogger(__name__)

_UNLIMITED = 1_000_000
_LATELY_S = 120.0

Tell = Callable[[Object, str, str, str], None]
"""`tell(pod, type, reason, message)`: record an event."""


class ImageNotReady(RuntimeFailure):
    """The image is not there. `retry_at`: when asking again may help, seconds since the epoch."""

    def __init__(self, message: str, reason: str, retry_at: float) -> None:
        super().__init__(message, reason)
        self.retry_at = retry_at


def pull_policy(container: Object) -> str:
    """The container's imagePullPolicy, or its default: Always for `latest` or no tag, else IfNotPresent. Raises
    InvalidName."""
    policy = container.get("imagePullPolicy")
    if policy:
        return str(policy)
    return "Always" if references.parse(str(container.get("image", ""))).tag == "latest" else "IfNotPresent"


class Images:
    """The node's images, as pods ask for them. `max_parallel`: pulls at the same time, 0 for as many as there are."""

    def __init__(self, service: ImageService, objects: Objects, tell: Tell, max_parallel: int = 3) -> None:
        self.service = service
        self._objects = objects
        self._tell = tell
        self._pulling: dict[tuple[str, tuple[RegistryAuth, ...]], asyncio.Task[tuple[Image, float]]] = {}
        self._backoff = Backoff()
        self._failures: dict[str, tuple[float, str]] = {}  # when, and why
        self._slots = asyncio.Semaphore(max_parallel or _UNLIMITED)
        self._asked: dict[str, float] = {}
        self.names: dict[str, str] = {}  # image id -> what users see as imageID
        self.changed: Callable[[], None] = lambda: None  # called after a pull: the node's list of images is stale

    async def ensure(self, pod: Object, container: Object, since: float) -> Image:
        """The image of `container`, pulled if its policy says so. Raises ImageNotReady."""
        reference = container.get("image", "")
        now = clock.wall_time()
        try:
            policy = pull_policy(container)
            if not references.image_id(reference):
                references.parse(reference)
        except references.InvalidName as error:
            message = f'Failed to apply default image tag "{reference}": {error}'
            self._tell(pod, "Warning", "InspectFailed", message)
            raise ImageNotReady(message, "InvalidImageName", now + 60) from error
        present = await self.service.status(reference)
        if present is not None and policy != "Always":
            self._hand_over(present)
            self._tell(pod, "Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return present
        if policy == "Never":
            message = f'Container image "{reference}" is not present with pull policy of Never'
            self._tell(pod, "Warning", "ErrImageNeverPull", message)
            raise ImageNotReady(message, "ErrImageNeverPull", now + 10)
        failed_at, why = self._failures.get(reference, (0.0, ""))
        until = self._backoff.until(reference, failed_at) if failed_at else 0.0
        if until > now:
            message = f'Back-off pulling image "{reference}"'
            self._tell(pod, "Normal", "BackOff", message)
            self._tell(pod, "Warning", "Failed", "Error: ImagePullBackOff")
            raise ImageNotReady(f"{message}: {why}", "ImagePullBackOff", until)
        return await self._pull(pod, reference, since)

    def remember(self, image: Image) -> None:
        self.names[image.id] = image.digests[0] if image.digests else image.id

    def _hand_over(self, image: Image) -> None:
        self.remember(image)
        self._asked[image.id] = asyncio.get_running_loop().time()

    def wanted_lately(self) -> set[str]:
        """Images that somebody asked for so short a time ago that no container may use them yet."""
        now = asyncio.get_running_loop().time()
        self._asked = {id_: at for id_, at in self._asked.items() if now - at < _LATELY_S}
        return set(self._asked)

    async def _pull(self, pod: Object, reference: str, since: float) -> Image:
        key = reference, tuple(await self._credentials(pod, reference, since))
        task = self._pulling.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull_now(*key))
            self._pulling[key] = task
            task.add_done_callback(lambda _: self._pulling.pop(key, None))
        self._tell(pod, "Normal", "Pulling", f'Pulling image "{reference}"')
        began = asyncio.get_running_loop().time()
        try:
            image, seconds = await asyncio.shield(task)
        except RuntimeFailure as failure:
            now = clock.wall_time()
            self._tell(pod, "Warning", "Failed", f'Failed to pull image "{reference}": {failure}')
            self._tell(pod, "Warning", "Failed", f"Error: {failure.reason}")
            # Look again in a moment: the back-off then shows as ImagePullBackOff, as users know it.
            raise ImageNotReady(_explained(reference, failure), failure.reason, now + 2) from failure
        self._hand_over(image)
        waited = asyncio.get_running_loop().time() - began
        text = f'Successfully pulled image "{reference}" in {_duration(seconds)} ({_duration(waited)} including '
        self._tell(pod, "Normal", "Pulled", f"{text}waiting). Image size: {image.size_bytes} bytes.")
        return image

    async def _pull_now(self, reference: str, auth: tuple[RegistryAuth, ...]) -> tuple[Image, float]:
        """The image, and how many seconds its pull took without waiting for others."""
        async with self._slots:
            log.info("pull image=%s", reference)
            began = asyncio.get_running_loop().time()
            try:
                image = await self.service.pull(reference, auth)
            except RuntimeFailure as failure:
                now = clock.wall_time()
                self._backoff.next(reference, now, now)
                self._failures[reference] = now, f"{failure.reason}: {_explained(reference, failure)}"
                log.info("pull_failed image=%s error=%s", reference, failure)
                raise
            self._backoff.reset(reference)
            self._failures.pop(reference, None)
            log.info("pulled image=%s id=%s bytes=%d", reference, image.id, image.size_bytes)
            self.remember(image)
            self.changed()
            return image, asyncio.get_running_loop().time() - began

    async def _credentials(self, pod: Object, reference: str, since: float) -> list[RegistryAuth]:
        """Those of the pod's imagePullSecrets that are for the image. A missing or unreadable secret is no error: the
        image may be public."""
        keyring: list[tuple[str, RegistryAuth]] = []
        for entry in pod["spec"].get("imagePullSecrets") or ():
            name = entry.get("name", "")
            secret = await self._objects.secret(pod["metadata"].get("namespace", ""), name, since) if name else None
            if secret is None:
                continue
            try:
                keyring += credentials.of_secret(secret.get("data") or {})
            except ValueError as error:
                log.warning("pull_secret_unreadable secret=%s error=%s", name, error)
        found = credentials.lookup(keyring, references.parse(reference)) if keyring else []
        return list(dict.fromkeys(found))


def _explained(reference: str, failure: RuntimeFailure) -> str:
    """What a waiting container's message says of a failed pull (kubelet's evalCRIPullErr)."""
    if failure.reason == "RegistryUnavailable":
        return f"image pull failed for {reference} because the registry is unavailable: {failure}"
    return str(failure)


def _duration(seconds: float) -> str:
    """As Go prints a duration that was truncated to milliseconds: 85ms, 1.234s, 2m3s."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text
