"""One look at what the node, its pods and its containers use.

CPU, memory, processes and network are counters of the kernel, read when somebody asks. Disk means walking trees: a
pod's figures are up to a minute old. Nothing is measured while nobody asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane import clock
from nodeagent import machine
from nodeagent.linux.cgroups.usage import PSI, Pressure, Usage, pressures
from nodeagent.pods.eviction import storage
from nodeagent.pods.eviction.storage import LocalStorage
from nodeagent.pods.manager import PodManager
from nodeagent.pods.model import LABEL_UID, Object
from nodeagent.pods.node import NodeFacts
from nodeagent.runtime.interface import ContainerState, ContainerStatus, DiskUsage, Runtime, RuntimeFailure

DISK_AGE_S = 60.0
_SHORTEST_S = 1.0  # a rate over less than this says nothing


@dataclass(frozen=True, slots=True)
class Interface:
    """Counters of a network interface."""

    name: str
    rx_bytes: int
    rx_errors: int
    tx_bytes: int
    tx_errors: int
    rx_packets: int = 0
    rx_dropped: int = 0
    tx_packets: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """`nano_cores`: CPU used a second, over the time since the last look; None at the first."""

    status: ContainerStatus
    usage: Usage
    nano_cores: int | None


@dataclass(frozen=True, slots=True)
class PodSample:
    """`storage`: None when disk was not asked for."""

    pod: Object
    usage: Usage
    nano_cores: int | None
    interfaces: tuple[Interface, ...]
    containers: tuple[ContainerSample, ...]
    storage: LocalStorage | None


@dataclass(frozen=True, slots=True)
class Sample:
    """The whole node. `left`: of memory, disk, inodes, process ids."""

    at: float
    name: str
    usage: Usage
    nano_cores: int | None
    left: machine.Pressure
    interfaces: tuple[Interface, ...]
    pods: tuple[PodSample, ...]


@dataclass(slots=True)
class Sampler:
    """Takes samples; remembers between two of them what rates and disk figures need."""

    node: NodeFacts
    runtime: Runtime
    pods: PodManager
    _rates: dict[str, tuple[float, int, int | None]] = field(default_factory=dict)
    _disk: dict[str, tuple[float, LocalStorage]] = field(default_factory=dict)
    _measuring: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sample(self, *, disk: bool) -> Sample:
        """Look now. `disk`: local storage too. Raises RuntimeFailure, OSError."""
        now = clock.wall_time()
        sandboxes = {s.id: s for s in await self.runtime.sandboxes()}
        statuses = {c.id: c for c in await self.runtime.containers()}
        whole: dict[str, tuple[str, Usage]] = {}
        parts: dict[str, list[ContainerSample]] = {}
        for stats in await self.runtime.stats():
            sandbox = sandboxes.get(stats.sandbox_id)
            if sandbox is None:
                continue
            uid = sandbox.identity.uid
            if not stats.container_id:
                whole[uid] = sandbox.netns_path, stats.usage
            elif stats.container_id in statuses:
                rate = self._rate(stats.container_id, stats.at, stats.usage.cpu_ns)
                sample = ContainerSample(statuses[stats.container_id], stats.usage, rate)
                parts.setdefault(uid, []).append(sample)
        pods = []
        for pod in self.pods.pods():
            uid = pod["metadata"]["uid"]
            if uid not in whole:
                continue
            path, usage = whole[uid]
            held = await self._storage(pod, statuses) if disk else None
            rate = self._rate(uid, now, usage.cpu_ns)
            containers = tuple(sorted(parts.get(uid, ()), key=lambda c: c.status.name))
            pods.append(PodSample(pod, usage, rate, _pod_interfaces(path), containers, held))
        self._forget(statuses.keys() | whole.keys())
        usage = node_usage()
        return Sample(
            now, self.node.name, usage, self._rate("", now, usage.cpu_ns), machine.pressure(self.node.root_directory),
            interfaces("/proc/self/net/dev"), tuple(pods),
        )  # fmt: skip

    def _rate(self, key: str, at: float, cpu_ns: int) -> int | None:
        before = self._rates.get(key)
        if before is None:
            self._rates[key] = at, cpu_ns, None
            return None
        past, counted, known = before
        if at - past < _SHORTEST_S:
            return known
        rate = max(int((cpu_ns - counted) / (at - past)), 0)
        self._rates[key] = at, cpu_ns, rate
        return rate

    def _forget(self, alive: set[str]) -> None:
        for key in self._rates.keys() - alive - {""}:
            del self._rates[key]
        for uid in self._disk.keys() - alive:
            del self._disk[uid]

    async def _storage(self, pod: Object, statuses: Mapping[str, ContainerStatus]) -> LocalStorage:
        uid = pod["metadata"]["uid"]
        async with self._measuring:  # two scrapes at once must not walk the same trees twice
            loop = asyncio.get_running_loop()
            known = self._disk.get(uid)
            if known is not None and loop.time() - known[0] < DISK_AGE_S:
                return known[1]
            layers: dict[str, DiskUsage] = {}
            for status in statuses.values():
                if status.labels.get(LABEL_UID) == uid and status.state is not ContainerState.UNKNOWN:
                    try:
                        used = await self.runtime.disk_usage(status.id)
                    except RuntimeFailure:  # removed meanwhile
                        continue
                    layers[status.name] = layers.get(status.name, DiskUsage()) + used
            measured = await asyncio.to_thread(storage.measure, self.node, pod, layers)
            self._disk[uid] = loop.time(), measured
            return measured


def node_usage(proc: str = "/proc") -> Usage:
    """The machine as a whole, as a cgroup of everything."""
    with open(f"{proc}/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
    busy_ns = (user + nice + system + irq + softirq + steal) * (10**9 // os.sysconf("SC_CLK_TCK"))
    memory, faults = _table(f"{proc}/meminfo"), _table(f"{proc}/vmstat")
    used = (memory.get("MemTotal", 0) - memory.get("MemFree", 0)) * 1024
    psi: dict[tuple[str, str], Pressure] = {}
    for resource in PSI:
        try:
            with open(f"{proc}/pressure/{resource}", encoding="ascii") as file:
                psi.update({(resource, kind): p for kind, p in pressures(file.read()).items()})
        except OSError:
            pass
    return Usage(
        cpu_ns=busy_ns,
        memory_bytes=used,
        working_set_bytes=max(used - memory.get("Inactive(file)", 0) * 1024, 0),
        rss_bytes=memory.get("AnonPages", 0) * 1024,
        limit_bytes=memory.get("MemTotal", 0) * 1024,
        page_faults=faults.get("pgfault", 0),
        major_page_faults=faults.get("pgmajfault", 0),
        psi=psi,
    )


def interfaces(path: str) -> tuple[Interface, ...]:
    """The interfaces of a /proc/<pid>/net/dev but for lo; none if the process is gone."""
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return ()
    found = []
    for line in lines:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        if name.strip() != "lo":
            found.append(Interface(name.strip(), n[0], n[2], n[8], n[10], n[1], n[3], n[9], n[11]))
    return tuple(found)


def _pod_interfaces(netns_path: str) -> tuple[Interface, ...]:
    """A pod's own interfaces; none for a pod in the node's network."""
    return interfaces(netns_path.removesuffix("ns/net") + "net/dev") if netns_path.startswith("/proc/") else ()


def _table(path: str) -> dict[str, int]:
    result = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            name, value, *_ = line.replace(":", " ").split()
            result[name] = int(value)
    return result
