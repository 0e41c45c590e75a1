"""From a container's spec to a running container: everything that must be at hand first, then create, start, postStart.

The launcher holds nothing of a pod; the worker calls it and remembers. What fails raises RuntimeFailure with the reason
that users see in the container's waiting state.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from nodeagent.pods import env, envfile, handlers, hosts, resources, security, sysctls, userns
from nodeagent.pods.cpumanager import CpuManager
from nodeagent.pods.images import Images
from nodeagent.pods.model import (
    ANNOTATION_HASH,
    ANNOTATION_MESSAGE_PATH,
    ANNOTATION_MESSAGE_POLICY,
    LABEL_CONTAINER,
    LABEL_NAMESPACE,
    LABEL_POD,
    LABEL_UID,
    Desired,
    Kind,
    Object,
    Wanted,
)
from nodeagent.pods.node import NodeFacts
from nodeagent.pods.objects import Objects
from nodeagent.pods.services import ServiceVariables
from nodeagent.pods.volumes.manager import Volume, Volumes
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerState,
    Image,
    LinuxResources,
    Mount,
    PodIdentity,
    PortMapping,
    Runtime,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
)

log = logging.getLogger(__name__)

Tell = Callable[[Object, str, str, str], None]

_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
_RUNTIME_CLASS_FRESH_S = 60.0  # its handler cannot change, only a new one of the name appear
_HOOK_LIMIT_S = 3600.0  # a postStart hook may take as long as it likes, but not for ever


@dataclass(frozen=True, slots=True)
class Launcher:
    """The parts of the agent that starting a container needs."""

    node: NodeFacts
    runtime: Runtime
    images: Images
    objects: Objects
    volumes: Volumes
    services: ServiceVariables
    tell: Tell
    cpus: CpuManager = field(default_factory=lambda: CpuManager(""))
    network_ready: asyncio.Event = field(default_factory=asyncio.Event)

    def waits_for_network(self, want: Desired) -> bool:
        """Whether the pod needs the pod network, which is not there yet."""
        return not want.host_network and not self.network_ready.is_set()

    async def sandbox(self, want: Desired, attempt: int) -> SandboxStatus:
        """Run the pod's sandbox. Raises RuntimeFailure."""
        handler = await self._runtime_handler(want)
        return await self.runtime.run_sandbox(self.sandbox_config(want, attempt, handler))

    async def _runtime_handler(self, want: Desired) -> str:
        """The handler that the pod's RuntimeClass names. Raises RuntimeFailure."""
        name = want.pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        try:
            found = await self.objects.runtime_class(name, clock.wall_time() - _RUNTIME_CLASS_FRESH_S)
        except (StatusError, Unreachable) as error:
            raise RuntimeFailure(f"cannot look up RuntimeClass {name}: {error}", "CreatePodSandboxError") from error
        if found is None:
            message = f'RuntimeClass.node.k8s.io "{name}" not found'
            raise RuntimeFailure(message, "CreatePodSandboxError")
        return str(found.get("handler") or "")

    def sandbox_config(self, want: Desired, attempt: int, handler: str = "") -> SandboxConfig:
        """Raises RuntimeFailure."""
        spec = want.pod["spec"]
        shared = spec.get("securityContext") or {}
        try:
            name = hosts.kernel_hostname(want.pod, self.node.dns)
        except ValueError as error:
            raise RuntimeFailure(str(error), "CreatePodSandboxError") from error
        own_users = spec.get("hostUsers") is False
        return SandboxConfig(
            user_namespace=userns.of_pod(self.node, want.uid) if own_users else None,
            identity=PodIdentity(want.namespace, want.name, want.uid, attempt),
            hostname=self.node.name if want.host_network else name,
            log_directory=self.node.pod_logs(want.namespace, want.name, want.uid),
            cgroup_parent=resources.cgroup_parent(want.pod),
            host_network=want.host_network,
            host_pid=bool(spec.get("hostPID")),
            host_ipc=bool(spec.get("hostIPC")),
            share_process_namespace=bool(spec.get("shareProcessNamespace")),
            runtime_handler=handler,
            sysctls={sysctls.normalize(s["name"]): s["value"] for s in shared.get("sysctls") or ()},
            port_mappings=() if want.host_network else tuple(_port_mappings(spec)),
            labels={LABEL_POD: want.name, LABEL_NAMESPACE: want.namespace, LABEL_UID: want.uid},
            resources=self.cpus.whole(want.uid, resources.pod_resources(want.pod, self.node.pids_limit)),
        )

    async def create(
        self, want: Desired, wanted: Wanted, attempt: int, sandbox: SandboxStatus, since: float
    ) -> tuple[str, Image]:
        """Make everything ready and create the container; it does not run yet. Its id, and its image. May take as long
        as a pull; cancelling it leaves nothing behind but what the next try uses."""
        volumes = await self.volumes.prepare(want.pod, since)
        image = await self.images.ensure(want.pod, wanted.spec, since)
        ips = list(self.node.ips) if want.host_network else list(sandbox.ips)
        variables = await self._environment(want, wanted, ips, volumes, since)
        try:
            config = self._config(want, wanted, attempt, image, volumes, ips, variables)
        except OSError as error:
            raise RuntimeFailure(str(error), "CreateContainerError") from error
        config = dataclasses.replace(config, target_id=await self._target_of(want, wanted, sandbox))
        container_id = await self.runtime.create_container(sandbox.id, config)
        self.tell(want.pod, "Normal", "Created", f"Container created: {wanted.name}")
        return container_id, image

    async def _target_of(self, want: Desired, wanted: Wanted, sandbox: SandboxStatus) -> str:
        """The running container that an ephemeral one names as its target; empty without one, and where all share their
        processes anyway. Raises RuntimeFailure."""
        name, spec = wanted.spec.get("targetContainerName"), want.pod["spec"]
        if not name or wanted.kind is not Kind.EPHEMERAL or spec.get("shareProcessNamespace") or spec.get("hostPID"):
            return ""
        for container in await self.runtime.containers(sandbox.id):
            if container.name == name and container.state is ContainerState.RUNNING:
                return container.id
        raise RuntimeFailure(f'unable to find target container "{name}": it is not running', "CreateContainerError")

    async def start(self, want: Desired, wanted: Wanted, container_id: str) -> None:
        await self.runtime.start_container(container_id)
        self.tell(want.pod, "Normal", "Started", f"Container started: {wanted.name}")

    async def resize(self, want: Desired, wanted: Wanted, container_id: str, sandbox_id: str) -> None:
        """Give a running container its resources as they are now in `want`. The pod's own limits are wide enough for
        both while it happens. Raises RuntimeFailure."""
        own = self._resources(want, wanted)
        whole = self.cpus.whole(want.uid, resources.pod_resources(want.pod, self.node.pids_limit))
        wide = dataclasses.replace(whole, memory_limit_bytes=-1, cpu_quota_us=-1)
        await self.runtime.update_sandbox_resources(sandbox_id, wide)
        try:
            await self.runtime.update_resources(container_id, own)
        finally:
            await self.runtime.update_sandbox_resources(sandbox_id, whole)
        self.tell(want.pod, "Normal", "ResizeCompleted", f"Container resized: {wanted.name}")

    def _resources(self, want: Desired, wanted: Wanted) -> LinuxResources:
        own = resources.container_resources(want.pod, wanted.spec, self.node.memory_bytes)
        own = dataclasses.replace(own, hugepages=resources.hugepages(wanted.spec, self.node.allocatable))
        return self.cpus.place(want.uid, wanted.name, own)

    async def post_start(self, want: Desired, wanted: Wanted, container_id: str, sandbox: SandboxStatus) -> None:
        """Raises RuntimeFailure (PostStartHookError) when the hook fails: the container must then be stopped."""
        hook = (wanted.spec.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        result = await handlers.run(hook, self.target(wanted, container_id, sandbox), _HOOK_LIMIT_S)
        if not result.ok:
            self.tell(want.pod, "Warning", "FailedPostStartHook", f"PostStartHook failed: {result.output}")
            raise RuntimeFailure(f"PostStartHook failed: {result.output}", "PostStartHookError")

    async def pre_stop(self, want: Desired, wanted: Wanted, container_id: str, host: str, limit_s: float) -> None:
        """Run the preStop hook for at most `limit_s` seconds; its failure stops nothing."""
        hook = (wanted.spec.get("lifecycle") or {}).get("preStop")
        if hook and limit_s > 0:
            target = handlers.Target(self.runtime, container_id, wanted.spec, host)
            result = await handlers.run(hook, target, limit_s)
            if not result.ok:
                self.tell(want.pod, "Warning", "FailedPreStopHook", f"PreStopHook failed: {result.output}")

    def target(self, wanted: Wanted, container_id: str, sandbox: SandboxStatus) -> handlers.Target:
        host = sandbox.ips[0] if sandbox.ips else (self.node.ips[0] if self.node.ips else "127.0.0.1")
        return handlers.Target(self.runtime, container_id, wanted.spec, host)

    async def _environment(
        self, want: Desired, wanted: Wanted, ips: Sequence[str], volumes: Mapping[str, Volume], since: float
    ) -> dict[str, str]:
        maps, secrets = env.references(wanted.spec)
        found_maps: Mapping[str, Object | None] = {}
        found_secrets: Mapping[str, Object | None] = {}
        if maps or secrets:
            try:
                found_maps = await _fetch(maps, lambda n: self.objects.config_map(want.namespace, n, since))
                found_secrets = await _fetch(secrets, lambda n: self.objects.secret(want.namespace, n, since))
            except (StatusError, Unreachable) as error:
                raise env.config_error(str(error)) from error
        links = want.pod["spec"].get("enableServiceLinks")
        services = self.services.of(want.namespace, links is not False)
        files = {ref: _env_file(volumes, *ref) for ref in env.file_references(wanted.spec)}
        sources = env.Sources(
            want.pod, self.node.ips, ips, self.node.allocatable, services, found_maps, found_secrets, files
        )
        return env.environment(wanted.spec, sources)

    def _config(
        self, want: Desired, wanted: Wanted, attempt: int, image: Image, volumes: Mapping[str, Volume],
        ips: Sequence[str], variables: Mapping[str, str],
    ) -> ContainerConfig:  # fmt: skip
        spec = wanted.spec
        name, _ = hosts.hostname(want.pod, self.node.dns.cluster_domain)
        envs = {"HOSTNAME": self.node.name if want.host_network else name, **variables}
        mounts = list(self._volume_mounts(want, spec, volumes, envs))
        mounts += self._files(want, spec, attempt, ips, {m.container_path for m in mounts})
        message_path = spec.get("terminationMessagePath") or "/dev/termination-log"
        on_node = next((m.host_path for m in mounts if m.container_path == message_path), "")
        return ContainerConfig(
            name=wanted.name,
            attempt=attempt,
            image=image.id,
            command=tuple(env.expand(c, envs) for c in spec.get("command") or ()),
            args=tuple(env.expand(a, envs) for a in spec.get("args") or ()),
            working_dir=spec.get("workingDir") or "",
            envs=tuple(envs.items()),
            mounts=tuple(mounts),
            labels={
                LABEL_POD: want.name, LABEL_NAMESPACE: want.namespace, LABEL_UID: want.uid,
                LABEL_CONTAINER: wanted.name,
            },
            annotations={
                ANNOTATION_HASH: wanted.fingerprint, ANNOTATION_MESSAGE_PATH: on_node,
                ANNOTATION_MESSAGE_POLICY: spec.get("terminationMessagePolicy") or "File",
            },
            log_path=os.path.join(wanted.name, f"{attempt}.log"),
            stdin=bool(spec.get("stdin")),
            stdin_once=bool(spec.get("stdinOnce")),
            tty=bool(spec.get("tty")),
            stop_signal=(spec.get("lifecycle") or {}).get("stopSignal") or "",
            resources=self._resources(want, wanted),
            security=security.security_context(want.pod, spec, image, self.node.seccomp_root),
        )  # fmt: skip

    def _volume_mounts(
        self, want: Desired, spec: Object, volumes: Mapping[str, Volume], envs: Mapping[str, str]
    ) -> Iterable[Mount]:
        for index, mount in enumerate(spec.get("volumeMounts") or ()):
            volume = volumes.get(mount["name"])
            if volume is None:
                raise env.config_error(f'cannot find volume "{mount["name"]}" to mount into container "{spec["name"]}"')
            path = volume.path
            inner = mount.get("subPath") or ""
            if mount.get("subPathExpr"):
                inner = env.expand(mount["subPathExpr"], envs)
            if inner:
                if inner.startswith("/") or ".." in inner.split("/"):
                    raise env.config_error(f'invalid subPath "{inner}" of volume "{mount["name"]}"')
                path = self.volumes.subpath(want.pod, mount["name"], path, inner, spec["name"], index)
            yield Mount(
                path,
                os.path.join("/", mount["mountPath"]),
                readonly=bool(mount.get("readOnly")) or volume.readonly,
                propagation=_PROPAGATION.get(mount.get("mountPropagation") or "", "private"),
                recursive=mount.get("recursiveReadOnly") in ("Enabled", "IfPossible"),
            )

    def _files(self, want: Desired, spec: Object, attempt: int, ips: Sequence[str], taken: set[str]) -> Iterable[Mount]:
        """The files that the agent gives to every container: names, and where to leave a last message."""
        directory = self.node.pod_directory(want.uid)
        os.makedirs(directory, 0o755, exist_ok=True)
        if "/etc/hosts" not in taken:
            own = _read("/etc/hosts") if want.host_network else ""
            text = hosts.hosts_file(want.pod, ips, self.node.dns.cluster_domain, own)
            yield Mount(_keep(os.path.join(directory, "etc-hosts"), text), "/etc/hosts")
        if "/etc/resolv.conf" not in taken:
            text, problems = hosts.limited_resolv_conf(want.pod, self.node.dns)
            for problem in problems:
                self.tell(want.pod, "Warning", "DNSConfigForming", problem)
            yield Mount(_keep(os.path.join(directory, "resolv.conf"), text), "/etc/resolv.conf")
        if "/etc/hostname" not in taken:
            name, _ = hosts.hostname(want.pod, self.node.dns.cluster_domain)
            text = (self.node.name if want.host_network else name) + "\n"
            yield Mount(_keep(os.path.join(directory, "hostname"), text), "/etc/hostname")
        message = spec.get("terminationMessagePath") or "/dev/termination-log"
        if message not in taken:
            own_directory = os.path.join(directory, "containers", spec["name"])
            os.makedirs(own_directory, 0o755, exist_ok=True)
            path = os.path.join(own_directory, f"message-{attempt}")
            os.close(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            os.chmod(path, 0o666)
            yield Mount(path, message)


def _env_file(volumes: Mapping[str, Volume], name: str, path: str) -> dict[str, str] | None:
    if name not in volumes:
        raise env.config_error(f'cannot find the volume "{name}" of an environment file')
    try:
        return envfile.read(volumes[name].path, path)
    except envfile.BadEnvFile as error:
        raise env.config_error(f"couldn't parse env file {path}: {error}") from error


async def _fetch(names: set[str], one: Callable[[str], object]) -> dict[str, Object | None]:
    ordered = sorted(names)
    found = await asyncio.gather(*[one(name) for name in ordered])  # type: ignore[call-overload]
    return dict(zip(ordered, found, strict=True))


def _keep(path: str, text: str) -> str:
    """Write a small file that containers mount, in place: a mounted file must keep its inode."""
    if not os.path.exists(path) or _read(path) != text:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
    return path


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _port_mappings(spec: Object) -> Iterable[PortMapping]:
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield PortMapping(
                    port["containerPort"], port["hostPort"], port.get("protocol") or "TCP", port.get("hostIP") or ""
                )
