"""Carrying decisions out through the API: binding, saying why not, evicting. Many at a time, none twice.

A pod is *assumed* on its node in the snapshot before the binding is sent, so that the next decision counts it. The
watch then confirms it; when the API server says no, the assumption is dropped and the pod tried again later. No
answer at all is treated alike: if the binding did happen, the watch tells.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from controlplane.api.status import StatusError
from controlplane.client import Client, Unreachable
from controlplane.client.events import Recorder
from controlplane.client.resources import PODDISRUPTIONBUDGETS, PODS
from controlplane.clock import rfc3339
from controlplane.scheduler.pod import Obj, PodInfo
from controlplane.scheduler.preemption import Proposal

log = logging.getLogger(__name__)


class Binder:
    """At most `concurrency` bindings are under way; `room()` waits for one to end."""

    def __init__(self, client: Client, recorder: Recorder, concurrency: int) -> None:
        self._client, self._recorder = client, recorder
        self._room = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()

    async def room(self) -> None:
        """Return once another binding may start. Does not yield if that is now."""
        if self._room.locked():
            async with self._room:
                pass

    def start(self, pod: PodInfo, node: str, done: Callable[[StatusError | Unreachable | None], None]) -> None:
        """Bind `pod` to `node` in the background; `done` gets the error, None if it is bound."""
        self._spawn(self._bind(pod, node, done))

    async def _bind(self, pod: PodInfo, node: str, done: Callable[[StatusError | Unreachable | None], None]) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        async with self._room:
            try:
                await self._client.create(PODS, binding, pod.namespace, name=pod.name, subresource="binding")
            except (StatusError, Unreachable) as error:
                log.warning("bind_failed pod=%s node=%s error=%s", pod.key, node, error)
                done(error)
                return
        log.info("bound pod=%s node=%s", pod.key, node)
        done(None)
        message = f"Successfully assigned {pod.key} to {node}"
        self._recorder.event(pod.obj, "Normal", "Scheduled", message)

    def report(self, pod: PodInfo, message: str, nominated: str | None = None) -> None:
        """Say in the pod's status, and as an event, why it has no node. `nominated`: the node whose pods make room,
        "" to take such a promise back."""
        self._recorder.event(pod.obj, "Warning", "FailedScheduling", message)
        status = pod.obj.get("status") or {}
        old: Obj = next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), {})
        change: Obj = {}
        new = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        if any(old.get(field) != value for field, value in new.items()):
            since = old.get("lastTransitionTime") if old.get("status") == "False" else None
            change["conditions"] = [{**new, "lastTransitionTime": since or rfc3339()}]
        if nominated is not None and nominated != status.get("nominatedNodeName", ""):
            change["nominatedNodeName"] = nominated or None
        if change:
            self._spawn(self._patch_status(pod, change))

    async def budgets(self) -> list[Obj]:
        """The cluster's disruption budgets. Asked for when needed: a watch for so rare a question would cost more."""
        try:
            return list((await self._client.list(PODDISRUPTIONBUDGETS))["items"])
        except (StatusError, Unreachable) as error:
            log.warning("budgets_unknown error=%s", error)
            return []

    def evict(self, pod: PodInfo, proposal: Proposal) -> None:
        """Delete the victims, for `pod`'s sake."""
        for victim in proposal.victims:
            self._spawn(self._evict(victim, pod, proposal.node))

    async def _evict(self, victim: PodInfo, pod: PodInfo, node: str) -> None:
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{pod.obj['spec'].get('schedulerName', 'default-scheduler')}: preempting to accommodate a "
            "higher priority pod",
            "lastTransitionTime": rfc3339(),
        }
        await self._patch_status(victim, {"conditions": [condition]})
        try:
            await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
        except (StatusError, Unreachable) as error:
            log.warning("preemption_failed victim=%s error=%s", victim.key, error)
            return
        log.info("preempted victim=%s node=%s for=%s", victim.key, node, pod.key)
        self._recorder.event(victim.obj, "Normal", "Preempted", f"Preempted by pod {pod.uid} on node {node}")

    async def _patch_status(self, pod: PodInfo, change: Obj) -> None:
        body = {"metadata": {"uid": pod.uid}, "status": change}
        try:
            await self._client.patch(PODS, pod.name, body, pod.namespace, kind="strategic", subresource="status")
        except (StatusError, Unreachable) as error:
            if not (isinstance(error, StatusError) and error.code == 404):
                log.warning("status_failed pod=%s error=%s", pod.key, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, seconds: float = 2.0) -> None:
        """Let what is under way end, for a while."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
