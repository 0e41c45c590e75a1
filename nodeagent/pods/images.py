"""Getting the image of a container by its pull policy, with back-off and credentials.

One pull of a reference at a time: pods that need the same image wait for the same pull. A failed pull is not tried
again before its back-off (10 s … 5 min) has passed; asking earlier fails at once with ImagePullBackOff.
Policies and messages: kubelet's pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence

from controlplane import clock
from nodeagent.pods.backoff import Backoff
from nodeagent.pods.model import Object
from nodeagent.pods.objects import Objects, registry_credentials
from nodeagent.runtime.interface import Image, ImageService, RegistryAuth, RuntimeFailure

log = logging.getLogger(__name__)

Tell = Callable[[Object, str, str, str], None]
"""`tell(pod, type, reason, message)`: record an event."""

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?/)?"  # registry
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"  # path
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


class ImageNotReady(RuntimeFailure):
    """The image is not there. `retry_at`: when asking again may help, seconds since the epoch."""

    def __init__(self, message: str, reason: str, retry_at: float) -> None:
        super().__init__(message, reason)
        self.retry_at = retry_at


def pull_policy(container: Object) -> str:
    """The container's imagePullPolicy, or its default: Always for `latest` or no tag, else IfNotPresent."""
    policy = container.get("imagePullPolicy")
    if policy:
        return str(policy)
    name = str(container.get("image", "")).rpartition("/")[2]
    if "@" in name:
        return "IfNotPresent"
    tag = name.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def registry_of(reference: str) -> str:
    """The host that a reference is pulled from; docker.io when it names none."""
    head, slash, _ = reference.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        return head
    return "docker.io"


class Images:
    """The node's images, as pods ask for them."""

    def __init__(self, service: ImageService, objects: Objects, tell: Tell, max_parallel: int = 3) -> None:
        self.service = service
        self._objects = objects
        self._tell = tell
        self._pulling: dict[str, asyncio.Task[Image]] = {}
        self._backoff = Backoff()
        self._failed_at: dict[str, float] = {}
        self._slots = asyncio.Semaphore(max_parallel)
        self.names: dict[str, str] = {}  # image id -> what users see as imageID
        self.changed: Callable[[], None] = lambda: None  # called after a pull: the node's list of images is stale

    async def ensure(self, pod: Object, container: Object, since: float) -> Image:
        """The image of `container`, pulled if its policy says so. Raises ImageNotReady."""
        reference = container.get("image", "")
        now = clock.wall_time()
        if not _REFERENCE.fullmatch(reference) and not reference.startswith("sha256:"):
            message = f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
            message += "invalid reference format"
            self._tell(pod, "Warning", "InspectFailed", message)
            raise ImageNotReady(message, "InvalidImageName", now + 60)
        policy = pull_policy(container)
        present = await self.service.status(reference)
        if present is not None and policy != "Always":
            self.remember(present)
            self._tell(pod, "Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return present
        if policy == "Never":
            message = f'Container image "{reference}" is not present with pull policy of Never'
            self._tell(pod, "Warning", "ErrImageNeverPull", message)
            raise ImageNotReady(message, "ErrImageNeverPull", now + 10)
        until = (
            self._backoff.until(reference, self._failed_at.get(reference, 0.0)) if reference in self._failed_at else 0
        )
        if until > now:
            message = f'Back-off pulling image "{reference}"'
            self._tell(pod, "Normal", "BackOff", message)
            raise ImageNotReady(message, "ImagePullBackOff", until)
        return await self._pull(pod, reference, since)

    def remember(self, image: Image) -> None:
        self.names[image.id] = image.digests[0] if image.digests else image.id

    async def _pull(self, pod: Object, reference: str, since: float) -> Image:
        task = self._pulling.get(reference)
        if task is None:
            auth = await self._credentials(pod, reference, since)
            task = asyncio.get_running_loop().create_task(self._pull_now(reference, auth))
            self._pulling[reference] = task
            task.add_done_callback(lambda _: self._pulling.pop(reference, None))
        self._tell(pod, "Normal", "Pulling", f'Pulling image "{reference}"')
        began = asyncio.get_running_loop().time()
        try:
            image = await asyncio.shield(task)
        except RuntimeFailure as failure:
            now = clock.wall_time()
            message = f'Failed to pull image "{reference}": {failure}'
            self._tell(pod, "Warning", "Failed", message)
            self._tell(pod, "Warning", "Failed", f"Error: {failure.reason}")
            # Look again in a moment: the back-off then shows as ImagePullBackOff, as users know it.
            raise ImageNotReady(message, failure.reason, now + 2) from failure
        took = asyncio.get_running_loop().time() - began
        text = f'Successfully pulled image "{reference}" in {took:.3g}s. Image size: {image.size_bytes} bytes.'
        self._tell(pod, "Normal", "Pulled", text)
        return image

    async def _pull_now(self, reference: str, auth: Sequence[RegistryAuth]) -> Image:
        async with self._slots:
            log.info("pull image=%s", reference)
            try:
                image = await self.service.pull(reference, auth)
            except RuntimeFailure as failure:
                now = clock.wall_time()
                self._backoff.next(reference, now, now)
                self._failed_at[reference] = now
                log.info("pull_failed image=%s error=%s", reference, failure)
                raise
            self._backoff.reset(reference)
            self._failed_at.pop(reference, None)
            log.info("pulled image=%s id=%s bytes=%d", reference, image.id, image.size_bytes)
            self.remember(image)
            self.changed()
            return image

    async def _credentials(self, pod: Object, reference: str, since: float) -> list[RegistryAuth]:
        """Those of the pod's imagePullSecrets that are for the image's registry. A missing secret is no error."""
        result: list[RegistryAuth] = []
        host = registry_of(reference)
        hosts = {host, "index.docker.io"} if host == "docker.io" else {host}
        for entry in pod["spec"].get("imagePullSecrets") or ():
            name = entry.get("name", "")
            secret = await self._objects.secret(pod["metadata"].get("namespace", ""), name, since) if name else None
            if secret is None:
                continue
            try:
                known = registry_credentials(secret)
            except ValueError as error:
                log.warning("pull_secret_unreadable secret=%s error=%s", name, type(error).__name__)
                continue
            result += [RegistryAuth(*known[h]) for h in known if h in hosts]
        return result
