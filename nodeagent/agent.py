"""The node agent, put together: what runs on every node and makes pods true.

    API server ── watch pods ──> source ──> manager ──> a worker a pod ──> runtime
         ^                                                 │
         └──── status, Node, Lease, events ────────────────┘        server: logs, exec ── runtime

`serve.py` makes the real runtime, images and network; `Agent` takes whatever has their interfaces. The API server may
be away at the start and at any time later: what runs goes on, what is to be said is said when it is back. Stopping the
agent (or killing it) touches no container.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from controlplane import daemon
from controlplane.client.certificates import (
    KUBELET_SERVING_SIGNER,
    Rotation,
    Wanted,
    client_rotation,
    kept_fresh,
)
from controlplane.client.events import Recorder
from controlplane.client.informer import Informer
from controlplane.client.resources import NODES, SERVICES
from controlplane.client.rest import Client
from controlplane.systemd import on_liveness
from controlplane.tls import ServerTls
from nodeagent import machine, node
from nodeagent.config import Config
from nodeagent.images.collector import ImageCollector, Policy, disk_of
from nodeagent.pods.cpumanager import CpuManager, reserved
from nodeagent.pods.eviction import thresholds
from nodeagent.pods.eviction.manager import EvictionManager
from nodeagent.pods.eviction.thresholds import Observation, Watch
from nodeagent.pods.hosts import DnsSettings
from nodeagent.pods.images import Images
from nodeagent.pods.imageuse import ImageUse
from nodeagent.pods.launcher import Launcher
from nodeagent.pods.logrotate import LogRotation
from nodeagent.pods.manager import PodManager
from nodeagent.pods.mirror import Mirrors
from nodeagent.pods.model import Object
from nodeagent.pods.node import NodeFacts
from nodeagent.pods.objects import Objects
from nodeagent.pods.services import ServiceVariables
from nodeagent.pods.source import ApiSource
from nodeagent.pods.static import FileSource
from nodeagent.pods.statusmanager import ClientPodApi, StatusManager
from nodeagent.pods.volumes import places
from nodeagent.pods.volumes.manager import Volumes
from nodeagent.runtime.interface import ImageService, Runtime, RuntimeFailure
from nodeagent.server.auth import Authorizer
from nodeagent.server.http import Server
from nodeagent.server.routes import Routes

if TYPE_CHECKING:
    pass

T = TypeVar("T")

log = logging.getLogger(__name__)

EVENT_DELAY_S = 1.0  # Normal events wait: when many pods start, their start comes first
_SERVICES_PATIENCE_S = 5.0
_RETRY_S = 1.0
RUNTIME_CHECK_S = 5.0  # how often the runtime is asked whether it is well
RUNTIME_PATIENCE_S = 10.0  # how long it may be unwell (it is restarted, upgraded) before the Node is NotReady


class NodeNetwork(Protocol):
    """The part of network.LinuxPodNetwork that the agent drives (the runtime attaches pods)."""

    async def setup(self, pod_cidr: str, node_ip: str) -> None: ...

    async def retain(self, sandbox_ids: Iterable[str]) -> None: ...

    def follow(self, informer: Any) -> None: ...

    def trouble(self) -> str: ...

    async def close(self) -> None: ...


class Agent:
    """One node's agent. `run` is its life."""

    def __init__(
        self, config: Config, client: Client, runtime: Runtime, images: ImageService, network: NodeNetwork,
        prepare: Callable[[], Awaitable[None]] | None = None, started: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        """`prepare`: what must be done before the runtime starts, while the server already answers (loading images).
        `started`: what may be done once it has."""
        self._prepare, self._started = prepare, started
        self.config, self.client, self.runtime, self.network = config, client, runtime, network
        self.name = config.node_name or machine.hostname()
        self.address = config.node_ip or _own_address(config.kubeconfig)
        for directory in (config.root_dir, config.log_dir):
            os.makedirs(directory, mode=0o755, exist_ok=True)
        self.machine = machine.inspect(config.root_dir)
        self.readiness = node.Readiness()
        self._labels = node.labels(self.name, self.machine, config.node_labels)
        self._image_entries: list[Object] = []
        self._recorder = Recorder(client, "kubelet", self.name)
        self._later: list[tuple[Object, str, str, str]] = []
        self._pod_cidr = ""
        self._cidr_changed = asyncio.Event()
        self._image_task: asyncio.Task[None] | None = None

        facts = NodeFacts(
            name=self.name, ips=[self.address], root_directory=config.root_dir, log_directory=config.log_dir,
            allocatable=_valid(lambda: node.allocatable(self.machine, config)), labels=self._labels,
            memory_bytes=self.machine.memory_bytes, dns=_dns(config), pids_limit=config.pod_pids_limit,
            all_pods=_valid(lambda: node.all_pods(self.machine, config)),
            allowed_unsafe_sysctls=config.allowed_unsafe_sysctls,
        )  # fmt: skip
        self.keeper = node.NodeKeeper(client, self.name, self._look, config)
        self.nodes = Informer(client, NODES)
        self.services = Informer(client, SERVICES, indexers={"namespace": lambda s: [s["metadata"]["namespace"]]})
        objects = Objects(client)
        parallel = 1 if config.serialize_image_pulls else config.max_parallel_image_pulls
        self.images = Images(images, objects, self.tell, parallel)
        self.images.changed = self._images_changed
        self.volumes = Volumes(facts, objects, self.images)
        host, port = config.kubernetes_service_host, config.kubernetes_service_port
        fallback = {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }
        variables = ServiceVariables(self.services, fallback)
        launcher = Launcher(
            facts, runtime, self.images, objects, self.volumes, variables, self.tell, self._cpu_manager()
        )
        mirrors = Mirrors(ClientPodApi(client), self._as_owner, lambda uid: statuses.renew(uid))
        statuses = StatusManager(mirrors)
        self.manager = PodManager(launcher, statuses, mirrors)
        self.source = ApiSource(client, self.name, self.manager)
        self.files = FileSource(config.static_pod_path, self.name, self.manager, config.file_check_frequency_seconds)
        self.image_use = ImageUse(runtime, self.manager, self.images)
        self.collector = self._image_collector(images)
        self.evictions = self._eviction_manager(facts)
        self.evictions.reclaim_disk = self._reclaim_disk
        self.manager.pressures = lambda: self.evictions.conditions
        routes = Routes(facts, runtime, self.manager, Authorizer(client, self.name), self.machine, self._unhealthy)
        self.server = Server(routes)
        self.port = 0
        self._watch(variables)

    def _image_collector(self, images: ImageService) -> ImageCollector:
        config = self.config
        try:
            policy = Policy(
                config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent,
                config.image_minimum_gc_age_seconds, config.image_maximum_gc_age_seconds,
            )  # fmt: skip
        except ValueError as error:
            raise daemon.ConfigError(str(error)) from None
        me = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "uid": self.name}}
        return ImageCollector(
            images, policy, self.image_use, lambda: disk_of(config.root_dir),
            lambda kind, reason, message: self._recorder.event(me, kind, reason, message), self._images_changed,
        )  # fmt: skip

    def _cpu_manager(self) -> CpuManager:
        config, cpus = self.config, self.machine.cpu_ids
        sums = [e.partition("=")[2] for e in (*config.system_reserved, *config.kube_reserved) if e.startswith("cpu=")]
        return _valid(
            lambda: CpuManager(
                config.root_dir, config.cpu_manager_policy, reserved(config.reserved_cpus, sums, cpus), cpus
            )
        )

    async def _reclaim_disk(self) -> None:
        try:
            await self.collector.remove_unused()
        except RuntimeFailure as failure:
            log.warning("image_gc_failed error=%s", failure)

    def _eviction_manager(self, facts: NodeFacts) -> EvictionManager:
        config = self.config
        try:
            wanted = thresholds.parse(
                config.eviction_hard, config.eviction_soft, config.eviction_soft_grace_period,
                config.eviction_minimum_reclaim,
            )  # fmt: skip
        except ValueError as error:
            raise daemon.ConfigError(str(error)) from None
        return EvictionManager(
            facts, self.runtime, self.manager, Watch.of(wanted, config.eviction_pressure_transition_period_seconds),
            lambda: observations(machine.pressure(config.root_dir)), lambda: self.keeper.poke(), self.tell,
            config.eviction_monitoring_period_seconds, config.eviction_max_pod_grace_period_seconds,
        )  # fmt: skip

    def _watch(self, variables: ServiceVariables) -> None:
        self.services.add_handler(
            added=variables.changed, updated=lambda old, new: variables.changed(new), deleted=variables.changed
        )
        self.nodes.add_handler(
            added=self._node_seen, updated=lambda old, new: self._node_seen(new), deleted=self._node_gone
        )
        self.network.follow(self.nodes)

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled. Raises OSError if the server's address or certificate cannot be used."""
        config, tls = self.config, None
        if config.tls_cert_file:
            tls = ServerTls(config.tls_cert_file, config.tls_private_key_file, config.client_ca_file)
            daemon.on_reload(tls.reload)
        daemon.on_reload(self.client.reload)
        self.port = await self.server.listen(config.address, config.port, tls.context if tls else None)
        log.info("agent node=%s address=%s port=%d", self.name, self.address, self.port)
        try:
            async with kept_fresh(*self._rotations(tls)), asyncio.TaskGroup() as group:
                for task in (self.keeper.run(), self.nodes.run(), self.services.run(), self._recorder.run()):
                    group.create_task(task)
                await self._start_runtime()
                group.create_task(self._bring_up_network())
                await self.manager.start()
                for task in (self.manager.run(), self._run_source(), self.volumes.run(), self._watch_runtime()):
                    group.create_task(task)
                group.create_task(self.evictions.run())
                group.create_task(self.collector.run())
                rotation = LogRotation(
                    self.runtime, self.config.container_log_max_bytes, self.config.container_log_max_files
                )
                group.create_task(rotation.run())
                stop_asking = on_liveness(self._unhealthy)
                try:
                    ready()
                    await asyncio.Event().wait()
                finally:
                    stop_asking()
        finally:
            await self.manager.close()
            await self.server.close()
            await self.runtime.close()
            await self.network.close()
            await self.client.close()

    def _rotations(self, tls: ServerTls | None) -> Iterator[Rotation | None]:
        """What renews the agent's certificates: those whose file holds certificate and key."""
        config = self.config
        if not config.rotate_certificates:
            return
        yield client_rotation(self.client, config.kubeconfig)
        if tls and config.tls_cert_file == config.tls_private_key_file:
            wanted = Wanted(
                KUBELET_SERVING_SIGNER, f"system:node:{self.name}", ("system:nodes",),
                ("digital signature", "server auth"), (self.name, self.address),
            )  # fmt: skip
            yield Rotation(self.client, config.tls_cert_file, wanted, renewed=tls.try_reload)

    def tell(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Record an event. Good news may wait a moment, so that it does not compete with what it tells of."""
        if kind != "Normal":
            self._recorder.event(pod, kind, reason, message)
            return
        if not self._later:
            asyncio.get_running_loop().call_later(EVENT_DELAY_S, self._tell_now)
        self._later.append((pod, kind, reason, message))

    def _tell_now(self) -> None:
        waiting, self._later = self._later, []
        for pod, kind, reason, message in waiting:
            self._recorder.event({"apiVersion": "v1", "kind": "Pod", **pod}, kind, reason, message)

    # Coming up.

    async def _start_runtime(self) -> None:
        """Until the runtime works; the Node says meanwhile what is wrong with it."""
        places.ensure_secret_store(os.path.join(self.config.root_dir, "memory"))
        while True:
            try:
                if self._prepare is not None:
                    await self._prepare()
                    self._prepare = None
                await self.runtime.start()
                break
            except RuntimeFailure as failure:
                log.warning("runtime_not_ready error=%s", failure)
                self.readiness.runtime = str(failure)
                self.keeper.poke()
                await asyncio.sleep(_RETRY_S)
        self.readiness.runtime = ""
        await self._list_images()
        if self._started is not None:
            await self._started()

    async def _watch_runtime(self) -> None:
        """Say on the Node when the runtime cannot run containers. What runs already runs on."""
        loop = asyncio.get_running_loop()
        well = loop.time()
        while True:
            await asyncio.sleep(RUNTIME_CHECK_S)
            trouble = await self.runtime.status()
            if not trouble:
                well = loop.time()
            elif loop.time() - well < RUNTIME_PATIENCE_S:
                continue
            if trouble != self.readiness.runtime:
                log.log(logging.WARNING if trouble else logging.INFO, "runtime_status trouble=%r", trouble)
                self.readiness.runtime = trouble
                self.keeper.poke()

    async def _bring_up_network(self) -> None:
        """Set the pod network up when the Node has its CIDR; again should it change."""
        done = ""
        while True:
            if self._pod_cidr and self._pod_cidr != done:
                cidr = self._pod_cidr
                try:
                    await self.network.setup(cidr, self.address)
                    await self.network.retain([s.id for s in await self.runtime.sandboxes()])
                except RuntimeFailure as failure:
                    log.warning("network_not_ready cidr=%s error=%s", cidr, failure)
                    self.readiness.network = str(failure)
                    self.keeper.poke()
                    await asyncio.sleep(_RETRY_S)
                    continue
                done = cidr
                log.info("network_ready cidr=%s", cidr)
                self.readiness.network = ""
                self.keeper.poke()
                self.manager.network_is_ready()
            self._cidr_changed.clear()
            await self._cidr_changed.wait()

    async def _run_source(self) -> None:
        """Take pods once Services are known: their variables belong to every container."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SERVICES_PATIENCE_S):
                await self.services.synced()
        async with asyncio.TaskGroup() as group:
            if self.config.static_pod_path:
                self.files.scan()
                group.create_task(self.files.run())
            group.create_task(self.source.run())

    def _as_owner(self) -> Object | None:
        """The Node as the owner of mirror pods; None until it has been seen."""
        seen = self.nodes.get(self.name)
        if seen is None:
            return None
        return {
            "apiVersion": "v1", "kind": "Node", "name": self.name, "uid": seen["metadata"]["uid"], "controller": True,
        }  # fmt: skip

    # The Node.

    def _node_seen(self, seen: Object) -> None:
        if seen["metadata"]["name"] != self.name:
            return
        self._labels.clear()
        self._labels.update(seen["metadata"].get("labels") or {})
        cidr = (seen.get("spec") or {}).get("podCIDR") or ""
        if cidr and cidr != self._pod_cidr:
            self._pod_cidr = cidr
            self._cidr_changed.set()

    def _node_gone(self, seen: Object) -> None:
        if seen["metadata"]["name"] == self.name:
            self.keeper.observe(None)

    async def _look(self) -> node.NodeView:
        return node.NodeView(
            self.name, [self.address], self.machine, self.evictions.conditions,
            dataclasses.replace(self.readiness), self.config, self._image_entries,
            getattr(self.runtime, "name", ""),
        )  # fmt: skip

    def _images_changed(self) -> None:
        self._image_task = asyncio.get_running_loop().create_task(self._list_images())

    async def _list_images(self) -> None:
        found = await self.images.service.images()
        for image in found:
            self.images.remember(image)
        self._image_entries = node.image_entries({i.id: ([*i.digests, *i.tags], i.size_bytes) for i in found})
        self.keeper.poke()

    def _unhealthy(self) -> str:
        """What only a restart of the agent would mend; /healthz and systemd's watchdog ask."""
        return self.network.trouble()


def _valid(make: Callable[[], T]) -> T:
    """What `make` makes of the configuration. Raises ConfigError where it cannot."""
    try:
        return make()
    except ValueError as error:
        raise daemon.ConfigError(str(error)) from None


def observations(left: machine.Pressure) -> dict[str, Observation]:
    """What is left, by eviction signal. Images and pods share one file system."""
    disk, inodes = Observation(left.disk_available, left.disk_capacity), Observation(left.inodes_free, left.inodes)
    return {
        "memory.available": Observation(left.memory_available, left.memory),
        "nodefs.available": disk, "imagefs.available": disk,
        "nodefs.inodesFree": inodes, "imagefs.inodesFree": inodes,
        "pid.available": Observation(left.pids_free, left.pids),
    }  # fmt: skip


def _dns(config: Config) -> DnsSettings:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        text = ""
    return DnsSettings(tuple(config.cluster_dns), config.cluster_domain, text)


def _own_address(kubeconfig: str) -> str:
    """The address from which this machine reaches the API server. Raises OSError, or ValueError without one."""
    from controlplane.client import credentials

    url = urlsplit(credentials.from_kubeconfig(kubeconfig).server)
    return machine.address_towards(url.hostname or "127.0.0.1", url.port or 443)
