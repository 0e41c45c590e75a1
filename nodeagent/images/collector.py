"""Image garbage collection: unused images make room when the disk fills, the longest unused first.

Every five minutes: whoever uses an image now is noted; then, if the disk is fuller than the high threshold, images go
until it is at the low one. Images in use, preloaded ones, and those that came within the minimum age stay. Rules and
messages: kubelet's pkg/kubelet/images/image_gc_manager.go. Use is remembered in memory only: after a restart every
image counts as just seen, which errs on the side of keeping.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from nodeagent.runtime.interface import Image, ImageService, RuntimeFailure

log = logging.getLogger(__name__)

PERIOD_S = 300.0

Tell = Callable[[str, str, str], None]
"""`tell(type, reason, message)`: an event of the Node."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Percent of the disk; seconds. `maximum_age_s`: unused images go after it whatever the disk says; 0: never."""

    high_percent: int = 85
    low_percent: int = 80
    minimum_age_s: float = 120.0
    maximum_age_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.low_percent <= self.high_percent <= 100:
            raise ValueError("image_gc thresholds: 0 <= low <= high <= 100")


@dataclass(slots=True)
class _Seen:
    detected_at: float
    used_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Disk:
    """Of the file system that images are on, in bytes."""

    capacity: int
    available: int


def disk_of(path: str) -> Disk:
    """Raises OSError."""
    found = os.statvfs(path)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


class ImageCollector:
    """`used()`: ids of the images that containers (also ended ones that are still there) and volumes use."""

    def __init__(
        self, images: ImageService, policy: Policy, used: Callable[[], Awaitable[Collection[str]]],
        disk: Callable[[], Disk], tell: Tell, changed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:  # fmt: skip
        self._images, self._policy, self._used, self._disk = images, policy, used, disk
        self._tell, self._changed, self._now = tell, changed, now
        self._seen: dict[str, _Seen] = {}
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.collect()
            except (RuntimeFailure, OSError) as error:
                log.warning("image_gc_failed error=%s", error)
                self._tell("Warning", "ImageGCFailed", str(error))
            await asyncio.sleep(PERIOD_S)

    async def collect(self) -> int:
        """One round; the bytes that were given back. Raises RuntimeFailure, OSError."""
        async with self._busy:
            began = self._now()
            idle = await self._look(began)
            freed = 0
            if self._policy.maximum_age_s:
                old = [i for i in idle if began - self._since(i) > self._policy.maximum_age_s]
                freed += await self._remove(old, began)
                idle = [i for i in idle if i not in old]
            disk = self._disk()
            if disk.capacity <= 0:
                raise RuntimeFailure("invalid capacity 0 on image filesystem", "ImageGCFailed")
            percent = 100 - disk.available * 100 // disk.capacity
            if percent < self._policy.high_percent:
                return freed
            target = disk.capacity * (100 - self._policy.low_percent) // 100
            wanted = target - disk.available
            log.info("image_gc usage_percent=%d high=%d to_free=%d", percent, self._policy.high_percent, wanted)
            found = await self._remove(idle, began, lambda: self._disk().available >= target)
            if self._disk().available < target:
                message = (
                    "Failed to garbage collect required amount of images. Attempted to free "
                    f"{wanted} bytes, but only found {found} bytes eligible to free."
                )
                log.warning("image_gc_not_enough wanted=%d found=%d", wanted, found)
                self._tell("Warning", "FreeDiskSpaceFailed", message)
            return freed + found

    async def remove_unused(self) -> int:
        """All images that nobody uses, whatever their age: the node is short of disk. The bytes that were given back.
        Raises RuntimeFailure."""
        async with self._busy:
            now = self._now()
            return await self._remove(await self._look(now), now, minimum_age_s=0.0)

    async def _look(self, now: float) -> list[Image]:
        """Note who is there and used; the unused ones, longest unused first."""
        used = set(await self._used())
        images = await self._images.images()
        self._seen = {i.id: self._seen.get(i.id) or _Seen(now) for i in images}
        for image in images:
            if image.id in used:
                self._seen[image.id].used_at = now
        idle = [i for i in images if i.id not in used and not i.pinned]
        return sorted(idle, key=lambda i: (self._seen[i.id].used_at, self._seen[i.id].detected_at, i.id))

    def _since(self, image: Image) -> float:
        """When it was last used, or seen first."""
        seen = self._seen[image.id]
        return max(seen.used_at, seen.detected_at)

    async def _remove(
        self, images: list[Image], now: float, enough: Callable[[], bool] = lambda: False,
        minimum_age_s: float | None = None,
    ) -> int:  # fmt: skip
        """Remove until it is `enough`; the sizes of what went. What the disk has gained is another number: layers are
        kept unpacked, and shared."""
        age = self._policy.minimum_age_s if minimum_age_s is None else minimum_age_s
        freed = 0
        for image in images:
            if now - self._seen[image.id].detected_at < age:
                continue  # somebody may just be about to use it
            if image.id in await self._used():  # a container was made while others were removed
                continue
            log.info("image_gc_remove id=%s tags=%s bytes=%d", image.id, ",".join(image.tags), image.size_bytes)
            await self._images.remove(image.id)
            del self._seen[image.id]
            freed += image.size_bytes
            if enough():
                break
        if freed:
            self._changed()
        return freed
