"""A runtime, an image service and a pod network in memory, for tests of everything above them.

They keep the promises of interface.py that a caller can see (states, idempotence, events, errors) without a kernel;
`tests/contract/test_runtime.py` holds the fake and the real runtime to the same suite. A container's program is a
function in `FakeRuntime.programs` (`true`, `false`, `sleep`, `sh -c "exit N"`, `cat`, `echo`); any other command runs
until `finish()` ends it. `fail_next()` makes one coming call fail. They do not imitate time: nothing here waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from controlplane import clock
from nodeagent.linux.cgroups.usage import Usage
from nodeagent.runtime import dial
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    DiskUsage,
    ExecSession,
    Image,
    ImageConfig,
    LinuxResources,
    NotFound,
    PortMapping,
    RegistryAuth,
    RuntimeFailure,
    SandboxConfig,
    SandboxState,
    SandboxStatus,
    Stats,
)

_SUMMED = ("cpu_ns", "memory_bytes", "working_set_bytes", "rss_bytes", "page_faults", "major_page_faults", "pids")
Program = Callable[[Sequence[str], bytes], "Outcome | None"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a fake program ends: at once, with this exit code and output."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


def _shell(argv: Sequence[str], stdin: bytes) -> Outcome | None:
    found = re.fullmatch(r"exit (\d+)", argv[2].strip()) if len(argv) == 3 and argv[1] == "-c" else None
    return Outcome(int(found[1])) if found else None


def _echo(argv: Sequence[str], stdin: bytes) -> Outcome:
    return Outcome(stdout=" ".join(argv[1:]).encode() + b"\n")


PROGRAMS: dict[str, Program] = {
    "true": lambda argv, stdin: Outcome(),
    "false": lambda argv, stdin: Outcome(1),
    "sh": _shell,
    "echo": _echo,
    "cat": lambda argv, stdin: Outcome(stdout=stdin),
}


@dataclass(slots=True)
class FakeContainer:
    """What the fake knows of a container; tests may look at `config` and `stopped_with`."""

    config: ContainerConfig
    status: ContainerStatus
    stopped_with: float | None = None  # the timeout of the last stop_container


@dataclass(slots=True)
class FakeSandbox:
    config: SandboxConfig
    status: SandboxStatus


@dataclass
class FakeRuntime:
    """`Runtime` in memory. Public attributes are for tests to read and set."""

    images: FakeImages = field(default_factory=lambda: FakeImages())
    network: FakeNetwork = field(default_factory=lambda: FakeNetwork())
    programs: dict[str, Program] = field(default_factory=lambda: dict(PROGRAMS))
    calls: list[tuple[str, str]] = field(default_factory=list)  # (method, id or name) of calls that change something
    trouble: str = ""  # what status() says
    usage: dict[str, Usage] = field(default_factory=dict)  # by container name, for stats(); its pod has the sum
    disk: dict[str, DiskUsage] = field(default_factory=dict)  # by container name
    groups: dict[str, LinuxResources] = field(default_factory=dict)  # what set_group was told, by path
    pods: dict[str, FakeSandbox] = field(default_factory=dict)
    made: dict[str, FakeContainer] = field(default_factory=dict)
    _failures: dict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    _listeners: list[asyncio.Queue[ContainerEvent]] = field(default_factory=list)

    # What a test does to it.

    def fail_next(self, method: str, error: Exception | None = None) -> None:
        """The next call of `method` (e.g. "start_container") raises `error`."""
        self._failures[method].append(error or RuntimeFailure(f"{method}: made to fail"))

    def finish(self, container_id: str, exit_code: int = 0, *, signal: int = 0, oom_killed: bool = False) -> None:
        """The container's process ends now. With `signal`, the code becomes 128 + signal."""
        container = self.made[container_id]
        if container.status.state is not ContainerState.RUNNING:
            return
        code = 128 + signal if signal else exit_code
        reason = "OOMKilled" if oom_killed else "Error" if code else "Completed"
        self._change(
            container, state=ContainerState.EXITED, exit_code=code, signal=signal, oom_killed=oom_killed,
            reason=reason, finished_at=clock.wall_time(), pid=0,
        )  # fmt: skip
        self._tell(container.status, "STOPPED")

    def kill_sandbox(self, sandbox_id: str) -> None:
        """The sandbox dies under its pod, and its containers with it."""
        sandbox = self.pods[sandbox_id]
        for container in self._of(sandbox_id):
            self.finish(container.status.id, signal=9)
        sandbox.status = dataclasses.replace(sandbox.status, state=SandboxState.NOTREADY)
        self._emit(ContainerEvent(sandbox_id, "", sandbox.config.identity.uid, "STOPPED"))

    def find(self, name: str, pod_uid: str = "") -> FakeContainer:
        """The newest container of this name (and pod). Raises KeyError if there is none."""
        for container in reversed(self.made.values()):
            pod = self.pods[container.status.sandbox_id].config.identity
            if container.config.name == name and pod_uid in ("", pod.uid):
                return container
        raise KeyError(name)

    # The Runtime protocol.

    async def start(self) -> None:
        self._begin("start", "")

    async def close(self) -> None:
        pass

    async def status(self) -> str:
        return self.trouble

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        self._begin("run_sandbox", config.identity.uid)
        identity = config.identity
        for other in self.pods.values():
            if (other.config.identity.uid, other.config.identity.attempt) == (identity.uid, identity.attempt):
                raise RuntimeFailure(f"run_sandbox: attempt {identity.attempt} of pod {identity.uid} exists already")
        sandbox_id = _new_id()
        path = "" if config.host_network else f"/fake/{sandbox_id}/ns/net"
        ips = [] if config.host_network else await self.network.attach(sandbox_id, path, config.port_mappings)
        status = SandboxStatus(
            sandbox_id, identity, SandboxState.READY, clock.wall_time(), tuple(ips), path,
            config.labels, config.annotations,
        )  # fmt: skip
        self.pods[sandbox_id] = FakeSandbox(config, status)
        self._emit(ContainerEvent(sandbox_id, "", identity.uid, "STARTED"))
        return status

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._begin("stop_sandbox", sandbox_id)
        sandbox = self.pods.get(sandbox_id)
        if sandbox and sandbox.status.state is SandboxState.READY:
            self.kill_sandbox(sandbox_id)
            await self.network.detach(sandbox_id, sandbox.status.netns_path)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._begin("remove_sandbox", sandbox_id)
        if sandbox_id in self.pods:
            await self.stop_sandbox(sandbox_id)
            for container in self._of(sandbox_id):
                await self.remove_container(container.status.id)
            uid = self.pods.pop(sandbox_id).config.identity.uid
            self._emit(ContainerEvent(sandbox_id, "", uid, "DELETED"))

    async def sandboxes(self) -> Sequence[SandboxStatus]:
        return [s.status for s in self.pods.values()]

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        self._begin("create_container", config.name)
        sandbox = self.pods.get(sandbox_id)
        if sandbox is None or sandbox.status.state is not SandboxState.READY:
            raise NotFound(f"create_container: no ready sandbox {sandbox_id!r}", "CreateContainerError")
        image = await self.images.status(config.image)
        if image is None:
            raise NotFound(f"create_container: no image {config.image!r}", "CreateContainerError")
        for other in self._of(sandbox_id):
            if (other.config.name, other.config.attempt) == (config.name, config.attempt):
                message = f"create_container: attempt {config.attempt} of {config.name} exists already"
                raise RuntimeFailure(message, "CreateContainerError")
        log = os.path.join(sandbox.config.log_directory, config.log_path) if config.log_path else ""
        status = ContainerStatus(
            _new_id(), sandbox_id, config.name, config.attempt, ContainerState.CREATED, image.id, clock.wall_time(),
            log_path=log, labels=config.labels, annotations=config.annotations,
        )  # fmt: skip
        self.made[status.id] = FakeContainer(config, status)
        self._tell(status, "CREATED")
        return status.id

    async def start_container(self, container_id: str) -> None:
        container = self._get("start_container", container_id)
        if container.status.state is not ContainerState.CREATED:
            raise RuntimeFailure(f"start_container: {container_id} is {container.status.state}, not CONTAINER_CREATED")
        try:
            self._begin("start_container", container_id)
            argv = await self._argv(container.config)
        except RuntimeFailure as failure:
            now = clock.wall_time()
            self._change(
                container, state=ContainerState.EXITED, exit_code=127, reason="ContainerCannotRun",
                message=str(failure), finished_at=now,
            )  # fmt: skip
            self._tell(container.status, "STOPPED")
            raise
        self._change(container, state=ContainerState.RUNNING, started_at=clock.wall_time(), pid=len(self.made))
        self._tell(container.status, "STARTED")
        program = self.programs.get(os.path.basename(argv[0]))
        outcome = program(argv, b"") if program else None
        if outcome is not None:
            self.say(container_id, outcome.stdout)
            self.finish(container_id, outcome.exit_code)

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        self._begin("stop_container", container_id)
        container = self.made.get(container_id)
        if container is not None:
            container.stopped_with = timeout_s
            self.finish(container_id, signal=9 if timeout_s <= 0 else 15)

    async def remove_container(self, container_id: str) -> None:
        self._begin("remove_container", container_id)
        container = self.made.get(container_id)
        if container is not None:
            self.finish(container_id, signal=9)
            del self.made[container_id]
            self._tell(container.status, "DELETED")

    async def containers(self, sandbox_id: str = "") -> Sequence[ContainerStatus]:
        return [c.status for c in self.made.values() if sandbox_id in ("", c.status.sandbox_id)]

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._get("container_status", container_id).status

    async def stats(self) -> Sequence[Stats]:
        found, now = [], clock.wall_time()
        for sandbox in self.pods.values():
            if sandbox.status.state is not SandboxState.READY:
                continue
            running = [c for c in self._of(sandbox.status.id) if c.status.state is ContainerState.RUNNING]
            used = [self.usage.get(c.config.name, Usage()) for c in running]
            whole = Usage(**{f: sum(getattr(u, f) for u in used) for f in _SUMMED})
            found.append(Stats(sandbox.status.id, "", now, whole))
            found += [Stats(sandbox.status.id, c.status.id, now, u) for c, u in zip(running, used, strict=True)]
        return found

    async def disk_usage(self, container_id: str) -> DiskUsage:
        return self.disk.get(self._get("disk_usage", container_id).config.name, DiskUsage())

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        self._begin("update_resources", container_id)
        container = self._get("update_resources", container_id)
        container.config = dataclasses.replace(container.config, resources=resources)

    async def update_sandbox_resources(self, sandbox_id: str, resources: LinuxResources) -> None:
        self._begin("update_sandbox_resources", sandbox_id)
        if sandbox_id not in self.pods:
            raise NotFound(f"update_sandbox_resources: no sandbox {sandbox_id!r}")
        pod = self.pods[sandbox_id]
        pod.config = dataclasses.replace(pod.config, resources=resources)

    async def set_group(self, path: str, resources: LinuxResources) -> None:
        self._begin("set_group", path)
        self.groups[path] = resources

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ExecSession:
        self._begin("exec", container_id)
        container = self._get("exec", container_id)
        if container.status.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"exec: container {container_id} is not running")
        _check_executable(command)
        return FakeSession(self.programs.get(os.path.basename(command[0])), command, wants_stdin=stdin)

    async def attach(self, container_id: str) -> ExecSession:
        container = self._get("attach", container_id)
        if container.status.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"attach: container {container_id} is not running")
        return FakeSession(None, (), wants_stdin=container.config.stdin)

    async def dial(self, sandbox_id: str, port: int) -> socket.socket:
        if sandbox_id not in self.pods or self.pods[sandbox_id].status.state is not SandboxState.READY:
            raise NotFound(f"port_forward: sandbox {sandbox_id!r} is not running")
        return await dial.dial("", port)

    async def reopen_log(self, container_id: str) -> None:
        self._begin("reopen_log", container_id)
        self._get("reopen_log", container_id)

    async def events(self) -> AsyncIterator[ContainerEvent]:
        queue: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def say(self, container_id: str, data: bytes, stream: str = "stdout") -> None:
        """Write lines to the container's log, as if its program had printed them."""
        path = self.made[container_id].status.log_path
        if path and data:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "ab") as log:
                for line in data.splitlines():
                    stamp = clock.rfc3339_micro()[:-1] + "000Z"
                    log.write(f"{stamp} {stream} F ".encode() + line + b"\n")

    # Inside.

    def _begin(self, method: str, subject: str) -> None:
        self.calls.append((method, subject))
        if self._failures[method]:
            raise self._failures[method].pop(0)

    def _get(self, method: str, container_id: str) -> FakeContainer:
        try:
            return self.made[container_id]
        except KeyError:
            raise NotFound(f"{method}: no container {container_id!r}") from None

    def _of(self, sandbox_id: str) -> list[FakeContainer]:
        return [c for c in self.made.values() if c.status.sandbox_id == sandbox_id]

    async def _argv(self, config: ContainerConfig) -> list[str]:
        image = await self.images.status(config.image)
        default = image.config if image else ImageConfig()
        argv = [*(config.command or default.entrypoint), *(config.args or (() if config.command else default.cmd))]
        _check_executable(argv)
        return argv

    def _change(self, container: FakeContainer, **changes: object) -> None:
        container.status = dataclasses.replace(container.status, **changes)  # type: ignore[arg-type]

    def _tell(self, status: ContainerStatus, kind: str) -> None:
        uid = self.pods[status.sandbox_id].config.identity.uid
        self._emit(ContainerEvent(status.sandbox_id, status.id, uid, kind))

    def _emit(self, event: ContainerEvent) -> None:
        for queue in self._listeners:
            queue.put_nowait(event)


