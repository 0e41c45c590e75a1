"""Sends pods' statuses to the API server: only what changed, only the latest, and never loses it.

Workers call `set` as often as they like; it compares with what the API server is known to have and, if something
differs, marks the pod. One coroutine per marked pod (bounded in number) sends one strategic merge patch on the status
subresource with the pod's uid as precondition, takes the answer as the new known state, and repeats if the status
changed meanwhile. A status that says nothing new to anyone (ContainerCreating) waits a moment, because the next one is
usually on its heels: a pod that starts at once costs one request.

When the worker says that nothing is left of a deleted pod, `finish` deletes it for good: grace 0, precondition uid.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from controlplane.client.resources import PODS
from controlplane.client.rest import Client
from nodeagent.pods.model import MIRROR_ANNOTATION, Object

log = logging.getLogger(__name__)

DULL_DELAY_S = 0.25  # how long a status without news for users may wait for a better one
_RETRY_FIRST_S, _RETRY_LAST_S = 0.2, 10.0
_AT_ONCE = 16
_PASSING = ("PodResizePending", "PodResizeInProgress")  # conditions of ours that are taken away when they are over


class PodApi(Protocol):
    """The two requests that the manager makes; the agent gives it the API client's, a test its own."""

    async def patch_status(self, namespace: str, name: str, body: Object) -> Object: ...

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        """Delete at once, if the uid is this one. No error if it is gone."""


class ClientPodApi:
    """`PodApi` over the API client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def patch_status(self, namespace: str, name: str, body: Object) -> Object:
        return await self._client.patch(PODS, name, body, namespace, kind="strategic", subresource="status")

    async def create(self, pod: Object) -> Object:
        return await self._client.create(PODS, pod, pod["metadata"].get("namespace", ""))

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        try:
            await self._client.delete(PODS, name, namespace, uid=uid, grace_period_seconds=0)
        except StatusError as error:
            if error.code != 404:
                raise


@dataclass(slots=True)
class _Entry:
    pod: Object
    known: Object  # the status as the API server has it
    version: int = 0  # the resourceVersion of `known`
    wanted: Object | None = None
    final: bool = False  # delete after the last status
    done: Callable[[], None] | None = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class StatusManager:
    """`latest(uid)` is what a worker last set: what /pods shows, whether or not the API server has it yet."""

    api: PodApi
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    requests: int = 0

    def set(self, pod: Object, status: Object) -> None:
        """`status` is from now on what the node has to say of `pod`. Returns at once."""
        entry = self._entry(pod)
        entry.wanted = status
        if entry.task is not None or not changes(entry.known, status):
            return
        if pod["metadata"].get("deletionTimestamp") or _dull(entry.known, status):
            if entry.timer is None:
                entry.timer = asyncio.get_running_loop().call_later(DULL_DELAY_S, self._send, pod["metadata"]["uid"])
            return
        self._send(pod["metadata"]["uid"])

    def observe(self, pod: Object) -> None:
        """The API server has another version of the pod. If it is newer than the answer to our last request, somebody
        else may have touched the status (the node controller calls the pods of a silent node unready): that is what is
        known now, and what the worker says next is compared with it."""
        entry = self._entries.get(pod["metadata"]["uid"])
        if entry is None:
            return
        entry.pod = pod
        version = _version(pod)
        if version > entry.version:
            entry.known, entry.version = pod.get("status") or {}, version

    def renew(self, uid: str) -> None:
        """The API server has lost what it knew of this pod (the mirror of a static pod was deleted): tell it all."""
        entry = self._entries.get(uid)
        if entry is not None:
            entry.known, entry.version = {}, 0
            self._send(uid)

    def latest(self, uid: str) -> Object | None:
        entry = self._entries.get(uid)
        return None if entry is None else entry.wanted

    def finish(self, pod: Object, done: Callable[[], None]) -> None:
        """Nothing of `pod` is left on this node: delete it for good, then call `done`."""
        entry = self._entry(pod)
        entry.final, entry.done = True, done
        if not pod["metadata"].get("finalizers"):
            entry.wanted = None  # nobody is waiting to read the last status: the deletion says it all
        if entry.task is None:
            self._send(pod["metadata"]["uid"])

    def forget(self, uid: str) -> None:
        """The pod is gone from the API server."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            if entry.timer is not None:
                entry.timer.cancel()
            if entry.task is not None:
                entry.task.cancel()

    async def close(self) -> None:
        """Stop sending. What was not sent is computed again by the next agent."""
        tasks = [e.task for e in self._entries.values() if e.task is not None]
        for uid in list(self._entries):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def flush(self) -> None:
        """Wait until everything that was set has been sent."""
        while tasks := [e.task for e in self._entries.values() if e.task is not None]:
            await asyncio.wait(tasks)

    def _entry(self, pod: Object) -> _Entry:
        uid = pod["metadata"]["uid"]
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _Entry(pod, pod.get("status") or {}, _version(pod))
        entry.pod = pod
        return entry

    def _send(self, uid: str) -> None:
        entry = self._entries.get(uid)
        if entry is None or entry.task is not None:
            return
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        entry.task = asyncio.get_running_loop().create_task(self._deliver(uid, entry))

    async def _deliver(self, uid: str, entry: _Entry) -> None:
        delay = _RETRY_FIRST_S
        try:
            while True:
                try:
                    async with self._slots:
                        if await self._deliver_one(entry):
                            return
                    delay = _RETRY_FIRST_S
                except StatusError as error:
                    if error.code in (404, 409):
                        # Gone, or another pod of the same name: this one has no status any more.
                        log.info("status_dropped pod=%s uid=%s reason=%s", _name(entry.pod), uid, error.reason)
                        entry.wanted = None
                        if entry.done is not None:
                            entry.done()
                        return
                    level = logging.WARNING if error.code < 500 and error.code != 429 else logging.INFO
                    log.log(level, "status_refused pod=%s error=%s retry_s=%.1f", _name(entry.pod), error, delay)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _RETRY_LAST_S)
                except Unreachable as error:
                    log.info("status_unsent pod=%s error=%s retry_s=%.1f", _name(entry.pod), error, delay)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _RETRY_LAST_S)
        finally:
            entry.task = None

    async def _deliver_one(self, entry: _Entry) -> bool:
        """Make the next request that is needed; true when there was none."""
        meta = entry.pod["metadata"]
        patch = changes(entry.known, entry.wanted) if entry.wanted is not None else None
        if patch:
            self.requests += 1
            body = {"metadata": {"uid": meta["uid"]}, "status": patch}
            answer = await self.api.patch_status(meta.get("namespace", ""), meta["name"], body)
            version = _version(answer)
            if version >= entry.version:
                entry.known, entry.version = answer.get("status") or {}, version
            log.debug("status_sent pod=%s phase=%s fields=%s", _name(entry.pod), entry.known.get("phase"), list(patch))
            if entry.wanted is not None and changes(entry.known, entry.wanted) == patch:
                entry.wanted = {**entry.wanted, **{k: entry.known[k] for k in patch if k in entry.known}}
                log.warning("status_not_taken pod=%s fields=%s", _name(entry.pod), list(patch))
                return not entry.final
            return False
        if entry.final:
            self.requests += 1
            entry.final = False
            try:
                await self.api.delete(meta.get("namespace", ""), meta["name"], meta["uid"])
            except BaseException:
                entry.final = True
                raise
            if entry.done is not None:
                entry.done()
            return True
        return True


