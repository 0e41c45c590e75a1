"""The scheduler at work: watches feed the snapshot and the queue, the loop takes pods and decides.

A decision is one synchronous stretch (survey, filters, scores, assume), so it sees a snapshot that nothing changes
meanwhile; what takes time (binding, status, evictions) happens beside it in bind.py. After each decision the event loop
gets a turn, so that watches are read and bindings sent while a backlog is worked off.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from controlplane.api.status import StatusError
from controlplane.client import Client, Informer, LeaderElector, Unreachable, key_of
from controlplane.client.events import Recorder
from controlplane.client.resources import NAMESPACES, NODES, PODS
from controlplane.scheduler import queue as events
from controlplane.scheduler.bind import Binder
from controlplane.scheduler.filters import Context, NoOpinion, Rejection, Volumes, explain, feasible
from controlplane.scheduler.pod import Obj, PodInfo, slim
from controlplane.scheduler.preemption import propose
from controlplane.scheduler.queue import Entry, SchedulingQueue
from controlplane.scheduler.scores import best
from controlplane.scheduler.snapshot import NodeInfo, Snapshot
from controlplane.scheduler.topology import survey
from controlplane.systemd import on_liveness

log = logging.getLogger(__name__)

_STALE_CHECK_SECONDS = 30.0
_FEWEST_NODES = 100


class Scheduler:
    """One scheduler. `run` watches at once and decides while the elector says that it leads."""

    def __init__(
        self,
        client: Client,
        *,
        scheduler_name: str = "default-scheduler",
        concurrency: int = 32,
        volumes: Volumes | None = None,
    ) -> None:
        self.snapshot = Snapshot()
        self.queue = SchedulingQueue()
        self._name = scheduler_name
        self._volumes = volumes or NoOpinion()
        self._recorder = Recorder(client, scheduler_name)
        self._binder = Binder(client, self._recorder, concurrency)
        self._start = 0
        """Where in the list of nodes the next search begins, in clusters too large to look at every node."""
        unfinished = "status.phase!=Succeeded,status.phase!=Failed"
        self._pods = Informer(client, PODS, field_selector=unfinished, transform=slim)
        self._nodes = Informer(client, NODES)
        self._namespaces = Informer(client, NAMESPACES)
        self._namespaces.add_handler(
            self._set_namespace,
            lambda _, new: self._set_namespace(new),
            self._drop_namespace,
        )
        self._nodes.add_handler(self._node_added, self._node_updated, self._node_deleted)
        self._pods.add_handler(self._pod_added, self._pod_updated, self._pod_deleted)

    async def run(self, elector: LeaderElector, ready: Callable[[], None]) -> None:
        """Schedule until cancelled. `ready` is called once the cluster is known, leader or not."""
        informers = (self._nodes, self._namespaces, self._pods)
        work = [i.run() for i in informers] + [self._recorder.run(), self._move_stale(), self._tell_ready(ready)]
        tasks = [asyncio.ensure_future(w) for w in work]
        # Each runs for ever but the last, which tells that we are ready.
        forget = on_liveness(lambda: "a watch has ended" if any(t.done() for t in tasks[:-1]) else "")
        try:
            await elector.run(self._lead)
        finally:
            forget()
            await self._binder.close()
            await self._recorder.drain(1.0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _known(self) -> None:
        for informer in (self._nodes, self._namespaces, self._pods):
            await informer.synced()

    async def _tell_ready(self, ready: Callable[[], None]) -> None:
        await self._known()
        ready()

    async def _move_stale(self) -> None:
        while True:
            await asyncio.sleep(_STALE_CHECK_SECONDS)
            self.queue.move_stale()

    async def _lead(self) -> None:
        await self._known()
        while True:
            entry = await self.queue.pop()
            await self._binder.room()
            try:
                await self._schedule(entry)
            except Exception:
                log.exception("scheduling_failed pod=%s", entry.pod.key)
                self.queue.back_off(entry)
            await asyncio.sleep(0)

    # --- deciding

    async def _schedule(self, entry: Entry) -> None:
        pod = self._current(entry)
        if pod is None:
            return
        context, rejected, chosen = self.decide(pod)
        if chosen is None:
            await self._unschedulable(entry, context, rejected)
            return
        self.snapshot.add_pod(pod, chosen.name)
        self.snapshot.withdraw(pod.key)
        self._binder.start(pod, chosen.name, lambda error: self._bound(entry, chosen.name, error))

    def _current(self, entry: Entry) -> PodInfo | None:
        """The pod as it is now; None if there is nothing left to do for it."""
        obj = self._pods.get(entry.pod.key)
        if obj is None or obj["metadata"].get("uid") != entry.pod.uid or not self._ours(obj):
            return None
        if obj is not entry.pod.obj:
            entry.pod = PodInfo(obj)
        return entry.pod

    def decide(self, pod: PodInfo) -> tuple[Context, dict[str, Rejection], NodeInfo | None]:
        """The best node for `pod` (None: there is none), and why the others are out of the question."""
        snapshot = self.snapshot
        context = Context(snapshot, survey(pod, snapshot), self._volumes)
        promised = snapshot.promised(pod.key) if snapshot.nominated else ""
        if promised in snapshot.nodes:  # try there first: room was made
            found, _ = feasible(pod, (snapshot.nodes[promised],), context, 1)
            if found:
                return context, {}, found[0]
        total = len(snapshot.nodes)
        wanted = nodes_to_find(total)
        nodes = snapshot.nodes.values()
        if wanted >= total:
            found, rejected = feasible(pod, nodes, context, total)
        else:
            start = self._start % total
            rotated = [*islice(nodes, start, None), *islice(nodes, start)]
            found, rejected = feasible(pod, rotated, context, wanted)
            self._start = start + len(found) + len(rejected)
        return context, rejected, best(pod, found, context) if found else None

    async def _unschedulable(self, entry: Entry, context: Context, rejected: dict[str, Rejection]) -> None:
        pod = entry.pod
        message = explain(rejected, len(self.snapshot.nodes))
        nominated: str | None = None
        if self._room_is_being_made(pod):
            message += f" preemption: pods on {self.snapshot.promised(pod.key)} are making room."
        elif rejected and self._worth_preempting(pod, rejected):
            budgets = await self._binder.budgets()
            if self._current(entry) is None:
                return
            context, rejected, chosen = self.decide(entry.pod)  # time has passed
            if chosen is not None:
                self.queue.add(entry.pod)
                return
            proposal, why = propose(entry.pod, rejected, context, budgets)
            if proposal:
                self.snapshot.nominate(entry.pod, proposal.node)
                self._binder.evict(entry.pod, proposal)
                nominated = proposal.node
                why = f"preemption: {len(proposal.victims)} pod(s) on {proposal.node} make room."
            else:
                nominated = ""
                self.snapshot.withdraw(pod.key)
            message = f"{message} {why}"
        elif rejected:
            message = f"{message} {propose(pod, rejected, context, ())[1]}"
        log.info("unschedulable pod=%s attempts=%d reason=%r", pod.key, entry.attempts, message)
        if pod.key not in self.queue:  # otherwise it changed while the budgets were read, and is up for trial again
            self.queue.park(entry, {r.filter.name for r in rejected.values()})
        self._binder.report(pod, message, nominated)

    def _room_is_being_made(self, pod: PodInfo) -> bool:
        """Whether an earlier eviction for this pod is still under way."""
        node = self.snapshot.nodes.get(self.snapshot.promised(pod.key))
        return node is not None and any(p.terminating and p.priority < pod.priority for p in node.pods.values())

    def _worth_preempting(self, pod: PodInfo, rejected: dict[str, Rejection]) -> bool:
        """Whether any pod of lower priority is in the way where that matters."""
        return any(
            other.priority < pod.priority
            for name, rejection in rejected.items()
            if rejection.filter.helpable
            for other in self.snapshot.nodes[name].pods.values()
        )

    def _bound(self, entry: Entry, node: str, error: StatusError | Unreachable | None) -> None:
        """The API server has answered a binding."""
        if error is None:
            return
        key = entry.pod.key
        current = self._pods.get(key)
        if current is not None and (current.get("spec") or {}).get("nodeName"):
            return  # bound after all: the snapshot has it from the watch
        self.snapshot.remove_pod(key)
        self.queue.move(events.POD_DELETED)
        if current is None or (isinstance(error, StatusError) and error.code == 404):
            return
        self._recorder.event(entry.pod.obj, "Warning", "FailedScheduling", f"binding rejected: {error}")
        if key not in self.queue:
            self.queue.back_off(entry)

    # --- following the cluster

    def _ours(self, obj: Obj) -> bool:
        """Whether a pod waits for this scheduler."""
        spec = obj.get("spec") or {}
        return (
            not spec.get("nodeName")
            and spec.get("schedulerName", "default-scheduler") == self._name
            and not spec.get("schedulingGates")
            and "deletionTimestamp" not in obj["metadata"]
        )

    def _set_namespace(self, obj: Obj) -> None:
        self.snapshot.namespaces[obj["metadata"]["name"]] = obj["metadata"].get("labels") or {}

    def _drop_namespace(self, obj: Obj) -> None:
        self.snapshot.namespaces.pop(obj["metadata"]["name"], None)

    def _node_added(self, node: Obj) -> None:
        self.snapshot.set_node(node)
        self.queue.move(events.NODE_ADDED)

    def _node_updated(self, old: Obj, new: Obj) -> None:
        changes: frozenset[str] = frozenset()
        old_status, new_status = old.get("status") or {}, new.get("status") or {}
        if old_status.get("allocatable") != new_status.get("allocatable"):
            changes |= events.NODE_ALLOCATABLE
        if old["metadata"].get("labels") != new["metadata"].get("labels"):
            changes |= events.NODE_LABELS
        if old.get("spec") != new.get("spec"):
            changes |= events.NODE_TAINTS
        if changes or old_status.get("images") != new_status.get("images"):
            self.snapshot.set_node(new)
        if changes:
            self.queue.move(changes)

    def _node_deleted(self, node: Obj) -> None:
        self.snapshot.remove_node(node["metadata"]["name"])
        self.queue.move(events.NODE_LABELS)  # the domains of affinity and spreading may have changed

    def _pod_added(self, obj: Obj) -> None:
        node = (obj.get("spec") or {}).get("nodeName")
        if node:
            self._place(obj, node)
        elif self._ours(obj):
            pod = PodInfo(obj)
            promised = (obj.get("status") or {}).get("nominatedNodeName")
            if promised:
                self.snapshot.nominate(pod, promised)
            self.queue.add(pod)

    def _pod_updated(self, old: Obj, new: Obj) -> None:
        key = key_of(new)
        node = (new.get("spec") or {}).get("nodeName")
        same = old["spec"] == new["spec"] and old["metadata"].get("labels") == new["metadata"].get("labels")
        same = same and ("deletionTimestamp" in old["metadata"]) == ("deletionTimestamp" in new["metadata"])
        if node:
            if same:
                return
            if not old["spec"].get("nodeName"):
                self._place(new, node)
            else:
                self.snapshot.add_pod(PodInfo(new), node)
                self.queue.move(events.POD_CHANGED)
        elif not self._ours(new):
            self.queue.remove(key)
            self.snapshot.withdraw(key)
        elif not same and not self.snapshot.node_of(key):
            self.queue.update(PodInfo(new))

    def _pod_deleted(self, obj: Obj) -> None:
        key = key_of(obj)
        self.queue.remove(key)
        self.snapshot.withdraw(key)
        if self.snapshot.remove_pod(key):
            self.queue.move(events.POD_DELETED)

    def _place(self, obj: Obj, node: str) -> None:
        """A pod is bound, by us or by somebody else."""
        known = self.snapshot.pod(key_of(obj))
        if known and self.snapshot.node_of(known.key) == node and known.same(obj):
            known.obj = obj  # as we assumed
            return
        pod = PodInfo(obj)
        self.queue.remove(pod.key)
        self.snapshot.withdraw(pod.key)
        assumed = self.snapshot.node_of(pod.key)
        self.snapshot.add_pod(pod, node)
        if assumed != node:
            self.queue.move(events.POD_ADDED if not assumed else events.POD_DELETED | events.POD_ADDED)


def nodes_to_find(total: int) -> int:
    """How many feasible nodes are enough: all up to 100, then a share that falls from half to a twentieth
    (kube-scheduler's adaptive percentageOfNodesToScore)."""
    if total <= _FEWEST_NODES:
        return total
    share = max(50 - total // 125, 5)
    return max(total * share // 100, _FEWEST_NODES)
