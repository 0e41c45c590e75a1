"""The seam between the agent and what runs containers, with the shape of the Container Runtime Interface (CRI v1).

`pods/` speaks only to these protocols; `runtime/` implements `Runtime`, `images/` implements `ImageService`,
`network/` implements `PodNetwork`, and `fake.py` implements all three in memory for tests. A foreign runtime behind
gRPC fits the same shape. It is not the CRI's protobuf: field names follow it where a newcomer would look them up.

Source of the semantics: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from nodeagent.linux.cgroups.usage import Usage

HANDLERS = ("", "wherry", "runc")
"""RuntimeClass handlers that mean our runtime; `runc`, since manifests written for other nodes name it."""


class RuntimeFailure(Exception):
    """An operation of the runtime failed; the message names the operation and the kernel's or registry's reason.
    `reason` is the CamelCase word that a user sees in a container's waiting state (e.g. `CreateContainerError`)."""

    def __init__(self, message: str, reason: str = "RunContainerError") -> None:
        super().__init__(message)
        self.reason = reason


class NotFound(RuntimeFailure):
    """No such sandbox, container or image."""


class SandboxState(StrEnum):
    READY = "SANDBOX_READY"
    NOTREADY = "SANDBOX_NOTREADY"


class ContainerState(StrEnum):
    CREATED = "CONTAINER_CREATED"
    RUNNING = "CONTAINER_RUNNING"
    EXITED = "CONTAINER_EXITED"
    UNKNOWN = "CONTAINER_UNKNOWN"


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Which pod a sandbox is for. `attempt` counts the sandboxes made for one pod uid, from 0."""

    namespace: str
    name: str
    uid: str
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """cgroup settings. 0 or empty leaves what is; -1 (quota, memory) takes a limit away. Bytes, microseconds, CFS
    shares (1024 = one CPU)."""

    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    memory_limit_bytes: int = 0
    pids_limit: int = 0
    cpuset_cpus: str = ""
    oom_score_adj: int = 0
    hugepages: tuple[tuple[str, int], ...] = ()  # (size as the kernel names it, e.g. 2MB; the most bytes)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A container port published on the node (hostPort)."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """Users and groups 0 to `length` - 1 of a pod are the node's from `first` on."""

    first: int
    length: int = 65536


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What all containers of a pod share: network, IPC and UTS namespaces, a parent cgroup, a log directory."""

    identity: PodIdentity
    hostname: str
    log_directory: str
    cgroup_parent: str = ""  # relative to the node's root cgroup, e.g. kubepods/burstable/pod<uid>
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    port_mappings: Sequence[PortMapping] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: LinuxResources = LinuxResources()  # of the pod as a whole (its parent cgroup)
    user_namespace: UserNamespace | None = None  # None: the node's own
    runtime_handler: str = ""  # of the pod's RuntimeClass


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of `host_path` at `container_path`. `propagation`: private, rslave (HostToContainer) or rshared.
    `readonly` is of this mount alone, unless `recursive`: then of those below it, too."""

    host_path: str
    container_path: str
    readonly: bool = False
    propagation: str = "private"
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """Identity and confinement. `run_as_user` None means the image's user. Capabilities are names without `CAP_`,
    added to or dropped from the default set; `ALL` works in both. `seccomp`: RuntimeDefault, Unconfined or
    Localhost:<absolute path of a profile>. `strict_groups`: only the groups named here, not those that the image's
    /etc/group has for the user (supplementalGroupsPolicy). `apparmor`: a loaded profile's name; empty for none."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    supplemental_groups: Sequence[int] = ()
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privs: bool = False  # allowPrivilegeEscalation: false
    add_capabilities: Sequence[str] = ()
    drop_capabilities: Sequence[str] = ()
    seccomp: str = "RuntimeDefault"
    strict_groups: bool = False
    apparmor: str = ""
    masked_paths: Sequence[str] | None = None  # None: the default list
    readonly_paths: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One container. `command` replaces the image's Entrypoint and `args` its Cmd, as in a pod spec."""

    name: str
    attempt: int
    image: str  # an image id as ImageService.status() returned it
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    working_dir: str = ""
    envs: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""  # relative to the sandbox's log_directory; CRI log format
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""  # e.g. SIGQUIT; empty: the image's, else SIGTERM
    target_id: str = ""  # a running container whose process ids it shares (an ephemeral container's target)
    resources: LinuxResources = LinuxResources()
    security: SecurityContext = SecurityContext()


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """Who a container's first process was started as, in numbers of the container."""

    uid: int
    gid: int
    supplemental_groups: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    id: str
    identity: PodIdentity
    state: SandboxState
    created_at: float  # seconds since the epoch
    ips: Sequence[str] = ()  # primary first; empty with host_network
    netns_path: str = ""  # a path that setns(2) or the port-forward server can open; empty with host_network
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    image: str
    created_at: float
    started_at: float = 0.0  # seconds since the epoch; 0 if it never started
    finished_at: float = 0.0
    exit_code: int = 0  # 128 + n when killed by signal n
    signal: int = 0
    oom_killed: bool = False
    reason: str = ""  # Completed, Error, OOMKilled, ContainerCannotRun, ...
    message: str = ""
    pid: int = 0  # in the runtime's PID namespace; 0 unless running
    user: ContainerUser | None = None
    log_path: str = ""  # absolute
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a container, or a whole sandbox (`container_id` empty), has used: see linux.cgroups.usage. `at`: when it was
    read, seconds since the epoch."""

    sandbox_id: str
    container_id: str
    at: float
    usage: Usage


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Allocated bytes, and files with directories."""

    bytes: int = 0
    inodes: int = 0

    def __add__(self, other: DiskUsage) -> DiskUsage:
        return DiskUsage(self.bytes + other.bytes, self.inodes + other.inodes)


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """A container started, exited or vanished, or a sandbox died. A hint to look again, never the truth itself."""

    sandbox_id: str
    container_id: str  # empty when it is about the sandbox
    pod_uid: str
    type: str  # CREATED, STARTED, STOPPED, DELETED