def changes(known: Object, wanted: Object) -> Object:
    """A strategic merge patch of `status` that turns `known` into `wanted`; empty when they agree. Conditions merge by
    type, addresses are replaced, everything else by field; `reason` and `message` go when they no longer hold."""
    patch: Object = {}
    for name, value in wanted.items():
        before = known.get(name)
        if name == "conditions":
            old = {c["type"]: c for c in before or ()}
            changed = [c for c in value if not _same_condition(old.get(c["type"]), c)]
            passed = [kind for kind in _PASSING if kind in old and all(c["type"] != kind for c in value)]
            if changed or passed:
                patch[name] = [_explicit(old.get(c["type"]), c) for c in changed]
                patch[name] += [{"$patch": "delete", "type": kind} for kind in passed]
        elif name.endswith("ontainerStatuses"):
            if not _same_containers(before, value):
                patch[name] = value
        elif before != value:
            replace = name == "podIPs" and before
            patch[name] = [{"$patch": "replace"}, *value] if replace else value
    for name in ("reason", "message"):
        if known.get(name) and name not in wanted:
            patch[name] = None
    return patch


def _same_condition(old: Object | None, new: Object) -> bool:
    if old is None:
        return False
    keys = ("status", "reason", "message", "observedGeneration")
    return all((old.get(k) or None) == (new.get(k) or None) for k in keys)


def _explicit(old: Object | None, new: Object) -> Object:
    """`new` as a merge: what `old` has and `new` has not is removed."""
    if old is None:
        return new
    return {**{k: None for k in ("reason", "message") if k in old and k not in new}, **new}


def _same_containers(old: list[Object] | None, new: list[Object]) -> bool:
    """Equal but for empty fields, which the server drops, and fields of its own, which it adds."""
    if old is None or len(old) != len(new):
        return not old and not new
    for before, after in zip(old, new, strict=True):
        for key, value in after.items():
            if (before.get(key) or None) != (value or None):
                return False
    return True


def _dull(known: Object, wanted: Object) -> bool:
    """Whether nobody would miss this status if a better one followed within a moment: still Pending, nothing failed;
    or on its way out, with containers ending one by one."""
    if wanted["phase"] != (known.get("phase") or "Pending"):
        return False
    if wanted["phase"] != "Pending":
        return False
    states = [s for name in ("initContainerStatuses", "containerStatuses") for s in wanted.get(name) or ()]
    usual = ("ContainerCreating", "PodInitializing")
    return all(((s["state"].get("waiting") or {}).get("reason", usual[0])) in usual for s in states)


def _version(obj: Object) -> int:
    """The resourceVersion as a number (they grow within one resource); 0 if there is none."""
    text = (obj.get("metadata") or {}).get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0


def is_mirror(pod: Object) -> bool:
    return MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {})


def _name(pod: Object) -> str:
    return f"{pod['metadata'].get('namespace', '')}/{pod['metadata']['name']}"
