"""Pods that wait for a node: those to try now, those to try later, those that only a change can help.

kube-scheduler's three queues. *Active*: by priority, then age. *Backoff*: pods that failed lately, for 1 s, 2 s, 4 s …
10 s; when nothing is active, one that merely did not fit is tried at once, since waiting helps nobody. *Unschedulable*:
pods that fit nowhere, with the names of the filters that said no; an event that could change such a filter's mind moves
them on, and so do five minutes. It does not know nodes.
"""

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from controlplane.scheduler.pod import PodInfo

INITIAL_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 10.0
MAX_UNSCHEDULABLE_SECONDS = 300.0

# What can make a filter change its mind. A filter missing from an event's set does not care.
EVERYTHING = frozenset({"*"})
NODE_ADDED = EVERYTHING
NODE_ALLOCATABLE = frozenset({"NodeResourcesFit"})
NODE_LABELS = frozenset({"NodeAffinity", "PodTopologySpread", "InterPodAffinity", "VolumeBinding"})
NODE_TAINTS = frozenset({"TaintToleration", "NodeUnschedulable", "PodTopologySpread"})
POD_DELETED = frozenset({"NodeResourcesFit", "NodePorts", "InterPodAffinity", "PodTopologySpread"})
POD_ADDED = frozenset({"InterPodAffinity", "PodTopologySpread"})
POD_CHANGED = frozenset({"NodeResourcesFit", "InterPodAffinity", "PodTopologySpread"})
VOLUMES_CHANGED = frozenset({"VolumeBinding"})


@dataclass(slots=True)
class Entry:
    """A pod in the queue."""

    pod: PodInfo
    added: float
    attempts: int = 0
    rejected_by: frozenset[str] = frozenset()
    since: float = 0.0
    """When it became unschedulable, or until when it backs off."""
    live: bool = field(default=True, compare=False)


class SchedulingQueue:
    """For one event loop; only `pop` waits."""

    def __init__(self) -> None:
        self._active: list[tuple[int, float, int, Entry]] = []
        self._backoff: list[tuple[float, int, Entry]] = []
        self._unschedulable: dict[str, Entry] = {}
        self._entries: dict[str, Entry] = {}
        self._sequence = 0
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def unschedulable(self) -> int:
        """How many pods wait for a change."""
        return len(self._unschedulable)

    def add(self, pod: PodInfo) -> None:
        """A new pod: try it now."""
        self.remove(pod.key)
        self._activate(Entry(pod, asyncio.get_running_loop().time()))

    def update(self, pod: PodInfo) -> None:
        """A waiting pod changed: its next attempt uses what it is now, and comes at once if it was unschedulable."""
        old = self._entries.get(pod.key)
        if old is None:
            self.add(pod)
            return
        entry = Entry(pod, old.added, old.attempts)
        self.remove(pod.key)
        self._activate(entry)

    def remove(self, key: str) -> None:
        """The pod is bound or gone."""
        entry = self._entries.pop(key, None)
        if entry:
            entry.live = False  # what lies in a heap is skipped there
            self._unschedulable.pop(key, None)

    def back_off(self, entry: Entry) -> None:
        """The attempt failed for a reason that time may cure (an error, a lost race)."""
        entry.rejected_by = frozenset()
        self._hold(entry)

    def park(self, entry: Entry, rejected_by: Iterable[str]) -> None:
        """No node fits: wait for a change that one of these filters cares for."""
        entry.rejected_by = frozenset(rejected_by)
        entry.since = asyncio.get_running_loop().time()
        self._entries[entry.pod.key] = entry
        self._unschedulable[entry.pod.key] = entry

    def move(self, concerned: frozenset[str]) -> None:
        """Something happened that these filters care for."""
        for entry in list(self._unschedulable.values()):
            if "*" in concerned or not entry.rejected_by or entry.rejected_by & concerned:
                del self._unschedulable[entry.pod.key]
                self._hold(entry)

    def move_stale(self) -> None:
        """Try those again that have waited for five minutes: insurance against an event that we misjudged."""
        limit = asyncio.get_running_loop().time() - MAX_UNSCHEDULABLE_SECONDS
        for entry in list(self._unschedulable.values()):
            if entry.since <= limit:
                del self._unschedulable[entry.pod.key]
                self._hold(entry)

    async def pop(self) -> Entry:
        """The next pod to try; its `attempts` counts this one. It is out of the queue until it is added again."""
        while True:
            entry, wait = self._next()
            if entry:
                del self._entries[entry.pod.key]
                entry.attempts += 1
                return entry
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(wait, self._wake) if wait is not None else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer:
                    timer.cancel()

    def _next(self) -> tuple[Entry | None, float | None]:
        """The entry to try now, or the seconds until one is due (None: nothing to wait for)."""
        now = asyncio.get_running_loop().time()
        while self._backoff and (self._backoff[0][0] <= now or not self._backoff[0][2].live):
            entry = heapq.heappop(self._backoff)[2]
            if entry.live:
                self._push(entry)
        while self._active:
            entry = heapq.heappop(self._active)[3]
            if entry.live:
                return entry, None
        for i, (_, _, entry) in enumerate(self._backoff):
            if entry.live and entry.rejected_by:
                self._backoff[i] = self._backoff[-1]
                self._backoff.pop()
                heapq.heapify(self._backoff)
                return entry, None
        return None, (self._backoff[0][0] - now if self._backoff else None)

    def _hold(self, entry: Entry) -> None:
        """Into backoff, counted from the last attempt."""
        now = asyncio.get_running_loop().time()
        pause = min(INITIAL_BACKOFF_SECONDS * 2.0 ** min(entry.attempts - 1, 30), MAX_BACKOFF_SECONDS)
        due = (entry.since if entry.rejected_by else now) + pause
        self._entries[entry.pod.key] = entry
        if due <= now:
            self._activate(entry)
            return
        self._sequence += 1
        heapq.heappush(self._backoff, (due, self._sequence, entry))
        self._wake()

    def _activate(self, entry: Entry) -> None:
        self._entries[entry.pod.key] = entry
        self._push(entry)
        self._wake()

    def _push(self, entry: Entry) -> None:
        self._sequence += 1
        heapq.heappush(self._active, (-entry.pod.priority, entry.added, self._sequence, entry))

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
