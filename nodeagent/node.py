"""The Node object of this machine: made, kept true, and its heartbeat.

`NodeKeeper.run` registers the Node, then looks at the machine every ten seconds and whenever it is poked, and sends the
status if something has changed, or every five minutes. The heartbeat is a Lease in kube-node-lease, renewed every
quarter of its life, by a task of its own that nothing else can hold up. `node_status` is pure.

Reasons and messages of conditions: kubelet's pkg/kubelet/nodestatus/setters.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api import quantity
from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from controlplane.client.resources import LEASES, NODES
from controlplane.client.rest import Client
from nodeagent.config import Config
from nodeagent.machine import Machine, binary
from nodeagent.pods import cpuset, resources
from nodeagent.pods.eviction import thresholds
from nodeagent.pods.model import Object
from nodeagent.runtime.interface import HANDLERS, LinuxResources

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
_MOST_IMAGES = 50
_RESTART_PATIENCE_S = 10.0
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 5.0


@dataclass(slots=True)
class Readiness:
    """What must be true for Ready. `runtime` and `network`: empty when ready, else what is wrong."""

    runtime: str = "container runtime is starting"
    network: str = "cni plugin not initialized: the node has no pod CIDR yet"


@dataclass(frozen=True, slots=True)
class NodeView:
    """Everything that the Node's status is made from."""

    name: str
    addresses: Sequence[str]
    machine: Machine
    pressures: frozenset[str]  # MemoryPressure, DiskPressure, PIDPressure: those that hold
    readiness: Readiness
    config: Config
    images: Sequence[Object] = ()
    runtime: str = ""  # name://version of a runtime that is not ours


