"""`LinuxRuntime`: the agent's side of the runtime. It compiles (plan.py), asks zygote and shims, and keeps the state.

The order of every operation is chosen for a `kill -9` between any two of its steps: what is written down first is
found again by `start()`, and finished or cleaned away. Work that only the kernel can do is done by others; what stays
here is small: a container's start costs the agent some directories, one program and one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from controlplane import clock
from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.linux.disk import tree_usage
from nodeagent.linux.program import Program
from nodeagent.runtime import dial, identity, plan, state, watch
from nodeagent.runtime.compile import Compiler
from nodeagent.runtime.exec import Session
from nodeagent.runtime.interface import (
    HANDLERS,
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    DiskUsage,
    ExecSession,
    ImageService,
    LinuxResources,
    NotFound,
    PodNetwork,
    RuntimeFailure,
    SandboxConfig,
    SandboxState,
    SandboxStatus,
    Stats,
)
from nodeagent.runtime.link import Link, Message
from nodeagent.runtime.sandboxes import Sandboxes
from nodeagent.runtime.state import Container, ContainerFile, Exit, Sandbox, Started

T = TypeVar("T")

log = logging.getLogger(__name__)

POD_GROUPS = ("kubepods", "kubepods/burstable", "kubepods/besteffort")  # where pods' cgroups are; others are not swept
KILL_TIMEOUT_S = 30.0  # after SIGKILL a process may still wait for a device; longer than this it is reported


class LinuxRuntime:
    """`Runtime` on this machine's kernel. `root_dir`: containers' writable layers. `state_dir`: see state.py.
    `socket_path`: where the zygote listens. `cgroup_root`: the node's cgroup, relative to the mounts' tops; empty for
    this process's own. `rlimits`: name (nofile, nproc, core, memlock) → (soft, hard) for every container."""

    def __init__(
        self, root_dir: str, state_dir: str, socket_path: str, images: ImageService, network: PodNetwork, *,
        cgroup_root: str = "", rlimits: Mapping[str, tuple[int, int]] | None = None, native: bool = True,
        watch_period_s: float = watch.PERIOD_S,
    ) -> None:  # fmt: skip
        self.images = images
        self._native = native
        self._watch_period_s = watch_period_s
        self._listeners: list[asyncio.Queue[ContainerEvent]] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._root_dir = root_dir
        self._cgroups = Cgroups(detect(cgroup_root))
        self._compiler = Compiler(root_dir, self._cgroups, rlimits or {})
        self._pods = Sandboxes(
            state_dir, socket_path, self._cgroups, network, self._compiler, heard=self._heard, lost=self._lost
        )

    # Life of the runtime itself.

    async def start(self) -> None:
        os.makedirs(f"{self._root_dir}/containers", mode=0o711, exist_ok=True)
        self._compiler.prepare()
        await self._pods.connect()
        for sandbox, alive in await self._pods.find_again():
            if sandbox.link is None and sandbox.state is SandboxState.READY:
                sandbox.state = SandboxState.NOTREADY
            for container in sandbox.containers.values():
                if container.state is ContainerState.RUNNING and container.file.id not in alive:
                    self._bury(container)
        known = {c for s in self._pods.all.values() for c in s.containers}
        for name in set(os.listdir(f"{self._root_dir}/containers")) - known:
            shutil.rmtree(f"{self._root_dir}/containers/{name}", ignore_errors=True)
        self._sweep_cgroups(known)
        self._tasks.add(asyncio.ensure_future(watch.keep_awake(self._pods.pids, self._watch_period_s)))

    def _sweep_cgroups(self, known: set[str]) -> None:
        """Cgroups that belong to no sandbox and no container that is on disk: their files were removed first."""
        own = {sandbox.cgroup for sandbox in self._pods.all.values()}
        unknown = [f"{group}/{name}" for group in POD_GROUPS for name in self._cgroups.children(group)
                   if name.startswith("pod") and f"{group}/{name}" not in own]  # fmt: skip
        unknown += [f"{pod}/{name}" for pod in own for name in self._cgroups.children(pod) if name not in known]
        for path in unknown:
            log.info("swept cgroup=%s", path)
            self._cgroups.kill(path)
            self._later(partial(self._cgroups.remove, path), path)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pods.close()

    async def status(self) -> str:
        return await self._pods.ask_zygote()

    async def events(self) -> AsyncIterator[ContainerEvent]:
        queue: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    # Sandboxes.

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        if config.runtime_handler not in HANDLERS:
            message = f'failed to get sandbox runtime: no runtime for "{config.runtime_handler}" is configured'
            raise RuntimeFailure(message, "CreatePodSandboxError")
        sandbox = await self._whole(self._pods.run(config))
        self._tell(sandbox, "", "STARTED")
        return sandbox.status()

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._pods.all.get(sandbox_id)
        if sandbox is None:
            return
        was = sandbox.state
        await self._pods.stop(sandbox)
        for container in sandbox.containers.values():
            if container.state is ContainerState.RUNNING:
                self._bury(container)
        if was is SandboxState.READY:
            self._tell(sandbox, "", "STOPPED")

    async def remove_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._pods.all.get(sandbox_id)
        if sandbox is None:
            return
        await self.stop_sandbox(sandbox_id)
        for container_id in list(sandbox.containers):
            await self.remove_container(container_id)
        self._pods.forget(sandbox)
        self._later(lambda: self._pods.uses(sandbox.cgroup) or self._cgroups.remove(sandbox.cgroup), sandbox.cgroup)
        self._tell(sandbox, "", "DELETED")

    async def sandboxes(self) -> Sequence[SandboxStatus]:
        return [sandbox.status() for sandbox in self._pods.all.values()]

    # Containers.

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._pods.all.get(sandbox_id)
        if sandbox is None or sandbox.state is not SandboxState.READY:
            raise NotFound(f"create_container: no ready sandbox {sandbox_id!r}", "CreateContainerError")
        if config.target_id:
            target = sandbox.containers.get(config.target_id)
            if target is None or target.state is not ContainerState.RUNNING:
                message = f"create_container: the target container {config.target_id!r} is not running"
                raise RuntimeFailure(message, "CreateContainerError")
        image = await self.images.status(config.image)
        if image is None:
            raise NotFound(f"create_container: no image {config.image!r}", "CreateContainerError")
        for other in sandbox.containers.values():
            if (other.file.config.name, other.file.config.attempt) == (config.name, config.attempt):
                message = f"create_container: attempt {config.attempt} of {config.name} exists already"
                raise RuntimeFailure(message, "CreateContainerError")
        container_id = f"{clock.chance.getrandbits(256):064x}"
        container = None
        try:
            user = identity.resolve(config.security, image.config, image.layers).shown()
            file = ContainerFile(
                container_id, sandbox_id, clock.wall_time(), config, image.config, list(image.layers), user
            )
            container = Container(file, sandbox)
            self._compiler.check(container)
            os.makedirs(container.directory, mode=0o700)
            state.save(f"{container.directory}/config.json", file)
            self._compiler.make_layers(container)
            if container.log_path:
                os.makedirs(os.path.dirname(container.log_path), mode=0o755, exist_ok=True)
            self._cgroups.create(container.cgroup, self._compiler.limits(config.resources))
            self._confine_devices(container)
        except (OSError, ValueError) as error:
            if container is not None:
                self._clean(container)
            raise RuntimeFailure(f"create_container {config.name}: {error}", "CreateContainerError") from error
        sandbox.containers[container_id] = container
        self._tell(sandbox, container_id, "CREATED")
        return container_id

    async def start_container(self, container_id: str) -> None:
        await self._whole(self._start(container_id))

    async def _start(self, container_id: str) -> None:
        container = self._get("start_container", container_id)
        if container.state is not ContainerState.CREATED or container.starting:
            raise RuntimeFailure(f"start_container: {container_id} is {container.state}, not CONTAINER_CREATED")
        sandbox = container.sandbox
        if sandbox.link is None:
            raise RuntimeFailure(f"start_container: the sandbox of {container_id} is gone")
        container.starting = True
        try:
            program = self._compiler.container(container)
            request = self._compiler.start_request(container, native=self._native)
            fd = program.memfd()
            try:
                reply = await sandbox.link.request(request, [fd])
                if "failed" in reply:
                    command = self._compiler.command(container)
                    code, message = plan.explain(program, reply["failed"], _denied(fd, program), command.argv)
                    self._end(container, Exit(code, clock.wall_time(), reason="ContainerCannotRun", message=message))
                    raise RuntimeFailure(message)
            finally:
                os.close(fd)
            container.run(Started(reply["pid"], reply["at"]))
        finally:
            container.starting = False
        self._tell(sandbox, container_id, "STARTED")
        if container.early_exit:
            self._end(container, container.early_exit, on_disk=True)

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        container = self._find(container_id)
        if container is None or container.state is not ContainerState.RUNNING:
            return
        if timeout_s > 0 and await self._signal(container, self._compiler.stop_signal(container)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(container.ended.wait(), timeout_s)
        if container.state is ContainerState.RUNNING:
            await self._kill(container)

    async def remove_container(self, container_id: str) -> None:
        container = self._find(container_id)
        if container is None:
            return
        if container.state is ContainerState.RUNNING:
            await self._kill(container)
        container.sandbox.containers.pop(container_id, None)
        self._clean(container)
        self._tell(container.sandbox, container_id, "DELETED")

    async def containers(self, sandbox_id: str = "") -> Sequence[ContainerStatus]:
        pods = self._pods.all
        chosen = pods.values() if not sandbox_id else [pods[sandbox_id]] if sandbox_id in pods else []
        return [container.status() for sandbox in chosen for container in sandbox.containers.values()]

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._get("container_status", container_id).status()

    async def stats(self) -> Sequence[Stats]:
        return await asyncio.to_thread(self._stats, list(self._pods.all.values()))

    def _stats(self, sandboxes: Sequence[Sandbox]) -> list[Stats]:
        found = []
        for sandbox in sandboxes:
            if sandbox.state is not SandboxState.READY:
                continue
            running = [c for c in list(sandbox.containers.values()) if c.state is ContainerState.RUNNING]
            for container_id, cgroup in [("", sandbox.cgroup), *((c.file.id, c.cgroup) for c in running)]:
                usage = self._cgroups.usage(cgroup)
                if usage is not None:
                    found.append(Stats(sandbox.id, container_id, clock.wall_time(), usage))
        return found

    async def disk_usage(self, container_id: str) -> DiskUsage:
        directory = self._compiler.written(self._get("disk_usage", container_id))
        return DiskUsage(*await asyncio.to_thread(tree_usage, directory))

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        container = self._get("update_resources", container_id)
        limit, usage = resources.memory_limit_bytes, self._cgroups.usage(container.cgroup)
        if usage is not None and 0 < limit < usage.working_set_bytes:  # the kernel would kill it for that
            message = f"cannot lower the memory limit to {limit}: {usage.working_set_bytes} bytes are in use"
            raise RuntimeFailure(f"update_resources: {message}")
        try:
            self._cgroups.update(container.cgroup, self._compiler.limits(resources))
        except OSError as error:
            raise RuntimeFailure(f"update_resources: {error}") from error
        container.resources = resources

    async def update_sandbox_resources(self, sandbox_id: str, resources: LinuxResources) -> None:
        sandbox = self._pods.all.get(sandbox_id)
        if sandbox is None:
            raise NotFound(f"update_sandbox_resources: no sandbox {sandbox_id!r}")
        try:
            self._cgroups.update(sandbox.cgroup, self._compiler.limits(resources))
        except OSError as error:
            raise RuntimeFailure(f"update_sandbox_resources: {error}") from error

    async def set_group(self, path: str, resources: LinuxResources) -> None:
        try:
            self._cgroups.create(path, self._compiler.limits(resources))
        except OSError as error:
            raise RuntimeFailure(f"set_group {path}: {error}") from error

    async def reopen_log(self, container_id: str) -> None:
        await self._link_to("reopen_log", container_id).request({"op": "reopen", "id": container_id})

    # Streams.

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ExecSession:
        self._link_to("exec", container_id)
        container = self._get("exec", container_id)
        program = self._compiler.execution(container, command, tty=tty)
        request = self._compiler.exec_request(container, native=self._native)
        return await Session.run(container, program, request, command, tty=tty, stdin=stdin)

    async def attach(self, container_id: str) -> ExecSession:
        self._link_to("attach", container_id)
        return await Session.attach(self._get("attach", container_id))

    async def dial(self, sandbox_id: str, port: int) -> socket.socket:
        sandbox = self._pods.all.get(sandbox_id)
        if sandbox is None or sandbox.state is not SandboxState.READY:
            raise NotFound(f"port_forward: sandbox {sandbox_id!r} is not running")
        return await dial.dial(sandbox.status().netns_path, port)

    # Inside.

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is done to its end even if the caller is cancelled: half of it would leave a
        process that nobody knows of."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller had it, or has gone away

    def _find(self, container_id: str) -> Container | None:
        return next((s.containers[container_id] for s in self._pods.all.values() if container_id in s.containers), None)

    def _get(self, method: str, container_id: str) -> Container:
        container = self._find(container_id)
        if container is None:
            raise NotFound(f"{method}: no container {container_id!r}")
        return container

    def _link_to(self, method: str, container_id: str) -> Link:
        container = self._get(method, container_id)
        link = container.sandbox.link
        if container.state is not ContainerState.RUNNING or link is None:
            raise RuntimeFailure(f"{method}: container {container_id} is not running")
        return link

    async def _signal(self, container: Container, number: int) -> bool:
        link = container.sandbox.link
        if link is None:
            return False
        with contextlib.suppress(RuntimeFailure):
            reply = await link.request({"op": "signal", "id": container.file.id, "signal": number})
            return bool(reply["sent"])
        return False

    async def _kill(self, container: Container) -> None:
        await self._signal(container, 9)
        if self._compiler.shares_pids(container):
            self._cgroups.kill(container.cgroup)
        try:
            await asyncio.wait_for(container.ended.wait(), KILL_TIMEOUT_S)
        except TimeoutError:
            raise RuntimeFailure(f"container {container.file.id} does not die of SIGKILL") from None

    def _heard(self, sandbox: Sandbox, message: Message) -> None:
        """A shim tells that a container has ended; the file says it already."""
        container = sandbox.containers.get(message.get("ended", ""))
        if container is None:
            return
        exit_ = Exit(message["code"], message["at"], message["signal"], message["oom"])
        if container.starting:
            container.early_exit = exit_
        elif container.state is ContainerState.RUNNING:
            self._end(container, exit_, on_disk=True)

    def _lost(self, sandbox: Sandbox) -> None:
        """A shim is gone without being asked to go: its containers died with it (PR_SET_PDEATHSIG)."""
        log.warning("shim lost sandbox=%s pod=%s", sandbox.id, sandbox.file.config.identity.uid)
        for container in sandbox.containers.values():
            if container.state is ContainerState.RUNNING:
                self._bury(container)
        self._tell(sandbox, "", "STOPPED")

    def _bury(self, container: Container) -> None:
        """Nobody saw this container end, unless a file says how. Make sure that it has."""
        exit_ = state.read(f"{container.directory}/exit.json", Exit)
        self._cgroups.kill(container.cgroup)
        message = "the container's monitor died before it could say how the container ended"
        unknown = Exit(137, clock.wall_time(), 9, reason="ContainerStatusUnknown", message=message)
        self._end(container, exit_ or unknown, on_disk=exit_ is not None)

    def _end(self, container: Container, exit_: Exit, *, on_disk: bool = False) -> None:
        if not on_disk:
            with contextlib.suppress(OSError):
                state.save(f"{container.directory}/exit.json", exit_)
        container.finish(exit_)
        self._tell(container.sandbox, container.file.id, "STOPPED")

    def _clean(self, container: Container) -> None:
        """Nothing of the container stays. Its cgroups may be busy for a moment with what is still dying."""
        self._compiler.remove_layers(container)
        shutil.rmtree(container.directory, ignore_errors=True)
        self._later(lambda: self._cgroups.remove(container.cgroup), container.cgroup)

    def _confine_devices(self, container: Container) -> None:
        if self._compiler.confines_devices(container):
            self._cgroups.confine_devices_v2(container.cgroup)

    def _later(self, attempt: Callable[[], bool], what: str) -> None:
        """Try now; while it returns False, again and again with growing pauses, for a while."""
        if not attempt():
            task = asyncio.ensure_future(self._again(attempt, what))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _again(self, attempt: Callable[[], bool], what: str) -> None:
        pause = 0.01
        while pause < 5:
            await asyncio.sleep(pause)
            if attempt():
                return
            pause *= 2
        log.warning("cgroup stays busy path=%s", what)

    def _tell(self, sandbox: Sandbox, container_id: str, kind: str) -> None:
        event = ContainerEvent(sandbox.id, container_id, sandbox.file.config.identity.uid, kind)
        for queue in self._listeners:
            queue.put_nowait(event)


def _denied(fd: int, program: Program) -> bool:
    """Whether some place in $PATH had the program, but did not let us execute it."""
    return any(code == -13 for code in program.results(fd, "execve"))
