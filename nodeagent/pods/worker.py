"""One pod's worker: a serial task that looks, plans, starts what the plan says, reports, and sleeps until woken.

It wakes for three things: the pod changed (`update`), the runtime has news (`poke`), a time came (back-off, deadline).
What takes long (a pull, a grace period) runs as an operation beside the loop, so that a deletion is seen at once;
operations tell the loop when they end and never decide what comes next. Everything it knows can be rebuilt: a worker of
a restarted agent begins with `adopt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from controlplane import clock
from nodeagent.pods import healthwatch, messages, resize
from nodeagent.pods.healthwatch import HealthWatch
from nodeagent.pods.images import ImageNotReady
from nodeagent.pods.launcher import Launcher
from nodeagent.pods.memory import SANDBOX, Condemned, Failure, Memory
from nodeagent.pods.model import Actual, Desired, Object
from nodeagent.pods.plan import (
    Action,
    CreateSandbox,
    GiveUp,
    Plan,
    RemoveContainer,
    RemoveSandbox,
    ResizeContainer,
    Stage,
    StartContainer,
    StopContainer,
    StopSandbox,
    ending,
    make_plan,
)
from nodeagent.pods.status import Facts, pod_status
from nodeagent.pods.statusmanager import StatusManager
from nodeagent.pods.volumes.content import VolumeFailure
from nodeagent.runtime.interface import ContainerState, ContainerStatus, RuntimeFailure, SandboxState, SandboxStatus

log = logging.getLogger(__name__)

_RETRY_FIRST_S, _RETRY_LAST_S = 1.0, 15.0
_NETWORK_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all workers of the agent use. `gone(uid)`: the worker is done with its pod for good. `refuse_resize`: why
    the node cannot grant what a pod asks for now."""

    launcher: Launcher
    statuses: StatusManager
    gone: Callable[[str], None]
    refuse_resize: Callable[[Desired], resize.Pending | None]


