"""All pods of the node: a worker for each, fed by the source of pods and by the runtime's events.

At start it asks the runtime what is there. A pod that the source names takes over its sandboxes (an agent's restart
touches nothing); what no pod claims, once the source has told all it knows, is an orphan and is removed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

from nodeagent.pods import admission, apparmor, quality, resize, sysctls
from nodeagent.pods.cpumanager import NotEnough
from nodeagent.pods.eviction import manager as eviction
from nodeagent.pods.launcher import Launcher
from nodeagent.pods.memory import Verdict
from nodeagent.pods.mirror import Mirrors
from nodeagent.pods.model import CONFIG_SOURCE_ANNOTATION, Desired, Object
from nodeagent.pods.plan import Stage
from nodeagent.pods.statusmanager import StatusManager, is_mirror
from nodeagent.pods.worker import Shared, Worker
from nodeagent.runtime.interface import RuntimeFailure, SandboxStatus

log = logging.getLogger(__name__)

ORPHAN_GRACE_S = 30.0
LOOK_AGAIN_S = 60.0


class PodManager:
    """`put` and `removed` are the source's; `run` follows the runtime; `pods` is what /pods shows."""

    def __init__(self, launcher: Launcher, statuses: StatusManager, mirrors: Mirrors | None = None) -> None:
        """`mirrors`: what shows static pods to the API server; without it the node has none."""
        self._shared = Shared(launcher, statuses, self._gone, self._refuse_resize)
        self._launcher = launcher
        self._statuses = statuses
        self._mirrors = mirrors
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sweeps: set[asyncio.Task[None]] = set()
        self._found: dict[str, list[SandboxStatus]] = {}
        self._settled = False
        self._quality = quality.Groups(launcher.runtime, launcher.node.all_pods)
        self.pressures: Callable[[], frozenset[str]] = frozenset  # the node's conditions of that kind
        self.observers: list[Callable[[str], None]] = []  # called with the uid of a pod that is gone

    # The life of the manager.

    async def start(self) -> None:
        """Learn what the runtime runs already, and the names of the images. Raises RuntimeFailure."""
        self._found = {}
        for sandbox in await self._launcher.runtime.sandboxes():
            self._found.setdefault(sandbox.identity.uid, []).append(sandbox)
        for image in await self._launcher.images.service.images():
            self._launcher.images.remember(image)

    async def run(self) -> None:
        """Hand the runtime's events to the workers, until cancelled. A broken stream is opened again; since events may
        have been lost, everybody then looks again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_events())
            group.create_task(self._look_again())
            group.create_task(self._quality.run(self._holding))
            group.create_task(self._launcher.cpus.run(self._launcher.runtime, self._active_uids))

    async def _look_again(self) -> None:
        """Should an event ever be lost, a pod is looked at once a minute all the same."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            self._quality.poke(anew=True)
            for worker in list(self._workers.values()):
                worker.poke(sandbox=True)
                await asyncio.sleep(0)

    async def _follow_events(self) -> None:
        while True:
            try:
                async for event in self._launcher.runtime.events():
                    worker = self._workers.get(event.pod_uid)
                    if worker is not None:
                        worker.poke(sandbox=not event.container_id)
            except RuntimeFailure as failure:
                log.warning("runtime_events_lost error=%s", failure)
            await asyncio.sleep(1)
            for worker in self._workers.values():
                worker.poke(sandbox=True)

    async def close(self) -> None:
        """Stop working, touching nothing that runs."""
        tasks = [*self._tasks.values(), *self._sweeps]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._statuses.close()
        if self._mirrors is not None:
            await self._mirrors.close()

    # From the source.

    def put(self, pod: Object) -> None:
        """The source has this pod, new or changed."""
        if is_mirror(pod):
            if self._mirrors is not None:
                self._mirrors.seen(pod)
            return
        if self._mirrors is not None and CONFIG_SOURCE_ANNOTATION in (pod["metadata"].get("annotations") or {}):
            self._mirrors.begun(pod)
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            self._statuses.observe(pod)
            if not worker.orphan:
                worker.update(pod)
            return
        want = Desired.of(pod)
        found = self._found.pop(uid, [])
        if want.terminal_phase and want.deletion_grace_s is None and not found:
            return  # it ended before this agent's time, and nothing of it is left to look after
        verdict = None if found else self._refusal(want)
        if verdict is None:
            self._own_cpus(pod)  # of one that runs already; it is not refused for want of them
        worker = Worker(self._shared, want)
        worker.memory.verdict = verdict
        if found or pod.get("status", {}).get("startTime"):
            worker.adopt(found)
        if verdict is not None:
            self._launcher.tell(pod, "Warning", verdict.reason, verdict.message)
        self._employ(uid, worker)

    def removed(self, pod: Object) -> None:
        """The API server has no such pod any more. What still runs of it is stopped without asking further."""
        uid = pod["metadata"]["uid"]
        if is_mirror(pod):
            if self._mirrors is not None:
                self._mirrors.gone(pod)
            return
        worker = self._workers.get(uid)
        if worker is None:
            return
        self._statuses.forget(uid)
        worker.orphan = True
        last = Desired.of(pod).deletion_grace_s  # what the deletion asked for, if the API server says
        grace = worker.want.deletion_grace_s if last is None else last
        worker.update(_doomed(pod, worker.want.termination_grace_s if grace is None else grace))

    def settled(self) -> None:
        """The source has told every pod it knows: what nobody claimed is an orphan."""
        for uid, sandboxes in self._found.items():
            identity = sandboxes[0].identity
            log.info("orphan pod=%s/%s uid=%s sandboxes=%d", identity.namespace, identity.name, uid, len(sandboxes))
            pod: Object = {
                "metadata": {"name": identity.name, "namespace": identity.namespace, "uid": uid},
                "spec": {"containers": []},
            }
            worker = Worker(self._shared, Desired.of(_doomed(pod, ORPHAN_GRACE_S)), orphan=True)
            worker.adopt(sandboxes)
            self._employ(uid, worker)
        self._found = {}
        self._settled = True
        self._sweep()
        if self._mirrors is not None:
            self._mirrors.settled()

    def network_is_ready(self) -> None:
        """Pods can have addresses from now on."""
        self._launcher.network_ready.set()
        for worker in self._workers.values():
            worker.network_is_ready()

    # To others.

    def pods(self) -> list[Object]:
        """Every pod that the agent looks after, with the status as the node sees it now."""
        result = []
        for uid, worker in self._workers.items():
            if not worker.orphan:
                status = self._statuses.latest(uid)
                result.append({**worker.want.pod, "status": status} if status else worker.want.pod)
        return result

    def find(self, namespace: str, name: str, uid: str = "") -> Worker | None:
        """The worker of a pod by name (and uid)."""
        for known, worker in self._workers.items():
            if worker.want.namespace == namespace and worker.want.name == name and uid in ("", known):
                return worker
        return None

    def status(self, uid: str) -> Object | None:
        """The pod's status as the node sees it now."""
        return self._statuses.latest(uid)

    @property
    def count(self) -> int:
        return len(self._workers)

    def active(self) -> Sequence[Object]:
        """The pods that are not over: what they hold could be given back."""
        return [w.want.pod for w in self._workers.values() if w.stage is not Stage.ENDED and not w.orphan]

    def evict(self, uid: str, verdict: Verdict) -> None:
        """End a pod by the node's decision."""
        worker = self._workers.get(uid)
        if worker is not None and worker.memory.verdict is None:
            worker.memory.verdict = verdict
            worker.poke()

    # Inside.

    def _employ(self, uid: str, worker: Worker) -> None:
        self._workers[uid] = worker
        task = asyncio.get_running_loop().create_task(worker.run(), name=f"pod:{worker.want.key}")
        self._tasks[uid] = task
        self._quality.poke()

    def _gone(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
        self._statuses.forget(uid)
        self._quality.poke()
        self._launcher.cpus.poke()
        if self._mirrors is not None:
            self._mirrors.ended(uid)
        for other in self._workers.values():
            if other.memory.resize is not None:
                other.poke()  # there may be room now
        for observer in self.observers:
            observer(uid)

    def _refusal(self, want: Desired) -> Verdict | None:
        """A pod that is being deleted or has started before is not weighed again."""
        status = want.pod.get("status") or {}
        if want.deletion_grace_s is not None or want.terminal_phase or status.get("startTime"):
            return None
        under_pressure = eviction.refuse(want.pod, self.pressures())
        if under_pressure is not None:
            return under_pressure
        node = self._launcher.node
        unable = sysctls.refuse(want.pod, node.allowed_unsafe_sysctls) or apparmor.refuse(want.pod)
        unable = unable or admission.unfit(want.pod, self._holding())
        if unable is not None:
            return unable
        verdict = None
        if node.allocatable or node.labels:
            holding = self._holding()
            verdict = admission.refuse(want.pod, holding, node.allocatable, node.labels)
            if verdict is not None and verdict.reason.startswith("OutOf"):
                verdict = self._preempt(want.pod, holding, verdict)
        return verdict or self._own_cpus(want.pod)

    def _preempt(self, pod: Object, holding: Sequence[Object], verdict: Verdict) -> Verdict | None:
        """None if others give way to a critical pod, else `verdict`."""
        doomed = admission.victims(pod, holding, self._launcher.node.allocatable)
        for other in doomed:
            self._launcher.tell(other, "Warning", "Preempting", admission.PREEMPTED)
            preempted = Verdict("Failed", "Preempting", admission.PREEMPTED, disruption="TerminationByKubelet")
            self.evict(other["metadata"]["uid"], preempted)
        return None if doomed else verdict

    def _own_cpus(self, pod: Object) -> Verdict | None:
        try:
            self._launcher.cpus.admit(pod)
        except NotEnough as lack:
            message = f"Allocate failed due to {lack}, which is unexpected"
            return Verdict("Failed", "UnexpectedAdmissionError", message, 0)
        return None

    def _active_uids(self) -> list[str] | None:
        """The pods that are not over; None as long as the source may know more."""
        if not self._settled:
            return None
        return [uid for uid, worker in self._workers.items() if worker.stage is not Stage.ENDED]

    def _refuse_resize(self, want: Desired) -> resize.Pending | None:
        others = [pod for pod in self._holding() if pod["metadata"]["uid"] != want.uid]
        return resize.refusal(want.pod, others, self._launcher.node.allocatable)

    def _holding(self) -> Sequence[Object]:
        """The pods that hold resources: not over, not refused."""
        holders = (w for w in self._workers.values() if w.stage is not Stage.ENDED and w.memory.verdict is None)
        return [w.granted.pod for w in holders]

    def _sweep(self) -> None:
        """Directories of pods that nobody knows any more (the agent was killed while it cleaned up)."""
        for base in ("pods", "memory"):
            directory = os.path.join(self._launcher.node.root_directory, base)
            for uid in os.listdir(directory) if os.path.isdir(directory) else ():
                if uid not in self._workers:
                    task = asyncio.get_running_loop().create_task(self._launcher.volumes.remove(uid))
                    self._sweeps.add(task)
                    task.add_done_callback(self._sweeps.discard)


def _doomed(pod: Object, grace_s: float) -> Object:
    """The pod as if it were being deleted with this grace."""
    meta = {**pod["metadata"], "deletionTimestamp": "1970-01-01T00:00:00Z", "deletionGracePeriodSeconds": int(grace_s)}
    return {**pod, "metadata": meta}