class FakeSession:
    """`ExecSession`: runs a fake program on what was written to it, once its input is closed (or at once without)."""

    def __init__(self, program: Program | None, command: Sequence[str], *, wants_stdin: bool) -> None:
        self._program = program
        self._command = command
        self._stdin = bytearray()
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.size: tuple[int, int] | None = None
        if not wants_stdin:
            self._run()

    def _run(self) -> None:
        outcome = self._program(self._command, bytes(self._stdin)) if self._program else None
        if outcome is not None and not self._exit.done():
            for stream, data in ((1, outcome.stdout), (2, outcome.stderr)):
                if data:
                    self._chunks.put_nowait((stream, data))
            self.end(outcome.exit_code)

    def end(self, exit_code: int) -> None:
        """The process ends now, with what it has printed so far."""
        if not self._exit.done():
            self._exit.set_result(exit_code)
            self._chunks.put_nowait(None)

    async def read(self) -> tuple[int, bytes] | None:
        chunk = await self._chunks.get()
        if chunk is None:
            self._chunks.put_nowait(None)
        return chunk

    async def write(self, data: bytes) -> None:
        self._stdin += data

    async def close_stdin(self) -> None:
        self._run()

    async def resize(self, width: int, height: int) -> None:
        self.size = (width, height)

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        self.end(137)


