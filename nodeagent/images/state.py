"""What this node knows about its images, in one small file, replaced as a whole at each change."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from nodeagent.images.content import Content
from nodeagent.runtime.interface import Image, ImageConfig


class Stored(msgspec.Struct, frozen=True):
    """One image. `chains`: chain ids, lowest first. `settled`: its layers are known to be on the disk. `pinned`: it
    came from a preloaded archive."""

    id: str
    config: ImageConfig
    chains: list[str]
    tags: list[str]
    digests: list[str]
    size_bytes: int
    settled: bool = False
    pinned: bool = False

    def image(self, content: Content) -> Image:
        """As the interface shows it."""
        return Image(
            self.id,
            tuple(str(content.layer(chain)) for chain in reversed(self.chains)),
            self.config,
            tuple(self.tags),
            tuple(self.digests),
            self.size_bytes,
            self.pinned,
        )


class State(msgspec.Struct):
    """`boot_id`: of the boot in which this was written. `preloaded`: archives that were loaded, by path, with their
    size and time."""

    boot_id: str = ""
    images: dict[str, Stored] = {}
    preloaded: dict[str, tuple[int, int]] = {}

    def named(self, tag: str) -> Stored | None:
        return next((image for image in self.images.values() if tag in image.tags), None)

    def with_digest(self, repository_digest: str) -> Stored | None:
        return next((image for image in self.images.values() if repository_digest in image.digests), None)

    def add(self, image: Stored) -> Stored:
        """Put `image` in, with the names that it has and had; a name means the last image that got it."""
        for other in list(self.images.values()):
            if other.id != image.id and set(other.tags) & set(image.tags):
                kept = [tag for tag in other.tags if tag not in image.tags]
                self.images[other.id] = msgspec.structs.replace(other, tags=kept)
        known = self.images.get(image.id)
        if known is not None:
            image = msgspec.structs.replace(
                image,
                tags=[*known.tags, *(t for t in image.tags if t not in known.tags)],
                digests=[*known.digests, *(d for d in image.digests if d not in known.digests)],
                settled=known.settled and known.chains == image.chains,
                pinned=known.pinned or image.pinned,
            )
        self.images[image.id] = image
        return image


def boot_id() -> str:
    """Changes at each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load(path: Path) -> State:
    """What was saved; a fresh state if there is nothing, or nothing usable (then images are fetched again)."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except (FileNotFoundError, msgspec.MsgspecError):
        return State(boot_id())
    now = boot_id()
    if state.boot_id != now:  # whatever was not on the disk yet at the end of that boot may be damaged
        settled = {id_: image for id_, image in state.images.items() if image.settled}
        if len(settled) < len(state.images):
            state.preloaded = {}  # some of what is gone may have come from there
        state.images, state.boot_id = settled, now
    return state


def save(state: State, path: Path) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(msgspec.json.encode(state))
    os.replace(unfinished, path)