def capacity(machine: Machine, max_pods: int) -> dict[str, str]:
    return {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{machine.disk_bytes // 1024}Ki",
        "pods": str(max_pods),
        "hugepages-2Mi": "0",
        "hugepages-1Gi": "0",
        **{f"hugepages-{size}": binary(held) if held else "0" for size, held in machine.hugepages.items()},
    }


def allocatable(machine: Machine, config: Config) -> dict[str, str]:
    """Capacity less what is reserved for the system and for ourselves, and what eviction keeps free. Raises ValueError
    for a setting that cannot be read."""
    reserved = reservations(config)
    kept = {t.signal: t for t in thresholds.parse(config.eviction_hard)}

    def left(name: str, total: int, signal: str = "") -> int:
        threshold = kept.get(signal)
        return max(total - reserved.get(name, 0) // 10**9 - (threshold.amount(total) if threshold else 0), 0)

    huge = sum(machine.hugepages.values())
    milli_cpus = max(machine.cpus * 1000 - reserved.get("cpu", 0) // 10**6, 0)
    return {
        **capacity(machine, config.max_pods),
        "cpu": str(quantity.of(f"{milli_cpus}m")),
        "memory": f"{max(left('memory', machine.memory_bytes, 'memory.available') - huge, 0) // 1024}Ki",
        "ephemeral-storage": str(left("ephemeral-storage", machine.disk_bytes, "nodefs.available")),
    }


def reservations(config: Config) -> dict[str, int]:
    """What is reserved, by resource, in nano-units. Named CPUs count instead of a number of them. Raises ValueError."""
    reserved: dict[str, int] = {}
    for entry in (*config.system_reserved, *config.kube_reserved):
        name, _, value = entry.partition("=")
        if name not in _RESERVABLE or not value:
            raise ValueError(f"{entry!r} is not resource=quantity; resources: {', '.join(_RESERVABLE)}")
        reserved[name] = reserved.get(name, 0) + quantity.of(value).nano
    if config.reserved_cpus:
        reserved["cpu"] = len(cpuset.parse(config.reserved_cpus)) * 10**9
    return reserved


def all_pods(machine: Machine, config: Config) -> LinuxResources | None:
    """The settings of the cgroup that all pods are in; None: it has none. Raises ValueError."""
    unknown = set(config.enforce_node_allocatable) - {"pods", "none", ""}
    if unknown:
        raise ValueError(f"enforce_node_allocatable: {', '.join(sorted(unknown))}: only pods is known")
    if "pods" not in config.enforce_node_allocatable:
        return None
    reserved = reservations(config)
    kept_pids = reserved["pid"] // 10**9 if "pid" in reserved else min(machine.pids // 10, _KEPT_PIDS)
    return LinuxResources(
        cpu_shares=resources.shares(max(machine.cpus * 1000 - reserved.get("cpu", 0) // 10**6, 0)),
        memory_limit_bytes=max(machine.memory_bytes - reserved.get("memory", 0) // 10**9, 0),
        pids_limit=max(machine.pids - kept_pids, 1),
    )


_KEPT_PIDS = 1024  # enough for the daemons and for somebody who logs in to mend it
_RESERVABLE = ("cpu", "memory", "ephemeral-storage", "pid")


def labels(name: str, machine: Machine, extra: Sequence[str]) -> dict[str, str]:
    """The labels that a node registers with."""
    own = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
    }
    return own | dict(entry.partition("=")[::2] for entry in extra)


def taints(entries: Sequence[str]) -> list[Object]:
    """Taints from key=value:Effect or key:Effect. Raises ValueError."""
    result: list[Object] = []
    for entry in entries:
        key, colon, effect = entry.rpartition(":")
        if not colon:
            raise ValueError(f"taint {entry!r} has no effect")
        name, equals, value = key.partition("=")
        result.append({"key": name, **({"value": value} if equals else {}), "effect": effect})
    return result


_HANDLER_FEATURES = {"recursiveReadOnlyMounts": True, "userNamespaces": True}
_OWN_RUNTIME: Object = {
    "features": {"supplementalGroupsPolicy": True},
    "runtimeHandlers": [{"name": name, "features": _HANDLER_FEATURES} for name in HANDLERS],
}
"""What our own runtime can; of another we do not know, and say nothing."""


def node_status(view: NodeView, before: Object, now: float) -> Object:
    """The whole status. `before`: the one that is to be replaced, for transition times."""
    machine = view.machine
    return {
        "addresses": [{"type": "InternalIP", "address": a} for a in view.addresses]
        + [{"type": "Hostname", "address": view.name}],
        "capacity": capacity(machine, view.config.max_pods),
        "allocatable": allocatable(machine, view.config),
        "conditions": conditions(view, before, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": view.config.port}},
        **({} if view.config.container_runtime_endpoint else _OWN_RUNTIME),
        "images": list(view.images[:_MOST_IMAGES]),
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot_id,
            "containerRuntimeVersion": view.runtime
            or f"wherry://{view.config.kubernetes_version.lstrip('v').partition('+')[0]}",
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": view.config.kubernetes_version,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.system_uuid,
        },
    }


def conditions(view: NodeView, before: Object, now: float) -> list[Object]:
    """MemoryPressure, DiskPressure, PIDPressure, NetworkUnavailable and Ready."""
    ready = view.readiness
    wrong = []
    if ready.runtime:
        wrong.append(f"container runtime is down: {ready.runtime}")
    if ready.network:
        text = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:"
        wrong.append(text + ready.network)
    wanted = [
        ("MemoryPressure", True, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
        if "MemoryPressure" in view.pressures
        else ("MemoryPressure", False, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", True, "KubeletHasDiskPressure", "kubelet has disk pressure")
        if "DiskPressure" in view.pressures
        else ("DiskPressure", False, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", True, "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
        if "PIDPressure" in view.pressures
        else ("PIDPressure", False, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("NetworkUnavailable", True, "NoRouteCreated", ready.network)
        if ready.network
        else ("NetworkUnavailable", False, "RouteCreated", "the pod network is set up"),
        ("Ready", False, "KubeletNotReady", "[" + ", ".join(wrong) + "]" if len(wrong) > 1 else wrong[0])
        if wrong
        else ("Ready", True, "KubeletReady", "kubelet is posting ready status"),
    ]
    old = {c["type"]: c for c in before.get("conditions") or ()}
    result: list[Object] = []
    for kind, holds, reason, message in wanted:
        state, known = "True" if holds else "False", old.get(kind, {})
        changed = known.get("lastTransitionTime") if known.get("status") == state else None
        result.append(
            {
                "type": kind, "status": state, "reason": reason, "message": message,
                "lastHeartbeatTime": clock.rfc3339(now), "lastTransitionTime": changed or clock.rfc3339(now),
            }
        )  # fmt: skip
    return result


def differs(sent: Object, status: Object) -> bool:
    """Whether a status says something new: anything but heartbeat times."""

    def essence(s: Object) -> Object:
        plain = [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in s.get("conditions") or ()]
        return {**s, "conditions": plain}

    return essence(sent) != essence(status)


@dataclass(slots=True)
class NodeKeeper:
    """`look()` gives the present view; `registered` is set once the API server has the Node."""

    client: Client
    name: str
    look: Callable[[], Awaitable[NodeView]]
    config: Config
    registered: asyncio.Event = field(default_factory=asyncio.Event)
    _poked: asyncio.Event = field(default_factory=asyncio.Event)
    _uid: str = ""
    _sent: Object = field(default_factory=dict)
    _sent_at: float = -1e9
    _lease: Object | None = None
    _hold_until: float = (
        0.0  # loop time until which a node that was Ready is not called otherwise (we only just started)
    )

    def poke(self) -> None:
        """Something has changed: look, and tell at once."""
        self._poked.set()

    def observe(self, node: Object | None) -> None:
        """The Node as the informer has it; None: somebody has deleted it, and it must be registered again."""
        if node is None and self.registered.is_set():
            log.warning("node_deleted name=%s", self.name)
            self._sent, self._sent_at = {}, -1e9
            self.registered.clear()
            self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_status())
            group.create_task(self._keep_lease())

    async def _keep_status(self) -> None:
        delay = _RETRY_FIRST_S
        while True:
            self._poked.clear()
            try:
                view = await self.look()
                if not self.registered.is_set():
                    await self._register(view)
                await self._tell(view)
                delay = _RETRY_FIRST_S
            except (StatusError, Unreachable) as error:
                log.info("node_status_unsent name=%s error=%s retry_s=%.1f", self.name, error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LAST_S)
                continue
            await _wait(self._poked, self.config.node_status_update_frequency_seconds)

    async def _register(self, view: NodeView) -> None:
        """Create the Node, or take over the one that is there (its spec and other labels are left alone)."""
        wanted = labels(self.name, view.machine, self.config.node_labels)
        status = node_status(view, {}, clock.wall_time())
        spec = {"taints": taints(self.config.register_with_taints)} if self.config.register_with_taints else {}
        node = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": wanted}, "spec": spec,
            "status": status,
        }  # fmt: skip
        try:
            made = await self.client.create(NODES, node)
            log.info("node_registered name=%s", self.name)
        except StatusError as error:
            if error.code != 409:
                raise
            made = await self.client.get(NODES, self.name)
            have = made["metadata"].get("labels") or {}
            missing = {k: v for k, v in wanted.items() if have.get(k) != v}
            if missing:
                made = await self.client.patch(NODES, self.name, {"metadata": {"labels": missing}})
            if _is_ready(made.get("status") or {}):
                self._hold_until = asyncio.get_running_loop().time() + _RESTART_PATIENCE_S
            log.info("node_found name=%s", self.name)
        self._uid = made["metadata"]["uid"]
        self._sent = made.get("status") or {}
        self.registered.set()

    async def _tell(self, view: NodeView) -> None:
        now = clock.wall_time()
        status = node_status(view, self._sent, now)
        if asyncio.get_running_loop().time() < self._hold_until and not _is_ready(status):
            return  # a restarted agent will be ready in a moment; nobody should move pods for that
        due = now - self._sent_at >= self.config.node_status_report_frequency_seconds
        if not due and not differs(self._sent, status):
            return
        body = {"status": {**status, "addresses": [{"$patch": "replace"}, *status["addresses"]]}}
        try:
            await self.client.patch(NODES, self.name, body, kind="strategic", subresource="status")
        except StatusError as error:
            if error.code == 404:
                self.registered.clear()
            raise
        if differs(self._sent, status):
            ready = next(c for c in status["conditions"] if c["type"] == "Ready")
            log.info("node_status_sent name=%s ready=%s reason=%s", self.name, ready["status"], ready["reason"])
        self._sent, self._sent_at = status, now

    async def _keep_lease(self) -> None:
        """A heartbeat every quarter of the lease's life; sooner after a failure."""
        period = self.config.node_lease_duration_seconds / 4
        delay = _RETRY_FIRST_S
        client = self.client.with_timeout(min(10.0, period))
        while True:
            try:
                await self._renew(client)
                delay = _RETRY_FIRST_S
                await asyncio.sleep(period * (1 + 0.04 * clock.chance.random()))
            except (StatusError, Unreachable) as error:
                log.info("lease_not_renewed name=%s error=%s retry_s=%.1f", self.name, error, delay)
                self._lease = None
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LAST_S)

    async def _renew(self, client: Client) -> None:
        now = clock.rfc3339_micro()
        if self._lease is not None:
            spec = {**self._lease["spec"], "renewTime": now}
            self._lease = await client.update(LEASES, {**self._lease, "spec": spec})
            return
        try:
            found = await client.get(LEASES, self.name, LEASE_NAMESPACE)
        except StatusError as error:
            if error.code != 404:
                raise
            await self.registered.wait()  # its owner must exist
            self._lease = await client.create(LEASES, self._new_lease(now))
            return
        spec = {**(found.get("spec") or {}), **self._lease_spec(now)}
        self._lease = await client.update(LEASES, {**found, "spec": spec})

    def _new_lease(self, now: str) -> Object:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self._uid}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
            "spec": self._lease_spec(now),
        }

    def _lease_spec(self, now: str) -> Object:
        seconds = self.config.node_lease_duration_seconds
        return {"holderIdentity": self.name, "leaseDurationSeconds": seconds, "renewTime": now}


def _is_ready(status: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def image_entries(images: Mapping[str, tuple[Sequence[str], int]]) -> list[Object]:
    """Node.status.images: names and sizes, largest first. `images`: id -> (names, size in bytes)."""
    entries: list[Object] = [{"names": list(n), "sizeBytes": size} for n, size in images.values() if n]
    return sorted(entries, key=lambda e: (-e["sizeBytes"], e["names"]))
