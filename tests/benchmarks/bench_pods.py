"""From a pod's POST to Running, as a watch on the API sees it; the image is on the nodes.

One at a time, then all at once. The cluster is a lab of its own with its real scheduler, agents and runtime.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from figures import KUBERNETES, Figure, median, quantile
from harness import Lab, machine_cpu_s

from controlplane.client import from_kubeconfig
from controlplane.client.resources import PODS

SINGLE, AT_ONCE, ROUNDS = 20, 30, 3
NAMESPACE = "default"


def figures() -> Iterator[Figure]:
    with Lab() as lab:
        yield from asyncio.run(_measure(lab))


def pod(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "busybox:1.35", "command": ["sleep", "3600"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


class Bench:
    """Creates pods, and knows from a watch since when each is Running."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._running: dict[str, asyncio.Future[float]] = {}
        self._gone: dict[str, asyncio.Future[None]] = {}

    async def follow(self, version: str) -> None:
        async for kind, obj in self._client.watch(PODS, NAMESPACE, resource_version=version):
            name = obj["metadata"]["name"]
            if kind == "DELETED":
                self._gone[name].set_result(None)
            elif obj.get("status", {}).get("phase") == "Running" and not self._running[name].done():
                self._running[name].set_result(time.perf_counter())

    async def run(self, name: str) -> tuple[float, float]:
        """(begin of POST, Running)."""
        loop = asyncio.get_running_loop()
        self._running[name], self._gone[name] = loop.create_future(), loop.create_future()
        begun = time.perf_counter()
        await self._client.create(PODS, pod(name))
        return begun, await self._running[name]

    async def remove(self, name: str) -> float:
        begun = time.perf_counter()
        await self._client.delete(PODS, name, NAMESPACE)
        await self._gone[name]
        return time.perf_counter() - begun


async def _measure(lab: Lab) -> list[Figure]:
    client = from_kubeconfig(lab.status()["kubeconfig"])
    bench = Bench(client)
    listed = await client.list(PODS, NAMESPACE)
    watching = asyncio.create_task(bench.follow(listed["metadata"]["resourceVersion"]))
    try:
        async with asyncio.timeout(120):
            for i in range(3):
                await bench.run(f"warm-{i}")
                await bench.remove(f"warm-{i}")
            singles, deletes = [], []
            for i in range(SINGLE):
                begun, done = await bench.run(f"single-{i}")
                singles.append((done - begun) * 1e3)
                deletes.append(await bench.remove(f"single-{i}") * 1e3)
            bursts, middles, cpu = [], [], []
            for r in range(ROUNDS):
                await asyncio.sleep(1.0)
                used = machine_cpu_s()
                results = await asyncio.gather(*(bench.run(f"burst-{r}-{i}") for i in range(AT_ONCE)))
                cpu.append((machine_cpu_s() - used) / AT_ONCE)
                start = min(begun for begun, _ in results)
                bursts.append(max(done for _, done in results) - start)
                middles.append(median(done - start for _, done in results))
                await asyncio.gather(*(bench.remove(f"burst-{r}-{i}") for i in range(AT_ONCE)))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()
    notes = f"median of {SINGLE}; p95 {quantile(singles, 0.95):.0f} ms; delete → gone {median(deletes):.0f} ms"
    burst = f"median of {ROUNDS}; half of them after {median(middles):.2f} s; slowest round {max(bursts):.2f} s"
    return [
        Figure("pod POST → Running, one at a time", median(singles), "ms", 60, 480, KUBERNETES, notes),
        Figure(f"pod POST → Running, {AT_ONCE} at once, all", median(bursts), "s", 0.75, 3.75, KUBERNETES, burst),
        Figure("CPU per pod of the burst", median(cpu), "s", None, 0.23, KUBERNETES, "whole machine, with this client"),
    ]
