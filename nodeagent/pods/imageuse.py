"""Which images are in use on this node, for those who would remove the others.

In use is what a container that is still there was made of, and what a pod mounts as a volume; and for who removes by
himself also what was handed out a moment ago, before there is a container.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodeagent.pods.images import Images
from nodeagent.pods.manager import PodManager
from nodeagent.runtime.interface import Runtime, RuntimeFailure


@dataclass(frozen=True, slots=True)
class ImageUse:
    runtime: Runtime
    pods: PodManager
    images: Images

    async def __call__(self) -> set[str]:
        """Image ids that a garbage collector must spare. Raises RuntimeFailure: who does not know must not remove."""
        return self.images.wanted_lately() | await self.now()

    async def now(self) -> set[str]:
        """Image ids that something on the node is made of. Raises RuntimeFailure."""
        used = {container.image for container in await self.runtime.containers()}
        for pod in self.pods.pods():
            for volume in pod["spec"].get("volumes") or ():
                reference = (volume.get("image") or {}).get("reference")
                if reference and (found := await self._find(reference)):
                    used.add(found)
        return used

    async def _find(self, reference: str) -> str:
        try:
            image = await self.images.service.status(reference)
        except RuntimeFailure:  # not a name
            return ""
        return image.id if image else ""
