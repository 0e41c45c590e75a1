"""Mirror pods: what the API server shows of a static pod.

    StatusManager ──patch status, delete──> Mirrors ──> PodApi (the API server)
                                              └── makes the mirror first, if it is missing

The status manager speaks of a static pod by its own uid (a hash of the file); here it is translated to the uid that the
API server gave the mirror. A mirror that someone deleted is made again; one whose file is gone, or says something else
by now, is deleted. Nothing that users do to a mirror touches the pod: it belongs to the node.
Source: kubelet's pkg/kubelet/pod/mirror_client.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from nodeagent.pods.model import CONFIG_HASH_ANNOTATION, MIRROR_ANNOTATION, Object
from nodeagent.pods.statusmanager import PodApi, is_mirror

log = logging.getLogger(__name__)


class MirrorApi(PodApi, Protocol):
    """The requests about pods that a node with static pods makes."""

    async def create(self, pod: Object) -> Object: ...


class Mirrors:
    """A `PodApi` for the status manager. `owner`: the Node as an owner reference, once it is known; `missing(uid)` is
    called when the mirror of that static pod has gone."""

    def __init__(self, api: MirrorApi, owner: Callable[[], Object | None], missing: Callable[[str], None]) -> None:
        self._api, self._owner, self._missing = api, owner, missing
        self._static: dict[str, Object] = {}
        self._mirrors: dict[tuple[str, str], Object] = {}
        self._settled = False
        self._tasks: set[asyncio.Task[None]] = set()

    # What the node runs.

    def begun(self, pod: Object) -> None:
        """A static pod that this node runs from now on."""
        self._static[pod["metadata"]["uid"]] = pod

    def ended(self, uid: str) -> None:
        """Nothing of the static pod is left."""
        pod = self._static.pop(uid, None)
        mirror = self._mirrors.get(_key(pod)) if pod else None
        if mirror is not None and _hash(mirror) == uid:
            self._delete_soon(mirror)

    # What the API server has.

    def seen(self, mirror: Object) -> None:
        """The API server has this mirror pod."""
        self._mirrors[_key(mirror)] = mirror
        if self._settled and (_hash(mirror) not in self._static or mirror["metadata"].get("deletionTimestamp")):
            self._delete_soon(mirror)

    def gone(self, mirror: Object) -> None:
        """It has it no more."""
        known = self._mirrors.get(_key(mirror))
        if known is not None and known["metadata"]["uid"] == mirror["metadata"]["uid"]:
            del self._mirrors[_key(mirror)]
        if self._settled:
            uid = next((uid for uid, pod in self._static.items() if _key(pod) == _key(mirror)), None)
            if uid is not None:
                self._missing(uid)

    def settled(self) -> None:
        """Every file and every mirror has been seen: a mirror without its file is a leftover."""
        self._settled = True
        for mirror in list(self._mirrors.values()):
            self.seen(mirror)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # PodApi, for the status manager.

    async def patch_status(self, namespace: str, name: str, body: Object) -> Object:
        uid = body["metadata"]["uid"]
        if uid not in self._static:
            return await self._api.patch_status(namespace, name, body)
        mirror = await self._mirror(uid)
        try:
            translated = {**body, "metadata": {"uid": mirror["metadata"]["uid"]}}
            return await self._api.patch_status(namespace, name, translated)
        except StatusError as error:
            if error.code in (404, 409) and self._mirrors.get(_key(mirror)) is mirror:
                del self._mirrors[_key(mirror)]
                raise Unreachable(f"the mirror pod has gone: {error.message}") from error  # and is made at the next try
            raise

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        if uid not in self._static:
            await self._api.delete(namespace, name, uid)

    async def _mirror(self, uid: str) -> Object:
        """The mirror of a static pod, made if it is missing. Raises Unreachable when that must wait."""
        pod = self._static[uid]
        mirror = self._mirrors.get(_key(pod))
        if mirror is not None and _hash(mirror) == uid and not mirror["metadata"].get("deletionTimestamp"):
            return mirror
        if mirror is not None:
            await self._delete(mirror)
        owner = self._owner()
        if owner is None:
            raise Unreachable("the Node is not registered yet")
        try:
            mirror = await self._api.create(_mirror_of(pod, owner))
        except StatusError as error:
            if error.code not in (404, 409):
                raise
            # 404: its namespace is not there yet. 409: an earlier one is on its way out.
            raise Unreachable(f"the mirror pod cannot be made yet: {error.message}") from error
        log.info("mirror_made pod=%s/%s", *_key(mirror))
        self._mirrors[_key(mirror)] = mirror
        return mirror

    def _delete_soon(self, mirror: Object) -> None:
        task = asyncio.get_running_loop().create_task(self._delete(mirror))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, mirror: Object) -> None:
        meta = mirror["metadata"]
        try:
            await self._api.delete(meta.get("namespace", ""), meta["name"], meta["uid"])
        except (StatusError, Unreachable) as error:
            log.warning("mirror_not_deleted pod=%s/%s error=%s", meta.get("namespace", ""), meta["name"], error)
            return
        if self._mirrors.get(_key(mirror)) is mirror:
            del self._mirrors[_key(mirror)]


def _mirror_of(pod: Object, owner: Object) -> Object:
    meta = pod["metadata"]
    annotations = {**(meta.get("annotations") or {}), MIRROR_ANNOTATION: meta["annotations"][CONFIG_HASH_ANNOTATION]}
    kept = {key: value for key, value in meta.items() if key not in ("uid", "annotations")}
    metadata = {**kept, "annotations": annotations, "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}


def _key(pod: Object) -> tuple[str, str]:
    return pod["metadata"].get("namespace", ""), pod["metadata"]["name"]


def _hash(mirror: Object) -> str:
    assert is_mirror(mirror)
    return str(mirror["metadata"]["annotations"][MIRROR_ANNOTATION])
