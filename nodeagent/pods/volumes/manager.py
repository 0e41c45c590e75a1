"""A pod's volumes on this node: set up, kept current, taken down.

    <root>/pods/<uid>/volumes/<plugin>/<name>     configMap, emptyDir
    <root>/memory/<uid>/volumes/<plugin>/<name>   secret, projected, downwardAPI: on one tmpfs for the whole agent

Claims and nfs: claims.py, nfs.py; an image's layers are mounted read-only beside the others.

`prepare` is idempotent, so that a restarted agent (or container) just calls it again. `run` renews what changes over
time, once a minute for all pods together: it asks for each ConfigMap and Secret once a round, however many pods mount
it, renews tokens when they are due, and writes only what differs. Mounted by it: tmpfs for memory, images, NFS, and the
binds of subPath.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from nodeagent.pods import env
from nodeagent.pods.images import Images
from nodeagent.pods.model import Object
from nodeagent.pods.node import NodeFacts
from nodeagent.pods.objects import Objects
from nodeagent.pods.volumes import claims, content, nfs, ownership, places, subpath, writer
from nodeagent.pods.volumes.content import Tokens, VolumeFailure, Wish

log = logging.getLogger(__name__)

REFRESH_S = 60.0

_PLUGINS = {
    "configMap": "kubernetes.io~configmap", "secret": "kubernetes.io~secret", "projected": "kubernetes.io~projected",
    "downwardAPI": "kubernetes.io~downward-api", "emptyDir": "kubernetes.io~empty-dir",
    "image": "kubernetes.io~image",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that is ready. `path`: what is mounted, on the node."""

    path: str
    readonly: bool = False


@dataclass(slots=True)
class _Prepared:
    pod: Object
    volumes: Mapping[str, Volume]
    tokens: Tokens = field(default_factory=Tokens)


