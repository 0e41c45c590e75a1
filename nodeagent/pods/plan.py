"""What to do next for one pod: desired + actual + memory + now -> a list of actions. Pure.

The worker calls `make_plan` after every event, starts the actions and forgets the plan; what is in flight is in
`memory.busy` and is not planned again. So every decision is made from the whole truth of the moment, and a restarted
agent decides as the old one would have.

The order of a pod's life: sandbox; init containers one after the other (a sidecar lets the next one start as soon as it
has started); then main containers in order, each after the start of the one before; restarts by policy with back-off.
The end (deletion, a deadline, eviction, all finished): main containers together, then sidecars from last to first, then
the sandbox. Semantics: kubelet's kuberuntime_manager.go computePodActions and kuberuntime_termination_order.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nodeagent.pods import resize
from nodeagent.pods.memory import SANDBOX, Memory, Verdict
from nodeagent.pods.model import ANNOTATION_HASH, Actual, Desired, Kind, Wanted, should_restart
from nodeagent.runtime.interface import ContainerState, ContainerStatus, SandboxState

MINIMUM_GRACE_S = 2.0  # what a sidecar gets at least when the main containers have used up the pod's grace


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. Two actions with one `key` are never in flight together."""

    @property
    def key(self) -> str:
        raise NotImplementedError

    def describe(self) -> str:
        """`verb subject key=value…`, for logs and explanations."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class CreateSandbox(Action):
    attempt: int

    @property
    def key(self) -> str:
        return "sandbox"

    def describe(self) -> str:
        return f"create sandbox attempt={self.attempt}"


@dataclass(frozen=True, slots=True)
class StopSandbox(Action):
    sandbox_id: str

    @property
    def key(self) -> str:
        return f"sandbox:{self.sandbox_id}"

    def describe(self) -> str:
        return f"stop sandbox id={self.sandbox_id[:13]}"


@dataclass(frozen=True, slots=True)
class RemoveSandbox(Action):
    sandbox_id: str

    @property
    def key(self) -> str:
        return f"sandbox:{self.sandbox_id}"

    def describe(self) -> str:
        return f"remove sandbox id={self.sandbox_id[:13]}"


@dataclass(frozen=True, slots=True)
class StartContainer(Action):
    """Pull the image if need be, create, start, run the postStart hook. `replaces`: the id of a container that was
    created and never started, to be removed first. `failed_at`: when the instance before it ended, if it did."""

    name: str
    attempt: int
    sandbox_id: str
    replaces: str = ""
    failed_at: float = 0.0

    @property
    def key(self) -> str:
        return f"start:{self.name}"

    def describe(self) -> str:
        return f"start container name={self.name} attempt={self.attempt}"


@dataclass(frozen=True, slots=True)
class StopContainer(Action):
    """preStop hook, stop signal, SIGKILL: all within `grace_s` seconds. `deadline`: the same as a time."""

    container_id: str
    name: str
    grace_s: float
    deadline: float
    message: str

    @property
    def key(self) -> str:
        return f"stop:{self.container_id}"

    def describe(self) -> str:
        return f"stop container name={self.name} id={self.container_id[:13]} grace={self.grace_s:g}s"


@dataclass(frozen=True, slots=True)
class ResizeContainer(Action):
    """Give a running container the resources that the pod was granted."""

    container_id: str
    name: str

    @property
    def key(self) -> str:
        return f"resize:{self.container_id}"

    def describe(self) -> str:
        return f"resize container name={self.name} id={self.container_id[:13]}"


@dataclass(frozen=True, slots=True)
class RemoveContainer(Action):
    """An old instance that nobody asks for any more (the newest two are kept: now and `logs --previous`)."""

    container_id: str
    name: str
    log_path: str

    @property
    def key(self) -> str:
        return f"remove:{self.container_id}"

    def describe(self) -> str:
        return f"remove container name={self.name} id={self.container_id[:13]}"


@dataclass(frozen=True, slots=True)
class GiveUp(Action):
    """Decide that the pod is over; the next plan ends it."""

    verdict: Verdict

    @property
    def key(self) -> str:
        return "verdict"

    def describe(self) -> str:
        return f"give up phase={self.verdict.phase} reason={self.verdict.reason}"


class Stage(StrEnum):
    RUNNING = "running"  # the pod is to run
    ENDING = "ending"  # something of it still runs, and must not
    ENDED = "ended"  # nothing runs and nothing will; with deletion: nothing is left in the runtime


@dataclass(slots=True)
class Plan:
    """`wake_at`: when time alone changes the plan, in seconds since the epoch. `waiting`: containers in crash back-off,
    with the delay in force."""

    stage: Stage = Stage.RUNNING
    actions: list[Action] = field(default_factory=list)
    wake_at: float | None = None
    waiting: dict[str, float] = field(default_factory=dict)

    def wake(self, at: float) -> None:
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at


def make_plan(want: Desired, actual: Actual, memory: Memory, now: float) -> Plan:
    """The actions to start now. `now`: seconds since the epoch."""
    planner = _Planner(want, actual, memory, now)
    if ending(want, actual, memory):
        planner.end()
    else:
        planner.run()
    return planner.plan


def ending(want: Desired, actual: Actual, memory: Memory) -> bool:
    """Whether the pod is to come to its end (or has)."""
    return (
        want.deletion_grace_s is not None
        or memory.verdict is not None
        or bool(want.terminal_phase)
        or is_over(want, actual, memory)
    )


def is_over(want: Desired, actual: Actual, memory: Memory) -> bool:
    """Whether the pod has ended by itself: every main container is done for good, or an init container failed for
    good."""
    if any(w.kind is Kind.INIT and _failed_for_good(w, actual) for w in want.init) and not initialized(want, actual):
        return True
    for wanted in want.main:
        newest = actual.newest(wanted.name)
        if newest is None or newest.state is not ContainerState.EXITED or should_restart(wanted, newest.exit_code):
            return False
        if f"start:{wanted.name}" in memory.busy or _changed(wanted, newest):
            return False
    return bool(want.main)


def initialized(want: Desired, actual: Actual) -> bool:
    """Whether the newest sandbox has got past its init containers: a main container was made in it."""
    newest = actual.sandboxes[0].id if actual.sandboxes else None
    if newest is None:
        return False
    return any(c.sandbox_id == newest for wanted in want.main for c in actual.by_name.get(wanted.name, ()))


def is_started(wanted: Wanted, container: ContainerStatus, memory: Memory) -> bool:
    """Running, and past its startup probe and postStart hook."""
    if container.state is not ContainerState.RUNNING or f"start:{wanted.name}" in memory.busy:
        return False
    health = memory.health.get(container.id)
    return health.started if health is not None else not wanted.has_startup_probe


def _failed_for_good(wanted: Wanted, actual: Actual) -> bool:
    newest = actual.newest(wanted.name)
    if newest is None or newest.state is not ContainerState.EXITED or newest.exit_code == 0:
        return False
    return not should_restart(wanted, newest.exit_code)


def _changed(wanted: Wanted, container: ContainerStatus) -> bool:
    """Whether the spec asks for another image than this instance was made from."""
    return container.annotations.get(ANNOTATION_HASH, wanted.fingerprint) != wanted.fingerprint


class _Planner:
    """One planning: the four inputs and the plan in the making."""

    def __init__(self, want: Desired, actual: Actual, memory: Memory, now: float) -> None:
        self.want, self.actual, self.memory, self.now = want, actual, memory, now
        self.plan = Plan()
        self.sandbox = ""

    # A pod that is to run.

    def run(self) -> None:
        if self._out_of_time():
            return
        sandbox = self.actual.sandbox
        if sandbox is None:
            self._new_sandbox()
            return
        self.sandbox = sandbox.id
        for old in self.actual.sandboxes:
            if old.id != sandbox.id:
                self._add(RemoveSandbox(old.id))
        if self._init_containers():
            self._main_containers()
        for instances in self.actual.by_name.values():
            for dead in instances[2:]:
                if dead.state is not ContainerState.RUNNING:
                    self._add(RemoveContainer(dead.id, dead.name, dead.log_path))

    def _out_of_time(self) -> bool:
        if self.want.active_deadline_s is None:
            return False
        deadline = self.memory.started_at + self.want.active_deadline_s
        if self.now < deadline:
            self.plan.wake(deadline)
            return False
        message = "Pod was active on the node longer than the specified deadline"
        self._add(GiveUp(Verdict("Failed", "DeadlineExceeded", message)))
        return True

    def _new_sandbox(self) -> None:
        """A new sandbox, once nothing of the old ones runs any more."""
        actual, memory = self.actual, self.memory
        if any(s.state is SandboxState.READY for s in actual.sandboxes) or actual.running():
            for old in actual.sandboxes:
                self._add(StopSandbox(old.id))
            return
        if not self._may_try(SANDBOX):
            return
        attempt = actual.sandboxes[0].identity.attempt + 1 if actual.sandboxes else memory.next_attempt.get(SANDBOX, 0)
        self._add(CreateSandbox(attempt))

    def _init_containers(self) -> bool:
        """Plan init containers and sidecars; true when the main containers may run."""
        past = initialized(self.want, self.actual)
        here = [self._here(w) for w in self.want.init]
        reached = max((i for i, c in enumerate(here) if c is not None), default=-1)  # those before it are done
        for index, wanted in enumerate(self.want.init):
            if wanted.kind is Kind.SIDECAR:
                self._keep_running(wanted)
                current = here[index]
                if not past and (current is None or not is_started(wanted, current, self.memory)):
                    return False
            elif not past and index >= reached and not self._one_init(wanted, here[index]):
                return False
        return True

    def _one_init(self, wanted: Wanted, here: ContainerStatus | None) -> bool:
        """Plan one ordinary init container; true when it has succeeded in this sandbox."""
        if here is not None and here.state is ContainerState.RUNNING:
            self._stop_if_condemned(here)
            return False
        if here is not None and here.state is ContainerState.EXITED and here.exit_code == 0:
            return True
        self._start(wanted, self.actual.newest(wanted.name), rerun=here is None)
        return False

    def _main_containers(self) -> None:
        in_order = True
        for wanted in self.want.main:
            newest = self.actual.newest(wanted.name)
            if f"start:{wanted.name}" in self.memory.busy:
                in_order = in_order and newest is not None and newest.attempt > 0
                continue
            if in_order or newest is not None:
                planned = len(self.plan.actions)
                self._keep_running(wanted)
                # On the pod's first way up, the next container starts after this one has.
                in_order = in_order and (newest is not None or len(self.plan.actions) == planned)
        for wanted in self.want.ephemeral:
            if self.actual.newest(wanted.name) is None:
                self._start(wanted, None)

    def _keep_running(self, wanted: Wanted) -> None:
        """Plan a container that is to run as long as the pod does."""
        newest = self.actual.newest(wanted.name)
        if newest is not None and newest.state is ContainerState.RUNNING:
            if newest.sandbox_id != self.sandbox:
                return  # it dies with its sandbox
            if _changed(wanted, newest):
                message = f"Container {wanted.name} definition changed, will be restarted"
                self._stop(newest, self.want.termination_grace_s, message)
            else:
                self._resize(wanted, newest)
                self._stop_if_condemned(newest)
        elif (
            newest is None
            or newest.state is not ContainerState.EXITED
            or should_restart(wanted, newest.exit_code)
            or _changed(wanted, newest)
        ):
            self._start(wanted, newest)

    def _resize(self, wanted: Wanted, running: ContainerStatus) -> None:
        """Bring a running container to what it was granted."""
        granted = self.memory.allocated.get(wanted.name)
        applied = self.memory.applied.get(running.id)
        if granted is None or applied is None or resize.same(granted, applied):
            return
        if resize.must_restart(wanted.spec, applied, granted):
            message = f"Container {wanted.name} resize requires restart"
            self._stop(running, self.want.termination_grace_s, message)
        elif self._may_try(f"resize:{running.id}"):
            self._add(ResizeContainer(running.id, wanted.name))

    def _start(self, wanted: Wanted, newest: ContainerStatus | None, rerun: bool = False) -> None:
        """Start the next instance of a container, or wait for the end of its back-off. `rerun`: it did not fail, its
        sandbox was replaced."""
        if not self._may_try(wanted.name):
            return
        memory = self.memory
        if newest is None:
            self._add(StartContainer(wanted.name, memory.next_attempt.get(wanted.name, 0), self.sandbox))
            return
        failure = memory.failures.get(wanted.name)
        replaces = newest.id if newest.state is not ContainerState.EXITED and newest.sandbox_id == self.sandbox else ""
        if replaces and failure is None:
            # Made by an agent that died before it could start it: no failure of the container's.
            self._add(StartContainer(wanted.name, newest.attempt, self.sandbox, replaces))
            return
        failed_at = newest.finished_at or (failure.at if failure is not None else self.now)
        until = memory.crashes.until(wanted.name, failed_at)
        if until > self.now and not rerun and not _changed(wanted, newest):
            self.plan.waiting[wanted.name] = memory.crashes.delay(wanted.name)
            self.plan.wake(until)
            return
        self._add(StartContainer(wanted.name, newest.attempt + 1, self.sandbox, replaces, failed_at))

    # A pod that is to end.

    def end(self) -> None:
        """Stop what runs in the right order, then the sandbox; with deletion, remove everything."""
        plan, want, memory = self.plan, self.want, self.memory
        plan.stage = Stage.ENDING
        grace = want.termination_grace_s if want.deletion_grace_s is None else want.deletion_grace_s
        if memory.verdict is not None and memory.verdict.grace_s is not None:
            grace = min(grace, memory.verdict.grace_s)
        running = self.actual.running()
        if running:
            self._end_containers(running, grace)
            return
        if memory.busy:
            return  # what is in flight wakes the worker when it ends
        ready = [s for s in self.actual.sandboxes if s.state is SandboxState.READY]
        if want.deletion_grace_s is not None and self.actual.sandboxes:
            plan.actions += [RemoveSandbox(s.id) for s in self.actual.sandboxes]
        elif ready:
            plan.actions += [StopSandbox(s.id) for s in ready]
        else:
            plan.stage = Stage.ENDED

    def _end_containers(self, running: list[ContainerStatus], grace_s: float) -> None:
        since = self.now if self.memory.ending_since is None else self.memory.ending_since
        sidecars = {w.name: i for i, w in enumerate(self.want.init) if w.kind is Kind.SIDECAR}
        first = [c for c in running if c.name not in sidecars]
        for container in first:
            self._stop(container, grace_s, f"Stopping container {container.name}", since)
        if not first:
            last = max(running, key=lambda c: sidecars[c.name])
            left = max(since + grace_s - self.now, min(MINIMUM_GRACE_S, grace_s))
            in_flight = self.memory.busy.get(f"stop:{last.id}")
            if in_flight is None or self.now + left < in_flight - MINIMUM_GRACE_S:
                self._stop(last, left, f"Stopping container {last.name}")

    # Common.

    def _here(self, wanted: Wanted) -> ContainerStatus | None:
        """The newest instance, if it is of the present sandbox."""
        newest = self.actual.newest(wanted.name)
        return newest if newest is not None and newest.sandbox_id == self.sandbox else None

    def _add(self, action: Action) -> None:
        if action.key not in self.memory.busy:
            self.plan.actions.append(action)

    def _may_try(self, what: str) -> bool:
        """Whether the last failure to start `what` is long enough ago."""
        failure = self.memory.failures.get(what)
        if failure is None or failure.retry_at <= self.now:
            return True
        self.plan.wake(failure.retry_at)
        return False

    def _stop_if_condemned(self, container: ContainerStatus) -> None:
        condemned = self.memory.condemned.get(container.id)
        if condemned is not None:
            self._stop(container, condemned.grace_s, condemned.message)

    def _stop(self, container: ContainerStatus, grace_s: float, message: str, since: float | None = None) -> None:
        """Stop a container within `grace_s` of `since`. One that is being stopped already is stopped again only if it
        would have longer than that."""
        deadline = (self.now if since is None else since) + grace_s
        in_flight = self.memory.busy.get(f"stop:{container.id}")
        if in_flight is None or deadline < in_flight - 0.5:
            left = max(0.0, deadline - self.now)
            self.plan.actions.append(StopContainer(container.id, container.name, left, deadline, message))