class ExecSession(Protocol):
    """A process started inside a container, with its streams. Closing it kills the process."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next chunk as (1 stdout | 2 stderr, bytes); None when all output has been read."""

    async def write(self, data: bytes) -> None:
        """To the process's standard input; returns when the pipe took it (back-pressure)."""

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None:
        """Terminal size in columns and rows; nothing without a terminal."""

    async def wait(self) -> int:
        """The exit code, 128 + n when killed by signal n."""

    async def close(self) -> None: ...


class Runtime(Protocol):
    """Runs sandboxes and containers. Every method is idempotent where the CRI says so (stop, remove)."""

    async def start(self) -> None:
        """Connect, and find again what already runs. Raises RuntimeFailure if the node cannot run containers."""

    async def close(self) -> None:
        """Let go of everything without touching what runs."""

    async def status(self) -> str:
        """Empty if it can run new containers; else what is wrong. Answers within seconds."""

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus: ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what is left in it and release its network. No error if it is gone."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop it, remove its containers and all its files. No error if it is gone."""

    async def sandboxes(self) -> Sequence[SandboxStatus]: ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """The new container's id: 64 hexadecimal digits."""

    async def start_container(self, container_id: str) -> None:
        """Returns once execve succeeded; raises RuntimeFailure with its reason (e.g. no such file) otherwise."""

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        """Its stop signal, then SIGKILL after `timeout_s`; returns when it is dead. No error if it is."""

    async def remove_container(self, container_id: str) -> None: ...

    async def containers(self, sandbox_id: str = "") -> Sequence[ContainerStatus]: ...

    async def container_status(self, container_id: str) -> ContainerStatus: ...

    async def stats(self) -> Sequence[Stats]:
        """What every ready sandbox and every running container uses now."""

    async def disk_usage(self, container_id: str) -> DiskUsage:
        """What the container has written to its own layer. Takes time in proportion to its files."""

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        """Change a container's cgroup settings. Raises RuntimeFailure, also for less memory than it holds."""

    async def update_sandbox_resources(self, sandbox_id: str, resources: LinuxResources) -> None:
        """Change the settings of the pod's own cgroup."""

    async def set_group(self, path: str, resources: LinuxResources) -> None:
        """Make the cgroup `path` above pods', relative to the node's, with these settings. Raises RuntimeFailure."""

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ExecSession: ...

    async def attach(self, container_id: str) -> ExecSession: ...

    async def dial(self, sandbox_id: str, port: int) -> socket.socket:
        """A non-blocking TCP connection to `port` of the sandbox's own localhost (the CRI's PortForward)."""

    async def reopen_log(self, container_id: str) -> None: ...

    def events(self) -> AsyncIterator[ContainerEvent]: ...


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The parts of an OCI image config that decide how a container starts."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Sequence[str] = ()  # "NAME=value"
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this node, unpacked. `layers`: directories for overlay's lowerdir, topmost first."""

    id: str  # sha256:<digest of the image config>
    layers: Sequence[str]
    config: ImageConfig
    tags: Sequence[str] = ()  # docker.io/library/busybox:1.35
    digests: Sequence[str] = ()  # docker.io/library/busybox@sha256:...
    size_bytes: int = 0
    pinned: bool = False  # never to be collected: it could not be pulled again


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one registry, from an imagePullSecret."""

    username: str = ""
    password: str = ""
    token: str = ""


class ImageService(Protocol):
    async def status(self, reference: str) -> Image | None:
        """The image that a name, name@digest or id means on this node, without any network."""

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> Image:
        """Fetch (verified by digest) and unpack. Raises RuntimeFailure with reason ErrImagePull, InvalidImageName
        or RegistryUnavailable."""

    async def load(self, path: str) -> Sequence[Image]:
        """Import an OCI image layout (directory or tar) or a `docker save` archive."""

    async def images(self) -> Sequence[Image]: ...

    async def remove(self, reference: str) -> None: ...


class PodNetwork(Protocol):
    """Gives a sandbox its address. The runtime calls it with a namespace that it has made (as a CNI plugin is)."""

    async def attach(self, sandbox_id: str, netns_path: str, ports: Sequence[PortMapping] = ()) -> Sequence[str]:
        """Wire the namespace (eth0, lo, default route); returns its addresses, primary first. Idempotent by id."""

    async def detach(self, sandbox_id: str, netns_path: str = "") -> None:
        """Release the addresses. No error if there is none."""