class Worker:
    """`orphan`: the API server does not know this pod (any more); it is only to be removed."""

    def __init__(self, shared: Shared, want: Desired, *, orphan: bool = False) -> None:
        self.want = want
        self.granted = want  # `want` with the resources that the node has granted it
        self.memory = Memory(started_at=_started_at(want.pod), allocated=resize.known(want.pod))
        self._found_resources = self.memory.allocated  # of containers that ran before us
        self.plan = Plan()
        self.orphan = orphan
        self._shared = shared
        self._launcher = shared.launcher
        self._sandboxes: dict[str, SandboxStatus] = {}
        self._relist = False
        self._adopted = False
        self._wake = asyncio.Event()
        self._wake.set()
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._past_return: set[str] = set()  # operations that must not be cancelled any more
        self._health = HealthWatch(self.memory, shared.launcher, self._wake.set)
        self._known_dead: set[str] = set()
        self._tries: dict[str, int] = {}
        self._finished = False
        self._since = clock.wall_time()  # how fresh must be what is fetched for the pod

    # From outside.

    def update(self, pod: Object) -> None:
        """The pod has changed."""
        self.want = Desired.of(pod)
        self._launcher.volumes.update(pod)
        self._wake.set()

    def poke(self, sandbox: bool = False) -> None:
        """The runtime has news; `sandbox`: of the sandbox itself."""
        self._relist = self._relist or sandbox
        self._wake.set()

    def network_is_ready(self) -> None:
        """The pod network has come up: whoever waited for it goes on at once."""
        failure = self.memory.failures.get(SANDBOX)
        if failure is not None and failure.reason == "NetworkNotReady":
            del self.memory.failures[SANDBOX]
            self._wake.set()

    def adopt(self, sandboxes: Sequence[SandboxStatus]) -> None:
        """Take over what an earlier agent left running, without touching it."""
        self._sandboxes = {s.id: s for s in sandboxes}
        self._adopted = True
        for entries in ("initContainerStatuses", "containerStatuses"):
            for entry in (self.want.pod.get("status") or {}).get(entries) or ():
                if entry.get("containerID"):
                    self.memory.next_attempt[entry["name"]] = int(entry.get("restartCount") or 0) + 1
        self._launcher.volumes.adopt(self.want.pod)

    @property
    def stage(self) -> Stage:
        return self.plan.stage

    async def run(self) -> None:
        """Until the pod is gone, or cancelled (which touches nothing that runs)."""
        delay = _RETRY_FIRST_S
        try:
            while not self._finished:
                await self._sleep()
                try:
                    await self._step()
                    delay = _RETRY_FIRST_S
                except Exception:
                    log.exception("worker_step_failed pod=%s retry_s=%.0f", self.want.key, delay)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _RETRY_LAST_S)
                    self._wake.set()
        finally:
            self._health.close()
            for task in self._operations.values():
                task.cancel()

    async def _sleep(self) -> None:
        at = self.plan.wake_at
        if at is None:
            await self._wake.wait()
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, at - clock.wall_time())):
                    await self._wake.wait()
        self._wake.clear()

    async def _step(self) -> None:
        self._negotiate()
        want = self.granted
        actual = await self._observe(want)
        now = clock.wall_time()
        if ending(want, actual, self.memory):
            self._begin_end(now)
        self.plan = plan = make_plan(want, actual, self.memory, now)
        for action in plan.actions:
            self._begin(action)
        self._report(want, actual, now)
        if plan.stage is Stage.ENDED and not self._operations:
            self._after_end(want)

    def _negotiate(self) -> None:
        """Grant the pod the resources that it asks for, if there is room for them; what it has stays its own."""
        want, memory = self.want, self.memory
        wanted = resize.asked(want.pod)
        if memory.allocated != wanted and want.deletion_grace_s is None:
            ask = any(not resize.same(memory.allocated.get(name, {}), r) for name, r in wanted.items())
            memory.resize = self._shared.refuse_resize(want) if ask else None
            if memory.resize is None:
                memory.allocated = wanted
        elif memory.resize is not None:
            memory.resize = None
        pod = resize.granted(want.pod, memory.allocated)
        self.granted = want if pod is want.pod else Desired.of(pod)

    def _report(self, want: Desired, actual: Actual, now: float) -> None:
        if self.orphan:
            return
        facts = Facts(self._launcher.node.ips, self._launcher.images.names)
        self._shared.statuses.set(want.pod, pod_status(want, actual, self.memory, self.plan, facts, now))

    # Looking.

    async def _observe(self, want: Desired) -> Actual:
        runtime = self._launcher.runtime
        if self._relist:
            self._relist = False
            self._sandboxes = {s.id: s for s in await runtime.sandboxes() if s.identity.uid == want.uid}
        containers: list[ContainerStatus] = []
        for sandbox_id in self._sandboxes:
            containers += await runtime.containers(sandbox_id)
        actual = Actual.of(list(self._sandboxes.values()), containers)
        if self._adopted:
            self._adopted = False
            self._recall_crashes(actual)
        for container in containers:
            if container.state is ContainerState.EXITED:
                if container.id not in self._known_dead:
                    await self._mourn(container)
            elif container.state is ContainerState.RUNNING and container.id not in self.memory.health:
                self.memory.applied.setdefault(container.id, self._found_resources.get(container.name, {}))
                self._watch(want, container)
        return actual

    def _recall_crashes(self, actual: Actual) -> None:
        """How long an earlier agent made crashing containers wait shows in their times: go on from there."""
        for name in actual.by_name:
            newest, previous = actual.newest(name), actual.previous(name)
            if newest is not None and previous is not None and previous.finished_at and newest.started_at:
                self.memory.crashes.recall(name, newest.started_at - previous.finished_at, newest.started_at)

    async def _mourn(self, container: ContainerStatus) -> None:
        """A container has ended: keep its last message, stop asking after its health."""
        self._known_dead.add(container.id)
        self.memory.applied.pop(container.id, None)
        self._health.forget(container.id)
        ended = self.memory.ended.setdefault(container.name, {})
        ended[container.attempt] = container
        for old in sorted(ended)[:-2]:
            self._known_dead.discard(ended[old].id)
            self.memory.messages.pop(ended[old].id, None)
            del ended[old]
        text = messages.last_message(container)
        if text:
            self.memory.messages[container.id] = text

    def _watch(self, want: Desired, container: ContainerStatus) -> None:
        """Begin to probe a container that an earlier agent started."""
        wanted, sandbox = want.container(container.name), self._sandboxes.get(container.sandbox_id)
        if wanted is not None and sandbox is not None and f"start:{container.name}" not in self.memory.busy:
            known = healthwatch.as_last_told(want.pod, container)
            self._health.begin(want, wanted, container.id, container.started_at, sandbox, known)

    # Doing.

    def _begin(self, action: Action) -> None:
        """Start an operation; one of the same key that is still under way (a slower stop) gives way."""
        log.info("pod=%s action=%r", self.want.key, action.describe())
        if isinstance(action, GiveUp):
            self.memory.verdict = action.verdict
            self._wake.set()
            return
        before = self._operations.get(action.key)
        if before is not None:
            before.cancel()
        self.memory.busy[action.key] = action.deadline if isinstance(action, StopContainer) else 0.0
        task = asyncio.get_running_loop().create_task(self._operate(action))
        self._operations[action.key] = task
        task.add_done_callback(lambda t: self._end(action, t))

    def _end(self, action: Action, task: asyncio.Task[None]) -> None:
        if self._operations.get(action.key) is task:
            del self._operations[action.key]
            self.memory.busy.pop(action.key, None)
            self._past_return.discard(action.key)
            self._wake.set()

    async def _operate(self, action: Action) -> None:
        perform: Callable[..., Awaitable[None]] = _OPERATIONS[type(action)]
        try:
            await perform(self, action)
        except RuntimeFailure as failure:
            log.warning("pod=%s failed=%r error=%s", self.want.key, action.describe(), failure)
            await asyncio.sleep(self._retry_delay(action.key))
        except Exception:
            log.exception("pod=%s failed=%r", self.want.key, action.describe())
            await asyncio.sleep(self._retry_delay(action.key))
        else:
            self._tries.pop(action.key, None)

    def _retry_delay(self, key: str) -> float:
        self._tries[key] = tries = self._tries.get(key, 0) + 1
        return float(min(_RETRY_FIRST_S * 2 ** (tries - 1), _RETRY_LAST_S))

    async def _create_sandbox(self, action: CreateSandbox) -> None:
        want = self.want
        if self._launcher.waits_for_network(want):
            message = "network is not ready: the pod network of this node is not set up yet"
            now = clock.wall_time()
            self.memory.failures[SANDBOX] = Failure("NetworkNotReady", message, now, now + _NETWORK_PATIENCE_S)
            self._launcher.tell(want.pod, "Warning", "NetworkNotReady", message)
            return
        # The volumes need no sandbox: let them get ready meanwhile. Whoever needs them asks again and gets the result.
        volumes = asyncio.ensure_future(self._launcher.volumes.prepare(want.pod, self._since))
        volumes.add_done_callback(lambda f: None if f.cancelled() else f.exception() and None)
        try:
            status = await self._launcher.sandbox(want, action.attempt)
        except RuntimeFailure as failure:
            now = clock.wall_time()
            message = f"Failed to create pod sandbox: {failure}"
            retry_at = now + self._retry_delay(SANDBOX)
            self.memory.failures[SANDBOX] = Failure("FailedCreatePodSandBox", message, now, retry_at)
            self.memory.next_attempt[SANDBOX] = action.attempt + 1
            self._relist = True
            self._launcher.tell(want.pod, "Warning", "FailedCreatePodSandBox", message)
            log.warning("pod=%s sandbox_failed error=%s", want.key, failure)
            return
        self._tries.pop(SANDBOX, None)
        self.memory.failures.pop(SANDBOX, None)
        self._sandboxes[status.id] = status

    async def _start_container(self, action: StartContainer) -> None:
        want, memory = self.granted, self.memory
        wanted, sandbox = want.container(action.name), self._sandboxes.get(action.sandbox_id)
        if wanted is None or sandbox is None:
            return
        if action.failed_at:
            memory.crashes.next(action.name, action.failed_at, clock.wall_time())
        created = ""
        try:
            if action.replaces:
                await self._launcher.runtime.remove_container(action.replaces)
            created, _ = await self._launcher.create(want, wanted, action.attempt, sandbox, self._since)
            memory.applied[created] = resize.asked(want.pod).get(action.name, {})
            self._past_return.add(action.key)
            await self._launcher.start(want, wanted, created)
        except ImageNotReady as failure:
            memory.failures[action.name] = Failure(failure.reason, str(failure), clock.wall_time(), failure.retry_at)
            return
        except VolumeFailure as failure:
            now = clock.wall_time()
            self._since = now  # what was missing may be there at the next try
            self._launcher.tell(want.pod, "Warning", "FailedMount", str(failure))
            memory.failures[action.name] = Failure("ContainerCreating", "", now, now + self._retry_delay("volumes"))
            return
        except RuntimeFailure as failure:
            self._start_failed(want, action, failure, exists=bool(created))
            return
        finally:
            self._past_return.discard(action.key)
        memory.failures.pop(action.name, None)
        self._tries.pop(action.name, None)
        self._health.begin(want, wanted, created, clock.wall_time(), sandbox)
        if (wanted.spec.get("lifecycle") or {}).get("postStart"):
            try:
                await self._launcher.post_start(want, wanted, created, sandbox)
            except RuntimeFailure as failure:
                self._health.condemn(created, Condemned(str(failure), want.termination_grace_s))

    def _start_failed(self, want: Desired, action: StartContainer, failure: RuntimeFailure, *, exists: bool) -> None:
        now = self._since = clock.wall_time()
        retry_at = 0.0 if exists else now + self._retry_delay(action.name)
        self.memory.failures[action.name] = Failure(failure.reason, str(failure), now, retry_at, exists)
        self._launcher.tell(want.pod, "Warning", "Failed", f"Error: {failure}")
        log.info("pod=%s container=%s not_started reason=%s error=%s", want.key, action.name, failure.reason, failure)

    async def _stop_container(self, action: StopContainer) -> None:
        want = self.want
        wanted = want.container(action.name)
        self._launcher.tell(want.pod, "Normal", "Killing", action.message)
        self._health.stop(action.container_id)
        if wanted is not None:
            sandbox = next((s for s in self._sandboxes.values() if s.state is SandboxState.READY), None)
            host = sandbox.ips[0] if sandbox is not None and sandbox.ips else "127.0.0.1"
            await self._launcher.pre_stop(want, wanted, action.container_id, host, action.grace_s)
        left = action.deadline - clock.wall_time()
        await self._launcher.runtime.stop_container(action.container_id, max(left, min(2.0, action.grace_s)))

    async def _resize_container(self, action: ResizeContainer) -> None:
        want, memory = self.granted, self.memory
        wanted, container = want.container(action.name), action.container_id
        newest = next((s for s in self._sandboxes.values() if s.state is SandboxState.READY), None)
        if wanted is None or newest is None:
            return
        try:
            await self._launcher.resize(want, wanted, container, newest.id)
        except RuntimeFailure as failure:
            now = clock.wall_time()
            retry_at = now + self._retry_delay(action.key)
            memory.failures[action.key] = Failure("Error", str(failure), now, retry_at)
            self._launcher.tell(want.pod, "Warning", "ResizeError", str(failure))
            return
        memory.failures.pop(action.key, None)
        memory.applied[container] = wanted.spec.get("resources") or {}

    async def _stop_sandbox(self, action: StopSandbox) -> None:
        await self._launcher.runtime.stop_sandbox(action.sandbox_id)
        self._relist = True

    async def _remove_sandbox(self, action: RemoveSandbox) -> None:
        await self._launcher.runtime.remove_sandbox(action.sandbox_id)
        self._sandboxes.pop(action.sandbox_id, None)

    async def _remove_container(self, action: RemoveContainer) -> None:
        await self._launcher.runtime.remove_container(action.container_id)
        messages.remove_logs(action.log_path)

    # Ending.

    def _begin_end(self, now: float) -> None:
        """The pod is to end: give up starting things, remember since when."""
        if self.memory.ending_since is None:
            self.memory.ending_since = now
        for key, task in self._operations.items():
            if key.startswith("start:") and key not in self._past_return:
                task.cancel()

    def _after_end(self, want: Desired) -> None:
        """Nothing runs any more: take down the volumes; of a deleted pod everything."""
        deleting = want.deletion_grace_s is not None
        if deleting or not self.memory.volumes_gone:
            task = asyncio.get_running_loop().create_task(self._clean_up(want, deleting))
            self._operations["cleanup"] = task
            self.memory.busy["cleanup"] = 0.0
            task.add_done_callback(self._cleaned_up)

    def _cleaned_up(self, task: asyncio.Task[None]) -> None:
        self._operations.pop("cleanup", None)
        self.memory.busy.pop("cleanup", None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod=%s cleanup_failed error=%s", self.want.key, error)
            asyncio.get_running_loop().call_later(_RETRY_LAST_S, self._wake.set)
        else:
            self._wake.set()

    async def _clean_up(self, want: Desired, deleting: bool) -> None:
        await self._launcher.volumes.remove(want.uid)
        self.memory.volumes_gone = True
        if not deleting:
            return
        logs = self._launcher.node.pod_logs(want.namespace, want.name, want.uid)
        if os.path.isdir(logs):
            shutil.rmtree(logs, ignore_errors=True)
        self._finished = True
        log.info("pod=%s uid=%s removed", want.key, want.uid)
        if self.orphan:
            self._shared.gone(want.uid)
        else:
            self._shared.statuses.finish(want.pod, lambda: self._shared.gone(want.uid))


_OPERATIONS: dict[type[Action], Callable[..., Awaitable[None]]] = {
    CreateSandbox: Worker._create_sandbox,
    StartContainer: Worker._start_container,
    StopContainer: Worker._stop_container,
    StopSandbox: Worker._stop_sandbox,
    RemoveSandbox: Worker._remove_sandbox,
    RemoveContainer: Worker._remove_container,
    ResizeContainer: Worker._resize_container,
}


def _started_at(pod: Object) -> float:
    """When the node took the pod up, as its status says; now, for a new one."""
    text = (pod.get("status") or {}).get("startTime")
    return clock.parse_rfc3339(text) if text else clock.wall_time()