def _check_executable(argv: Sequence[str]) -> None:
    if not argv:
        raise RuntimeFailure("no command specified")
    if "missing" in argv[0]:
        raise RuntimeFailure(f'exec: "{argv[0]}": stat {argv[0]}: no such file or directory')


def _new_id() -> str:
    return f"{clock.chance.getrandbits(256):064x}"


class FakeImages:
    """`ImageService` in memory. `remote` is what a pull can find; `local` what the node has."""

    def __init__(self) -> None:
        self.local: dict[str, Image] = {}
        self.remote: dict[str, Image] = {}
        self.failures: dict[str, RuntimeFailure] = {}
        self.pulls: list[str] = []

    def add(self, reference: str, config: ImageConfig | None = None, *, remote_only: bool = False) -> Image:
        """Make `reference` known: on this node, or only in the registry."""
        image = Image(
            f"sha256:{abs(hash(reference)):064x}", (), config or ImageConfig(cmd=("sleep", "infinity")), (reference,)
        )
        self.remote[reference] = image
        if not remote_only:
            self.local[reference] = image
        return image

    def fail(self, reference: str, message: str = "connection refused", reason: str = "ErrImagePull") -> None:
        """Every pull of `reference` fails until `recover()`."""
        self.failures[reference] = RuntimeFailure(message, reason)

    def recover(self, reference: str) -> None:
        self.failures.pop(reference, None)

    async def status(self, reference: str) -> Image | None:
        found = self.local.get(reference)
        return found or next((i for i in self.local.values() if reference == i.id or reference in i.digests), None)

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> Image:
        self.pulls.append(reference)
        if reference in self.failures:
            raise self.failures[reference]
        if reference not in self.remote:
            raise NotFound(f'failed to pull image "{reference}": not found', "ErrImagePull")
        self.local[reference] = self.remote[reference]
        return self.remote[reference]

    async def load(self, path: str) -> Sequence[Image]:
        return [self.add(path)]

    async def images(self) -> Sequence[Image]:
        return list(self.local.values())

    async def remove(self, reference: str) -> None:
        for name, image in list(self.local.items()):
            if reference in (name, image.id):
                del self.local[name]


class FakeNetwork:
    """`PodNetwork` in memory: hands out 10.244.0.2, 10.244.0.3, … and remembers who has which."""

    def __init__(self) -> None:
        self.attached: dict[str, str] = {}
        self.failure: RuntimeFailure | None = None
        self._next = 2

    async def attach(self, sandbox_id: str, netns_path: str, ports: Sequence[PortMapping] = ()) -> Sequence[str]:
        if self.failure:
            raise self.failure
        if sandbox_id not in self.attached:
            self.attached[sandbox_id] = f"10.244.{self._next >> 8}.{self._next & 255}"
            self._next += 1
        return [self.attached[sandbox_id]]

    async def detach(self, sandbox_id: str, netns_path: str = "") -> None:
        self.attached.pop(sandbox_id, None)