class Volumes:
    """All volumes of all pods of this node."""

    def __init__(self, node: NodeFacts, objects: Objects, images: Images | None = None) -> None:
        self._node = node
        self._images = images
        self._objects = objects
        self._prepared: dict[str, _Prepared] = {}
        self._adopted: dict[str, _Prepared] = {}  # set up by an earlier agent: to be renewed, not yet prepared by us
        self._under_way: dict[str, asyncio.Task[Mapping[str, Volume]]] = {}

    async def prepare(self, pod: Object, since: float) -> Mapping[str, Volume]:
        """Set up every volume of `pod`; name -> where it is. Callers at the same time share the work. Raises
        VolumeFailure naming the first that fails."""
        uid = pod["metadata"]["uid"]
        held = self._prepared.get(uid)
        if held is not None:
            return held.volumes
        task = self._under_way.get(uid)
        if task is None:
            task = self._under_way[uid] = asyncio.get_running_loop().create_task(self._prepare(pod, since))
            task.add_done_callback(lambda t: self._prepare_done(uid, t))
        return await asyncio.shield(task)

    def _prepare_done(self, uid: str, task: asyncio.Task[Mapping[str, Volume]]) -> None:
        if self._under_way.get(uid) is task:
            del self._under_way[uid]
        if not task.cancelled():
            task.exception()  # told to those who wait; nobody may be waiting

    async def _prepare(self, pod: Object, since: float) -> Mapping[str, Volume]:
        adopted = self._adopted.pop(pod["metadata"]["uid"], None)
        prepared = _Prepared(pod, {}, adopted.tokens if adopted is not None else Tokens())
        wish = self._wish(pod, prepared.tokens, since)
        volumes: list[Object] = pod["spec"].get("volumes") or []
        if len(volumes) == 1:
            found = [await self._prepare_one(volumes[0], wish)]
        else:
            found = await asyncio.gather(*[self._prepare_one(v, wish) for v in volumes])
        prepared.volumes = {v["name"]: f for v, f in zip(volumes, found, strict=True)}
        self._prepared[pod["metadata"]["uid"]] = prepared
        return prepared.volumes

    def adopt(self, pod: Object) -> None:
        """Keep the volumes of a pod current that an earlier agent set up."""
        uid = pod["metadata"]["uid"]
        if uid not in self._prepared and any(_kind(v) in content.KINDS for v in pod["spec"].get("volumes") or ()):
            self._adopted[uid] = _Prepared(pod, {})

    def update(self, pod: Object) -> None:
        """The pod has changed (labels show in downwardAPI volumes at the next round)."""
        for known in (self._prepared, self._adopted):
            held = known.get(pod["metadata"]["uid"])
            if held is not None:
                held.pod = pod

    async def run(self) -> None:
        """Renew contents every minute, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S * (0.9 + 0.2 * clock.chance.random()))
            await self.refresh()

    async def refresh(self) -> None:
        """One round of renewal. What fails is logged and tried in the next round."""
        since = clock.wall_time()
        for uid, held in [*self._prepared.items(), *self._adopted.items()]:
            for volume in _contents(held.pod):
                if uid not in self._prepared and uid not in self._adopted:
                    break
                try:
                    if await self._write(volume, self._wish(held.pod, held.tokens, since)):
                        log.info("volume_updated pod=%s volume=%s", held.pod["metadata"]["name"], volume["name"])
                except (VolumeFailure, StatusError, Unreachable, OSError) as error:
                    log.info("volume_not_updated pod=%s volume=%s error=%s", uid, volume["name"], error)

    async def remove(self, uid: str) -> None:
        """Take down all volumes and every other file of the pod. Contents may be large: not on the event loop."""
        self._prepared.pop(uid, None)
        self._adopted.pop(uid, None)
        if (task := self._under_way.get(uid)) is not None:
            task.cancel()
            await asyncio.wait([task])
        paths = [p for p in (self._node.secret_directory(uid), self._node.pod_directory(uid)) if os.path.isdir(p)]
        if paths:
            await asyncio.to_thread(_remove_all, paths)

    def subpath(self, pod: Object, volume: str, base: str, path: str, container: str, index: int) -> str:
        """A mount of `path` inside the volume at `base` that no symbolic link can lead astray. Raises VolumeFailure."""
        target = os.path.join(
            self._node.pod_directory(pod["metadata"]["uid"]), "volume-subpaths", volume, container, str(index)
        )
        try:
            fd = subpath.open_inside(base, path, create_mode=stat.S_IMODE(os.stat(base).st_mode) | 0o750)
        except OSError as error:
            message = f'failed to prepare subPath for volumeMount "{volume}" of container "{container}"'
            raise env.config_error(f"{message}: {error.strerror or error}") from error
        try:
            if os.path.lexists(target):
                places.unmount(target)
                if os.path.isdir(target) != stat.S_ISDIR(os.fstat(fd).st_mode):
                    os.rmdir(target) if os.path.isdir(target) else os.unlink(target)
            os.makedirs(os.path.dirname(target), 0o750, exist_ok=True)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.makedirs(target, 0o750, exist_ok=True)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640))
            places.bind(fd, target)
        finally:
            os.close(fd)
        return target

    def _wish(self, pod: Object, tokens: Tokens, since: float) -> Wish:
        sources = env.Sources(pod, self._node.ips, (), self._node.allocatable)
        return Wish(pod, sources, self._objects, tokens, since, clock.wall_time())

    async def _prepare_one(self, volume: Object, wish: Wish) -> Volume:
        try:
            return await self._set_up(volume, wish)
        except VolumeFailure as failure:
            raise VolumeFailure(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {failure}') from failure
        except (StatusError, Unreachable, OSError) as error:
            raise VolumeFailure(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error

    async def _set_up(self, volume: Object, wish: Wish) -> Volume:
        kind = _kind(volume)
        if kind in content.KINDS:
            await self._write(volume, wish)
            return Volume(self._path(wish.pod["metadata"]["uid"], volume), readonly=True)
        if kind == "emptyDir":
            path = self._path(wish.pod["metadata"]["uid"], volume)
            limit = places.memory_limit(wish.pod, volume["emptyDir"] or {}, self._node.allocatable)
            places.empty_dir(wish.pod, volume["emptyDir"] or {}, path, _fs_group(wish.pod), limit)
            return Volume(path)
        if kind == "hostPath":
            return Volume(places.host_path(volume["hostPath"]))
        if kind == "image":
            return await self._image(volume, wish)
        if kind == "nfs":
            return await self._nfs(volume["name"], volume["nfs"], [], wish.pod)
        if kind in ("persistentVolumeClaim", "ephemeral"):
            return await self._claimed(volume, kind, wish)
        raise VolumeFailure(f"volumes of type {kind or 'unknown'} are not supported by this node")

    async def _image(self, volume: Object, wish: Wish) -> Volume:
        """An image's files, read-only and without programs that run. Raises ImageNotReady."""
        if self._images is None:
            raise VolumeFailure("image volumes are not supported by this node")
        source = volume["image"] or {}
        policy = source.get("pullPolicy")
        like: Object = {"name": volume["name"], "image": source.get("reference") or ""}
        image = await self._images.ensure(wish.pod, like | ({"imagePullPolicy": policy} if policy else {}), wish.since)
        path = self._path(wish.pod["metadata"]["uid"], volume)
        await asyncio.to_thread(places.mount_layers, image.layers, path)
        return Volume(path, readonly=True)

    async def _nfs(self, name: str, source: Object, options: list[str], pod: Object) -> Volume:
        path = os.path.join(self._node.pod_directory(pod["metadata"]["uid"]), "volumes", "kubernetes.io~nfs", name)
        readonly = bool(source.get("readOnly"))
        await asyncio.to_thread(nfs.mount, source["server"], source["path"], path, options, readonly)
        return Volume(path, readonly)

    async def _claimed(self, volume: Object, kind: str, wish: Wish) -> Volume:
        found = await claims.resolve(volume, kind, wish.pod, self._objects, wish.since)
        gid, spec = _fs_group(wish.pod), found.spec
        if (source := spec.get("nfs")) is not None:
            mounted = await self._nfs(volume["name"], source, list(spec.get("mountOptions") or ()), wish.pod)
            return Volume(mounted.path, mounted.readonly or found.readonly)
        if (place := spec.get("hostPath")) is not None:
            path = places.host_path(place)
            # A path of the node's own is not ours to give away, but for one that was made for the claim.
            manage = found.dynamic
        elif (place := spec.get("local")) is not None:
            path, manage = places.host_path({**place, "type": "Directory"}), True
        else:
            raise VolumeFailure(f'persistentvolume "{found.name}" is of a type that this node does not support')
        if gid is not None and manage and not found.readonly:
            shared = wish.pod["spec"].get("securityContext") or {}
            lazily = shared.get("fsGroupChangePolicy") == "OnRootMismatch"
            await asyncio.to_thread(ownership.give, path, gid, only_on_mismatch=lazily)
        return Volume(path, found.readonly)

    async def _write(self, volume: Object, wish: Wish) -> bool:
        files = await content.payload(volume, wish)
        path = self._path(wish.pod["metadata"]["uid"], volume)
        gid = _fs_group(wish.pod)
        if not os.path.isdir(path):
            os.makedirs(path, 0o755)
            os.chmod(path, 0o777)
            places.own(path, gid)
        return writer.write(path, files, gid)

    def _path(self, uid: str, volume: Object) -> str:
        kind = _kind(volume)
        on_disk = kind in ("configMap", "emptyDir", "image")
        base = self._node.pod_directory(uid) if on_disk else self._node.secret_directory(uid)
        return os.path.join(base, "volumes", _PLUGINS[kind], volume["name"])


def _remove_all(paths: list[str]) -> None:
    for path in paths:
        places.remove_tree(path)


def _kind(volume: Object) -> str:
    return next((k for k in volume if k != "name"), "emptyDir")


def _contents(pod: Object) -> list[Object]:
    return [v for v in pod["spec"].get("volumes") or () if _kind(v) in content.KINDS]


def _fs_group(pod: Object) -> int | None:
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)
