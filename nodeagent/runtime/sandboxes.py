"""Sandboxes: made by the zygote, kept by their shims, found again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable

from controlplane import clock
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.mounts import MNT_DETACH
from nodeagent.linux.program import Program
from nodeagent.linux.syscalls import KernelError, call
from nodeagent.runtime import state, wire
from nodeagent.runtime.compile import Compiler
from nodeagent.runtime.interface import PodNetwork, RuntimeFailure, SandboxConfig, SandboxState
from nodeagent.runtime.link import Link, Message
from nodeagent.runtime.plan import sandbox_namespaces
from nodeagent.runtime.state import Ready, Sandbox, SandboxFile

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 2.0
FORK_TIMEOUT_S = 30.0  # from the request to the zygote to the shim's word that it is ready
STOP_TIMEOUT_S = 30.0  # from SIGKILL to everything in a sandbox to its shim's answer
_REASON = "CreatePodSandboxError"


class Sandboxes:
    """All sandboxes of the node, by id. `heard` gets what a shim says, `lost` is told when one is gone unasked."""

    def __init__(
        self, directory: str, socket_path: str, cgroups: Cgroups, network: PodNetwork, compiler: Compiler, *,
        heard: Callable[[Sandbox, Message], None], lost: Callable[[Sandbox], None],
    ) -> None:  # fmt: skip
        self.all: dict[str, Sandbox] = {}
        self._directory = directory
        self._socket_path = socket_path
        self._cgroups = cgroups
        self._network = network
        self._compiler = compiler
        self._heard, self._lost = heard, lost
        self._zygote: Link | None = None
        self._making: dict[tuple[str, int], Sandbox] = {}

    def uses(self, cgroup: str) -> bool:
        """Whether some sandbox has this cgroup: a pod's next attempt has the same as the one before."""
        return any(sandbox.cgroup == cgroup for sandbox in (*self.all.values(), *self._making.values()))

    async def connect(self) -> None:
        """Reach the zygote, which may be starting just now. Raises RuntimeFailure after CONNECT_TIMEOUT_S."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_TIMEOUT_S
        while True:
            try:
                self._zygote = Link(self._socket_path)
                return
            except OSError as error:
                if loop.time() > deadline:
                    message = f"the runtime's zygote does not answer at {self._socket_path}: {error.strerror}"
                    raise RuntimeFailure(message) from error
            await asyncio.sleep(0.02)

    async def ask_zygote(self) -> str:
        """Empty if the zygote answers, else why it does not."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await (await self._zygote_link()).request({"op": "ping"})
        except RuntimeFailure as failure:
            return str(failure)
        except TimeoutError:
            return f"the runtime's zygote does not answer at {self._socket_path} within {PING_TIMEOUT_S:g} s"
        return ""

    def pids(self) -> list[int]:
        """The processes at the other ends of our connections: shims and the zygote."""
        zygote = [self._zygote.peer_pid()] if self._zygote is not None and self._zygote.open else []
        return [*zygote, *(sandbox.pid for sandbox in self.all.values() if sandbox.link is not None)]

    def close(self) -> None:
        for sandbox in self.all.values():
            if sandbox.link:
                sandbox.link.close()
        if self._zygote:
            self._zygote.close()

    async def find_again(self) -> list[tuple[Sandbox, set[str]]]:
        """Every sandbox on disk, with the ids of the containers that its shim says are running."""
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        found: list[tuple[Sandbox, set[str]]] = []
        for name in sorted(os.listdir(self._directory)):
            directory = f"{self._directory}/{name}"
            if not os.path.isdir(directory):
                continue
            sandbox = state.load(directory)
            if sandbox is None:
                _remove(directory)
                continue
            alive: set[str] = set()
            try:
                alive = set((await self._watch(sandbox))["running"])
            except (OSError, RuntimeFailure):
                sandbox.link = None
            self.all[sandbox.id] = sandbox
            found.append((sandbox, alive))
            log.info("found sandbox=%s state=%s running=%d", sandbox.id, sandbox.state, len(alive))
        return found

    async def run(self, config: SandboxConfig) -> Sandbox:
        """A new, ready sandbox. Leaves nothing behind when it raises RuntimeFailure."""
        identity = config.identity
        key = (identity.uid, identity.attempt)
        if key in self._making or any(
            key == (s.file.config.identity.uid, s.file.config.identity.attempt) for s in self.all.values()
        ):
            raise RuntimeFailure(
                f"run_sandbox: attempt {identity.attempt} of pod {identity.uid} exists already", _REASON
            )
        sandbox_id = f"{clock.chance.getrandbits(256):064x}"
        sandbox = Sandbox(SandboxFile(sandbox_id, clock.wall_time(), config), f"{self._directory}/{sandbox_id}")
        self._making[key] = sandbox
        try:
            await self._make(sandbox)
        except (OSError, ValueError, RuntimeFailure) as error:
            with contextlib.suppress(Exception):
                await self.stop(sandbox)
            self.forget(sandbox)
            del self._making[key]
            if not self.uses(sandbox.cgroup):
                with contextlib.suppress(OSError):
                    self._cgroups.remove(sandbox.cgroup)
            if isinstance(error, RuntimeFailure):
                raise
            raise RuntimeFailure(f"run_sandbox {identity.namespace}/{identity.name}: {error}", _REASON) from error
        del self._making[key]
        return sandbox

    async def _make(self, sandbox: Sandbox) -> None:
        config = sandbox.file.config
        os.mkdir(sandbox.directory, 0o700)
        os.mkdir(f"{sandbox.directory}/c", 0o700)
        state.save(f"{sandbox.directory}/config.json", sandbox.file)
        self._cgroups.create(sandbox.cgroup, self._compiler.limits(config.resources))
        program, exports = self._compiler.sandbox(sandbox)
        flags = sandbox_namespaces(config)
        request = {"op": "sandbox", "dir": sandbox.directory, "exports": exports, "unshare": flags}
        if (users := config.user_namespace) is not None:  # made by nobody in advance
            request |= {"unshare": 0, "users": [flags, users.first, users.length]}
        await self._fork(sandbox, program, request)
        if config.share_process_namespace and not config.host_pid:
            assert sandbox.link
            await sandbox.link.request({"op": "pause"})
        self.all[sandbox.id] = sandbox
        if not config.host_network:
            sandbox.ips = list(await self._network.attach(sandbox.id, sandbox.netns_path, config.port_mappings))
        sandbox.state = SandboxState.READY
        state.save(f"{sandbox.directory}/ready.json", Ready(sandbox.ips))

    async def _fork(self, sandbox: Sandbox, program: Program, request: Message) -> None:
        """Have a shim made, and wait until it is in its namespaces. It gets its socket and a connection to us ready
        made: what we do here it need not, and its memory stays as small as it was forked."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def heard(message: Message) -> None:
            if answer.done():
                self._heard(sandbox, message)
            else:
                answer.set_result(message)

        def lost() -> None:
            if not answer.done():
                answer.set_result({"error": "the shim ended before it was ready"})
            self._gone(sandbox, link)

        zygote = await self._zygote_link()
        path = f"{sandbox.directory}/shim.sock"
        listener = wire.bind(path)
        ours, theirs = wire.pair()
        fd = program.memfd()
        link = Link(path, heard, lost, ours)
        try:
            await zygote.tell(request, [fd, listener.fileno(), theirs.fileno()])
        except RuntimeFailure:
            link.close()
            raise
        finally:
            os.close(fd)
            listener.close()
            theirs.close()
        try:
            reply = await asyncio.wait_for(answer, FORK_TIMEOUT_S)
        except TimeoutError:  # should it come later, it finds nobody to tell, and ends
            reply = {"error": f"no shim within {FORK_TIMEOUT_S:g} s"}
        if "ready" not in reply:
            link.close()
            reason = program.error(reply["failed"]) if "failed" in reply else reply["error"]
            raise RuntimeFailure(f"run_sandbox: {reason}", _REASON)
        sandbox.link, sandbox.pid = link, reply["ready"]

    def _gone(self, sandbox: Sandbox, link: Link) -> None:
        """A shim hung up without being asked to stop."""
        if sandbox.link is link:
            sandbox.link = None
            sandbox.state = SandboxState.NOTREADY
            self._lost(sandbox)

    async def stop(self, sandbox: Sandbox) -> None:
        """Kill what is in it, release its addresses. Idempotent."""
        async with sandbox.stopping:
            link, sandbox.link = sandbox.link, None
            if link is not None:
                try:
                    await asyncio.wait_for(link.request({"op": "stop"}), STOP_TIMEOUT_S)
                except TimeoutError:  # something in it does not die, or the shim is ill: it goes, the rest may follow
                    log.warning("shim does not stop sandbox=%s pid=%d", sandbox.id, sandbox.pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(sandbox.pid, signal.SIGKILL)
                except RuntimeFailure:
                    pass
                link.close()
            for container in sandbox.containers.values():
                if container.exit is None and container.started is not None:
                    self._cgroups.kill(container.cgroup)
            if sandbox.state is SandboxState.READY or not os.path.exists(f"{sandbox.directory}/stopped.json"):
                if not sandbox.file.config.host_network:
                    await self._network.detach(sandbox.id, sandbox.netns_path)
                sandbox.state = SandboxState.NOTREADY
                with contextlib.suppress(OSError):
                    state.save(f"{sandbox.directory}/stopped.json", {})

    def forget(self, sandbox: Sandbox) -> None:
        """Remove its files. It must be stopped."""
        self.all.pop(sandbox.id, None)
        _remove(sandbox.directory)

    async def _watch(self, sandbox: Sandbox) -> Message:
        """Connect to the sandbox's shim and ask it to report. Raises OSError if it is gone."""

        path = f"{sandbox.directory}/shim.sock"
        link = Link(path, lambda message: self._heard(sandbox, message), lambda: self._gone(sandbox, link))
        sandbox.link = link
        sandbox.pid = link.peer_pid()
        return await link.request({"op": "watch"})

    async def _zygote_link(self) -> Link:
        if self._zygote is None or not self._zygote.open:
            await self.connect()
        assert self._zygote
        return self._zygote


def _remove(directory: str) -> None:
    """Remove a sandbox's files, and the /dev/shm that older kernels make us mount there."""
    shm = f"{directory}/shm"
    if os.path.isdir(shm):
        with contextlib.suppress(KernelError):
            call("umount2", os.fsencode(shm) + b"\0", MNT_DETACH, path=shm)
    shutil.rmtree(directory, ignore_errors=True)
