"""The node's images: `ImageService` over the content on disk, registries and archives.

    pull:  name → manifest (for this machine) → config ─┬→ layers, several at a time → unpacked from the lowest up
    load:  archive → manifest → config ─────────────────┘                            → state.json

A layer is kept by its chain id and shared by all images that have it. Pulling an image twice at the same time is
pulling it once. Downloading is asynchronous; hashing, unpacking and removing run in threads.

It does not decide when to pull or what to collect (pods/), nor mounts anything (runtime/).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from controlplane import clock
from nodeagent.images import manifest, references, state, unpack
from nodeagent.images.content import Content, remove
from nodeagent.images.endpoints import Registries
from nodeagent.images.layout import Archive, Found
from nodeagent.images.manifest import Config, Descriptor, ImageInvalid
from nodeagent.images.references import Reference
from nodeagent.images.state import Stored
from nodeagent.runtime.interface import Image, NotFound, RegistryAuth, RuntimeFailure

if TYPE_CHECKING:
    from nodeagent.images.registry import RegistryClient, Repository

log = logging.getLogger(__name__)

_SETTLE_AFTER_S = 30.0

Opener = Callable[[int], Awaitable[IO[bytes]]]
"""The layer archive number i (from 0, lowest first), open for reading; closed by the taker."""


class LocalImages:
    """See the module. `start()` before use, `close()` after."""

    def __init__(
        self, root: Path, *, preload: Path | None = None, registries: Registries | None = None, parallel: int = 4
    ) -> None:
        """`root`: everything is kept below. `preload`: each *.tar in it is loaded at start. `parallel`: downloads at
        the same time."""
        self._content = Content(root)
        self._preload = preload
        self._registries = registries or Registries()
        self._client: RegistryClient | None = None
        self._downloads = asyncio.Semaphore(parallel)
        self._unpacks = asyncio.Semaphore(2)
        self._state = state.State()
        self._pulls: dict[tuple[str, tuple[RegistryAuth, ...]], asyncio.Task[Image]] = {}
        self._locks: dict[str, asyncio.Lock] = {}  # while somebody works on a layer or blob
        self._pinned: Counter[str] = Counter()  # chain ids that a running pull counts on
        self.blobs_in_use: Counter[str] = Counter()  # digests that a running pull downloads or unpacks
        self._settling: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find what is there and load what is to be preloaded. A broken archive is logged, not fatal."""
        await asyncio.to_thread(self._restore)
        self._settle_later()
        if self._preload is not None and self._preload.is_dir():
            for path in sorted(self._preload.glob("*.tar")):
                await self._load_once(path)

    def _restore(self) -> None:
        self._content.prepare()
        self._state = state.load(self._state_path)
        for image in list(self._state.images.values()):
            if not all(self._content.layer(chain).is_dir() for chain in image.chains):
                log.warning("image is damaged and forgotten id=%s tags=%s", image.id, image.tags)
                del self._state.images[image.id]
                self._state.preloaded.clear()
        for path in self._retire_unused():
            remove(path)

    async def _load_once(self, path: Path) -> None:
        status = path.stat()
        mark = (status.st_size, status.st_mtime_ns)
        if self._state.preloaded.get(str(path)) == mark:
            return
        try:
            await self.load(str(path), pinned=True)
        except (RuntimeFailure, OSError) as error:
            log.error("preload failed path=%s error=%s", path, error)
            return
        self._state.preloaded[str(path)] = mark
        self._save()

    async def close(self) -> None:
        """Stop pulls; what they have is kept for the next time."""
        tasks = [task for task in (*self._pulls.values(), self._settling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    @property
    def _state_path(self) -> Path:
        return self._content.root / "state.json"

    def _save(self) -> None:
        state.save(self._state, self._state_path)

    def _settle_later(self) -> None:
        """After a while, make sure that new layers are on the disk, and note it: nobody has to wait for that."""
        pending = any(not image.settled for image in self._state.images.values())
        if pending and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle(), name="images settle")

    async def _settle(self) -> None:
        while fresh := [image for image in self._state.images.values() if not image.settled]:
            await asyncio.sleep(_SETTLE_AFTER_S)
            await asyncio.to_thread(os.sync)
            for image in fresh:
                now = self._state.images.get(image.id)
                if now is not None and now.chains == image.chains:
                    self._state.images[image.id] = msgspec.structs.replace(now, settled=True)
            self._save()

    # -- what is there -------------------------------------------------------------------------------------------

    async def images(self) -> Sequence[Image]:
        return [image.image(self._content) for image in self._state.images.values()]

    async def status(self, reference: str) -> Image | None:
        found = self._find(reference)
        return None if found is None else found.image(self._content)

    def _find(self, text: str) -> Stored | None:
        id_ = references.image_id(text)
        if id_:
            return self._state.images.get(id_)
        reference = references.parse(text)
        if reference.digest:
            return self._state.with_digest(f"{reference.repository}@{reference.digest}")
        return self._state.named(reference.tagged)

    async def remove(self, reference: str) -> None:
        """By id: the image. By name: the name, and the image with its last one. No error if it is not there. The
        caller makes sure that no container uses it."""
        found = self._find(reference)
        if found is None:
            return
        tags: list[str] = []
        if not references.image_id(reference):
            name = references.parse(reference)
            tags = [tag for tag in found.tags if name.digest or tag != name.tagged]
        if tags:
            self._state.images[found.id] = msgspec.structs.replace(found, tags=tags)
        else:
            del self._state.images[found.id]
        self._save()
        log.info("image removed reference=%s id=%s kept=%s", reference, found.id, bool(tags))
        doomed = self._retire_unused()
        for path in doomed:
            await asyncio.to_thread(remove, path)

    def _retire_unused(self) -> list[Path]:
        """On the loop, without a pause, so that no pull can begin to count on a layer meanwhile."""
        used = {chain for image in self._state.images.values() for chain in image.chains} | set(self._pinned)
        return self._content.retire_layers(self._content.layer(chain) for chain in used)

    # -- pull ----------------------------------------------------------------------------------------------------

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> Image:
        key = (reference, tuple(auth))
        task = self._pulls.get(key)
        if task is None:
            task = self._pulls[key] = asyncio.create_task(self._pull(references.parse(reference), auth))
            task.add_done_callback(lambda _: self._pulls.pop(key, None))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, also if nobody waits
        return await asyncio.shield(task)

    async def _pull(self, reference: Reference, auth: Sequence[RegistryAuth]) -> Image:
        started = asyncio.get_running_loop().time()
        try:
            await asyncio.to_thread(self._content.forget_partial, clock.wall_time())
            image = await self._pull_from(self._registry().repository(reference, auth), reference)
        except OSError as error:
            raise RuntimeFailure(f'failed to pull image "{reference}": {error}', "ErrImagePull") from error
        seconds = asyncio.get_running_loop().time() - started
        log.info("image pulled reference=%s id=%s seconds=%.3f", reference, image.id, seconds)
        return image

    def _registry(self) -> RegistryClient:
        """Made at the first pull: see endpoints.py for why."""
        if self._client is None:
            from nodeagent.images.registry import RegistryClient

            self._client = RegistryClient(self._registries)
        return self._client

    async def _pull_from(self, repository: Repository, reference: Reference) -> Image:
        data = await repository.fetch_manifest(reference.target)
        digest = reference.digest or manifest.digest_of(data)
        document = manifest.decode(data, str(reference))
        if manifest.is_index(document):
            child = manifest.choose(document)
            document = manifest.decode(await repository.fetch_manifest(child.digest), child.digest)
        found = manifest.manifest(document)
        config = manifest.config(await repository.fetch_small_blob(found.config))
        size = sum(max(0, layer.size) for layer in (*found.layers, found.config))
        stored = Stored(
            found.config.digest,
            config.run,
            config.chain_ids,
            [reference.tagged] if reference.tag and not reference.digest else [],
            [f"{reference.repository}@{digest}"],
            size,
        )
        with _Pins(self._pinned, config.chain_ids):
            downloads = _Downloads(self, repository, found.layers, config.chain_ids)
            try:
                await self._unpack_all(config, len(found.layers), downloads.open)
            finally:
                await downloads.close()
            return self._add(stored)

    def _add(self, stored: Stored) -> Image:
        stored = self._state.add(stored)
        self._save()
        self._settle_later()
        return stored.image(self._content)

    async def _unpack_all(self, config: Config, layers: int, open_layer: Opener) -> None:
        """Make every layer of `config` present, from the lowest up. Raises ImageInvalid, OSError."""
        if layers != len(config.diff_ids):
            raise ImageInvalid(f"image {config.id}: {layers} layers, but {len(config.diff_ids)} diff_ids")
        below: list[Path] = []
        for i, chain in enumerate(config.chain_ids):
            path = self._content.layer(chain)
            async with self.lock(f"layer {chain}"):
                if not path.is_dir():
                    stream = await open_layer(i)
                    async with self._unpacks:
                        await asyncio.to_thread(self._unpack, stream, chain, config.diff_ids[i], below)
            below.insert(0, path)

    def _unpack(self, stream: IO[bytes], chain: str, diff_id: str, below: list[Path]) -> None:
        scratch = self._content.scratch("layer")
        try:
            with stream:
                unpack.unpack(stream, scratch, below, diff_id)
            self._content.commit_layer(scratch, chain)
        finally:
            if scratch.exists():
                remove(scratch)

    def lock(self, name: str) -> asyncio.Lock:
        """For whoever works on `name`: "layer CHAIN-ID" or "blob DIGEST" (an uncompressed layer has both alike).
        Unused ones are forgotten."""
        if len(self._locks) > 256:
            self._locks = {key: lock for key, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault(name, asyncio.Lock())

    async def download(self, repository: Repository, wanted: Descriptor) -> None:
        """Bring a layer's blob onto the disk unless it is there."""
        async with self._downloads, self.lock(f"blob {wanted.digest}"):
            if not self._content.blob(wanted.digest).exists():
                await repository.fetch_blob(wanted, self._content)

    @property
    def content(self) -> Content:
        return self._content

    # -- load ----------------------------------------------------------------------------------------------------

    async def load(self, path: str, *, pinned: bool = False, name: str = "") -> Sequence[Image]:
        """`pinned`: never to be collected. `name`: what the file is called, if `path` does not say."""
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(await asyncio.to_thread(Archive, Path(path), name))
                images = []
                for found in await asyncio.to_thread(archive.images):
                    images.append(await self._load_one(archive, found, pinned))
            except OSError as error:
                raise RuntimeFailure(f"cannot load {name or path}: {error}", "ErrImagePull") from error
        if not images:
            raise NotFound(f"{name or path}: no image in it", "ErrImagePull")
        for image in images:
            log.info("image loaded path=%s id=%s tags=%s", name or path, image.id, ",".join(image.tags))
        return images

    async def _load_one(self, archive: Archive, found: Found, pinned: bool) -> Image:
        config = manifest.config(found.config)
        repositories = {references.parse(tag).repository for tag in found.tags}
        digests = [f"{repository}@{found.digest}" for repository in sorted(repositories)] if found.digest else []

        async def open_layer(i: int) -> IO[bytes]:
            return await asyncio.to_thread(archive.open, found.layers[i])

        with _Pins(self._pinned, config.chain_ids):
            await self._unpack_all(config, len(found.layers), open_layer)
            stored = Stored(config.id, config.run, config.chain_ids, list(found.tags), digests, found.size_bytes)
            return self._add(msgspec.structs.replace(stored, pinned=pinned))


class _Pins:
    """While inside, no clean-up takes these layers away."""

    def __init__(self, pinned: Counter[str], chains: Sequence[str]) -> None:
        self._pinned = pinned
        self._chains = chains

    def __enter__(self) -> None:
        self._pinned.update(self._chains)

    def __exit__(self, *error: object) -> None:
        self._pinned.subtract(self._chains)
        for chain in self._chains:
            if self._pinned[chain] <= 0:
                del self._pinned[chain]


class _Downloads:
    """The layers of one pull: all missing ones start at once, as far as the service's limit lets them."""

    def __init__(
        self, service: LocalImages, repository: Repository, layers: Sequence[Descriptor], chains: Sequence[str]
    ) -> None:
        self._service = service
        self._layers = layers
        self._tasks = {
            layer.digest: asyncio.create_task(service.download(repository, layer))
            for layer, chain in zip(layers, chains, strict=False)
            if not service.content.layer(chain).is_dir()
        }
        service.blobs_in_use.update(list(self._tasks))

    async def open(self, i: int) -> IO[bytes]:
        digest = self._layers[i].digest
        await self._tasks[digest]
        return self._service.content.blob(digest).open("rb")

    async def close(self) -> None:
        """The blobs have served, unless another pull needs one of them, too."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        in_use = self._service.blobs_in_use
        in_use.subtract(list(self._tasks))
        for digest in self._tasks:
            if in_use[digest] <= 0:
                del in_use[digest]
                with suppress(OSError):
                    self._service.content.blob(digest).unlink(missing_ok=True)
