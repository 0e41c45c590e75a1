"""What the runtime knows of sandboxes and containers: in memory, and on disk, so that any process may die any time.

On disk (the state directory, a tmpfs: a reboot takes all of it, as it takes all processes):

    <sandbox>/config.json             the agent: what was asked for
    <sandbox>/ready.json              the agent: the pod has its addresses; without it the sandbox is not whole
    <sandbox>/stopped.json            the agent: it has been stopped
    <sandbox>/shim.sock               the shim listens here while it lives
    <sandbox>/c/<container>/config.json, started.json, exit.json    the agent; the shim; the shim (or who buries it)

Every file appears whole or not at all, and none is changed later; which files exist *is* the state. The transitions
are created -> running -> exited and created -> exited (the start failed); `advance` refuses any other.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ContainerUser,
    ImageConfig,
    RuntimeFailure,
    SandboxConfig,
    SandboxState,
    SandboxStatus,
)
from nodeagent.runtime.link import Link

T = TypeVar("T")

LEGAL = {
    ContainerState.CREATED: {ContainerState.RUNNING, ContainerState.EXITED},
    ContainerState.RUNNING: {ContainerState.EXITED},
    ContainerState.EXITED: set[ContainerState](),
}


@dataclass(frozen=True, slots=True)
class SandboxFile:
    id: str
    created_at: float
    config: SandboxConfig


@dataclass(frozen=True, slots=True)
class ContainerFile:
    """Everything a start or an exec needs, so that neither depends on the image service later."""

    id: str
    sandbox_id: str
    created_at: float
    config: ContainerConfig
    image: ImageConfig
    layers: Sequence[str]
    user: ContainerUser | None = None


@dataclass(frozen=True, slots=True)
class Started:
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Exit:
    code: int
    at: float
    signal: int = 0
    oom: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    ips: Sequence[str]


class Container:
    """One container: its file, and how far it has come."""

    def __init__(self, file: ContainerFile, sandbox: Sandbox) -> None:
        self.file = file
        self.sandbox = sandbox
        self.state = ContainerState.CREATED
        self.started: Started | None = None
        self.exit: Exit | None = None
        self.starting = False
        self.early_exit: Exit | None = None  # it ended before the answer to its start was looked at
        self.resources = file.config.resources
        self.resolved: Any = None  # compile.py's: what the configuration means on this node
        self.ended = asyncio.Event()

    @property
    def directory(self) -> str:
        return f"{self.sandbox.directory}/c/{self.file.id}"

    @property
    def cgroup(self) -> str:
        return f"{self.sandbox.cgroup}/{self.file.id}"

    @property
    def log_path(self) -> str:
        config = self.file.config
        return os.path.join(self.sandbox.file.config.log_directory, config.log_path) if config.log_path else ""

    def advance(self, state: ContainerState) -> None:
        """Move to `state`. Raises RuntimeFailure if no such transition is legal."""
        if state not in LEGAL[self.state]:
            raise RuntimeFailure(f"container {self.file.id} is {self.state}: it cannot become {state}")
        self.state = state

    def run(self, started: Started) -> None:
        self.advance(ContainerState.RUNNING)
        self.started = started

    def finish(self, exit_: Exit) -> None:
        self.advance(ContainerState.EXITED)
        self.exit = exit_
        self.ended.set()

    def status(self) -> ContainerStatus:
        config, exit_, started = self.file.config, self.exit, self.started
        running = self.state is ContainerState.RUNNING
        reason = message = ""
        if exit_:
            oom = bool(exit_.oom) and exit_.code != 0
            reason = exit_.reason or ("OOMKilled" if oom else "Error" if exit_.code else "Completed")
            message = exit_.message
        return ContainerStatus(
            id=self.file.id, sandbox_id=self.file.sandbox_id, name=config.name, attempt=config.attempt,
            state=self.state, image=config.image, created_at=self.file.created_at,
            started_at=started.at if started else 0.0,
            finished_at=max(exit_.at, started.at if started else 0.0) if exit_ else 0.0,
            exit_code=exit_.code if exit_ else 0, signal=exit_.signal if exit_ else 0,
            oom_killed=reason == "OOMKilled", reason=reason, message=message,
            pid=started.pid if started and running else 0, user=self.file.user, log_path=self.log_path,
            labels=config.labels, annotations=config.annotations,
        )  # fmt: skip


@dataclass(eq=False)
class Sandbox:
    """One pod's sandbox: its file, its shim while that lives, its containers."""

    file: SandboxFile
    directory: str
    link: Link | None = None
    pid: int = 0
    ips: Sequence[str] = ()
    state: SandboxState = SandboxState.NOTREADY
    containers: dict[str, Container] = field(default_factory=dict)
    stopping: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        return self.file.id

    @property
    def cgroup(self) -> str:
        """Relative to the node's directory; the parent of the containers' own."""
        return self.file.config.cgroup_parent.strip("/") or f"wherry-{self.file.id}"

    @property
    def netns_path(self) -> str:
        return f"/proc/{self.pid}/ns/net" if self.pid and not self.file.config.host_network else ""

    def status(self) -> SandboxStatus:
        config = self.file.config
        return SandboxStatus(
            self.file.id, config.identity, self.state, self.file.created_at, tuple(self.ips),
            self.netns_path if self.state is SandboxState.READY else "", config.labels, config.annotations,
        )  # fmt: skip


def save(path: str, value: Any) -> None:
    """Make the file `path` hold `value`: whole or not at all. Raises OSError."""
    temporary, data = path + ".new", msgspec.json.encode(value)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read(path: str, kind: type[T]) -> T | None:
    """The value in the file `path`, or None if there is none, or rubbish."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def load(directory: str) -> Sandbox | None:
    """The sandbox that `directory` describes, with its containers, as the files have it; None if it is no sandbox."""
    file = read(f"{directory}/config.json", SandboxFile)
    if file is None:
        return None
    sandbox = Sandbox(file, directory)
    ready = read(f"{directory}/ready.json", Ready)
    if ready and not os.path.exists(f"{directory}/stopped.json"):
        sandbox.state, sandbox.ips = SandboxState.READY, ready.ips
    if os.path.isdir(f"{directory}/c"):
        for name in sorted(os.listdir(f"{directory}/c")):
            found = read(f"{directory}/c/{name}/config.json", ContainerFile)
            if found is None:
                shutil.rmtree(f"{directory}/c/{name}", ignore_errors=True)
                continue
            container = sandbox.containers[name] = Container(found, sandbox)
            started = read(f"{container.directory}/started.json", Started)
            if started:
                container.run(started)
            exit_ = read(f"{container.directory}/exit.json", Exit)
            if exit_:
                container.finish(exit_)
    return sandbox
