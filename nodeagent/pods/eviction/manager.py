"""Looks every few seconds what is left of memory, disk and process ids, and ends a pod when that is too little.

    look ──> thresholds.Watch ──> node conditions (and, by a controller, taints)
                  └─ acting? ──> give back unused images ──> still acting? ──> rank ──> evict one ──> wait for its end

One pod at a time, because ending one may be enough. Pods with limits of local storage are measured on the way.
What a look costs: two small files and two statfs calls; usage of pods is read only when one has to go.
Source: kubelet's pkg/kubelet/eviction/eviction_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nodeagent.pods.eviction import ranking, storage
from nodeagent.pods.eviction.ranking import Holding
from nodeagent.pods.eviction.thresholds import DISK, MEMORY, Observation, Threshold, Watch
from nodeagent.pods.memory import Verdict
from nodeagent.pods.model import LABEL_UID, Object, qos_class
from nodeagent.pods.node import NodeFacts
from nodeagent.runtime.interface import ContainerState, DiskUsage, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

STORAGE_PERIOD_S = 10.0
GONE_WITHIN_S = 30.0  # how long the next eviction waits for this one
_POLL_S = 0.2
_MEMORY_PRESSURE_TAINT = "node.kubernetes.io/memory-pressure"


class Pods(Protocol):
    """The part of PodManager that is needed here."""

    def active(self) -> Sequence[Object]: ...

    def evict(self, uid: str, verdict: Verdict) -> None: ...


@dataclass(slots=True)
class EvictionManager:
    """`observe()` tells what is left, by signal. `reclaim_disk()` gives back what no pod needs (unused images).
    `changed()` is called when `conditions` did."""

    node: NodeFacts
    runtime: Runtime
    pods: Pods
    watch: Watch
    observe: Callable[[], Mapping[str, Observation]]
    changed: Callable[[], None]
    tell: Callable[[Object, str, str, str], None]
    period_s: float
    max_grace_s: float = 0.0  # a soft eviction's most patience with a pod
    reclaim_disk: Callable[[], Awaitable[None]] | None = None
    conditions: frozenset[str] = frozenset()
    _storage_due: float = field(default=0.0)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self.period_s)
            try:
                await self.look()
            except (RuntimeFailure, OSError) as error:
                log.warning("eviction_look_failed error=%s", error)

    async def look(self) -> None:
        """One round."""
        now = asyncio.get_running_loop().time()
        if now >= self._storage_due:
            self._storage_due = now + STORAGE_PERIOD_S
            await self._enforce_storage_limits()
        acting = self._watch(now)
        if not acting:
            return
        if self.reclaim_disk is not None and any(t.condition == DISK for t in acting):
            log.warning("reclaiming disk thresholds=%s", ",".join(f"{t.signal}<{t.value}" for t in acting))
            await self.reclaim_disk()
            acting = self._watch(now)
        # Memory first: without it nothing else can be done.
        for threshold in sorted(acting, key=lambda t: (t.condition != MEMORY, t.grace_s)):
            if await self._evict_for(threshold):
                return

    def _watch(self, now: float) -> list[Threshold]:
        seen = self.observe()
        acting = self.watch.look(seen, now)
        conditions = self.watch.conditions(now)
        if conditions != self.conditions:
            log.warning("node_pressure conditions=%s", ",".join(sorted(conditions)) or "none")
            self.conditions = conditions
            self.changed()
        return acting

    async def _evict_for(self, threshold: Threshold) -> bool:
        """Evict the first pod in line; false if there is nobody left to evict."""
        holdings = await self._holdings(threshold.resource)
        order = ranking.rank(holdings, threshold.resource)
        if not order:
            log.error("eviction_has_nobody signal=%s", threshold.signal)
            return False
        pod, holding = order[0]
        grace = min(_grace(pod), self.max_grace_s) if threshold.grace_s else 1.0
        seen = self.observe()[threshold.signal]
        decision = ranking.verdict(pod, holding, threshold, seen, grace)
        await self._end(pod, decision)
        return True

    async def _end(self, pod: Object, decision: Verdict) -> None:
        meta = pod["metadata"]
        log.warning("evicting pod=%s/%s reason=%r", meta.get("namespace", ""), meta["name"], decision.message)
        self.tell(pod, "Warning", "Evicted", decision.message)
        self.pods.evict(meta["uid"], decision)
        try:
            async with asyncio.timeout(GONE_WITHIN_S):
                while any(p["metadata"]["uid"] == meta["uid"] for p in self.pods.active()):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            log.warning("eviction_slow pod=%s/%s", meta.get("namespace", ""), meta["name"])

    # What pods hold.

    async def _holdings(self, resource: str) -> list[tuple[Object, Holding]]:
        pods = self.pods.active()
        if resource in ("ephemeral-storage", "inodes"):
            return [(pod, _on_disk(await self._measure(pod))) for pod in pods]
        uids = {s.id: s.identity.uid for s in await self.runtime.sandboxes()}
        names = {c.id: c.name for c in await self.runtime.containers()}
        whole: dict[str, tuple[int, int]] = {}
        parts: dict[str, dict[str, int]] = {}
        for stats in await self.runtime.stats():
            uid = uids.get(stats.sandbox_id, "")
            if stats.container_id:
                parts.setdefault(uid, {})[names.get(stats.container_id, "")] = stats.usage.working_set_bytes
            else:
                whole[uid] = stats.usage.working_set_bytes, stats.usage.pids
        found = []
        for pod in pods:
            uid = pod["metadata"]["uid"]
            memory, pids = whole.get(uid, (0, 0))
            found.append((pod, Holding(memory=memory, pids=pids, memory_of=parts.get(uid, {}))))
        return found

    async def _measure(self, pod: Object) -> storage.LocalStorage:
        layers: dict[str, DiskUsage] = {}
        for container in await self.runtime.containers():
            if container.labels.get(LABEL_UID) == pod["metadata"]["uid"]:
                if container.state is ContainerState.UNKNOWN:
                    continue
                used = await self.runtime.disk_usage(container.id)
                layers[container.name] = layers.get(container.name, DiskUsage()) + used
        return await asyncio.to_thread(storage.measure, self.node, pod, layers)

    async def _enforce_storage_limits(self) -> None:
        for pod in self.pods.active():
            if storage.has_limits(pod):
                decision = storage.judge(pod, await self._measure(pod))
                if decision is not None:
                    await self._end(pod, decision)


def refuse(pod: Object, conditions: frozenset[str]) -> Verdict | None:
    """Whether a node under pressure takes a new pod: under memory pressure one that asked for memory, or tolerates it;
    otherwise only one that the node cannot do without."""
    if not conditions or ranking.critical(pod):
        return None
    if conditions == {MEMORY} and (qos_class(pod) != "BestEffort" or _tolerates_memory_pressure(pod)):
        return None
    return Verdict("Failed", "Evicted", f"The node had condition: [{' '.join(sorted(conditions))}]. ", 0)


def _tolerates_memory_pressure(pod: Object) -> bool:
    return any(
        t.get("effect") in (None, "", "NoSchedule")
        and t.get("operator", "Equal") in ("Exists", "Equal")
        and (t.get("key") == _MEMORY_PRESSURE_TAINT or (not t.get("key") and t.get("operator") == "Exists"))
        for t in pod["spec"].get("tolerations") or ()
    )


def _grace(pod: Object) -> float:
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    return 30.0 if grace is None else float(grace)


def _on_disk(used: storage.LocalStorage) -> Holding:
    disk_of = {name: used.of_container(name) for name in {**used.layers, **used.logs}}
    return Holding(disk=used.total.bytes, inodes=used.total.inodes, disk_of=disk_of)
