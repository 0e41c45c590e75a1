"""What sandboxes and containers use, by CRI. CPU rates (usage_nano_cores) are between two questions of the same client
or another's, at least a second apart; the first has none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from controlplane import clock
from nodeagent.cri import configs, statuses
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.cri.server import memory
from nodeagent.cri.server.containers import Containers
from nodeagent.cri.server.filters import passes
from nodeagent.cri.server.pods import Pods
from nodeagent.runtime.interface import ContainerStatus, Runtime, RuntimeFailure, SandboxStatus, Stats
from nodeagent.server.stats.sample import interfaces

_RATE_OVER_S = 1.0


class StatsMethods:
    """`layers`: the directory of containers' writable layers."""

    def __init__(self, runtime: Runtime, pods: Pods, containers: Containers, layers: str) -> None:
        self._runtime, self._pods, self._containers, self._layers = runtime, pods, containers, layers
        self._rates: dict[str, tuple[float, int, int]] = {}  # id → when, CPU then, rate since the look before

    async def container(self, request: Message) -> Message:
        found = await self._containers.find(request["container_id"])
        used = {s.container_id: s for s in await self._runtime.stats()}
        if found.id not in used:
            raise GrpcError(Code.FAILED_PRECONDITION, f"container {found.id} has no statistics: it is in {found.state}")
        return {"stats": await self._of_container(found, used[found.id])}

    async def container_list(self, request: Message) -> Message:
        return {"stats": await self.containers(request.get("filter"))}

    async def containers(self, wanted: Mapping[str, Any] | None) -> list[Message]:
        """ContainerStats of every running container that passes a ContainerStatsFilter."""
        known = {c.id: c for c in await self._runtime.containers()}
        found = []
        for used in await self._measured():
            status = known.get(used.container_id)
            if status is None:
                continue
            item = {"id": status.id, "pod_sandbox_id": status.sandbox_id, "labels": status.labels}
            if passes(item, wanted):
                found.append(await self._of_container(status, used))
        return found

    async def pod(self, request: Message) -> Message:
        found = await self._pods.find(request["pod_sandbox_id"])
        stats = await self.pods({"id": found.id})
        if not stats:
            raise GrpcError(Code.FAILED_PRECONDITION, f"sandbox {found.id} has no statistics: it is in {found.state}")
        return {"stats": stats[0]}

    async def pod_list(self, request: Message) -> Message:
        return {"stats": await self.pods(request.get("filter"))}

    async def pods(self, wanted: Mapping[str, Any] | None) -> list[Message]:
        """PodSandboxStats of every ready sandbox that passes a PodSandboxStatsFilter."""
        measured = await self._measured()
        known = {c.id: c for c in await self._runtime.containers()}
        found = []
        for sandbox in await self._runtime.sandboxes():
            used = next((s for s in measured if s.sandbox_id == sandbox.id and not s.container_id), None)
            if used is None or not passes({"id": sandbox.id, "labels": sandbox.labels}, wanted):
                continue
            inside = [s for s in measured if s.sandbox_id == sandbox.id and s.container_id in known]
            of_containers = [await self._of_container(known[s.container_id], s) for s in inside]
            found.append(self._of_pod(sandbox, used, of_containers))
        return found

    async def _measured(self) -> list[Stats]:
        measured = list(await self._runtime.stats())
        there = {s.container_id or s.sandbox_id for s in measured}
        self._rates = {key: value for key, value in self._rates.items() if key in there}
        return measured

    def _of_pod(self, sandbox: SandboxStatus, used: Stats, containers: list[Message]) -> Message:
        stamp = statuses.nanoseconds(used.at)
        return {
            "attributes": {
                "id": sandbox.id,
                "metadata": configs.metadata_to_cri(sandbox.identity),
                "labels": sandbox.labels,
                "annotations": memory.visible(sandbox.annotations),
            },
            "linux": {
                **self._usage(sandbox.id, used),
                "network": _network(sandbox.netns_path, stamp),
                "process": {"timestamp": stamp, "process_count": {"value": used.usage.pids}},
                "containers": containers,
            },
        }

    async def _of_container(self, status: ContainerStatus, used: Stats) -> Message:
        layer = None
        try:
            disk = await self._runtime.disk_usage(status.id)
            layer = {
                "timestamp": statuses.nanoseconds(clock.wall_time()),
                "fs_id": {"mountpoint": self._layers},
                "used_bytes": {"value": disk.bytes},
                "inodes_used": {"value": disk.inodes},
            }
        except RuntimeFailure:
            pass  # it has gone meanwhile
        return {
            "attributes": {
                "id": status.id,
                "metadata": {"name": status.name, "attempt": status.attempt},
                "labels": status.labels,
                "annotations": memory.visible(status.annotations),
            },
            **self._usage(status.id, used),
            "writable_layer": layer,
        }

    def _usage(self, key: str, used: Stats) -> Message:
        message = statuses.usage_to_cri(used.usage, used.at)
        now = asyncio.get_running_loop().time()
        at, cpu_ns, rate = self._rates.get(key, (0.0, -1, -1))
        if cpu_ns < 0:
            self._rates[key] = now, used.usage.cpu_ns, -1
        elif now - at >= _RATE_OVER_S:
            rate = max(0, int((used.usage.cpu_ns - cpu_ns) / (now - at)))
            self._rates[key] = now, used.usage.cpu_ns, rate
        if rate >= 0:
            message["cpu"]["usage_nano_cores"] = {"value": rate}
        return message


def _network(netns_path: str, stamp: int) -> Message | None:
    if not netns_path.startswith("/proc/"):
        return None
    try:
        found = [
            {
                "name": i.name,
                "rx_bytes": {"value": i.rx_bytes},
                "rx_errors": {"value": i.rx_errors},
                "tx_bytes": {"value": i.tx_bytes},
                "tx_errors": {"value": i.tx_errors},
            }
            for i in interfaces(netns_path.removesuffix("ns/net") + "net/dev")
        ]
    except OSError:
        return None
    first = next((i for i in found if i["name"] == "eth0"), None)
    return {"timestamp": stamp, "default_interface": first, "interfaces": [i for i in found if i is not first]}
