"""Many pods on one node: what each costs in memory of our own, and what the agent does while nothing happens.

200 pods of one sleeping container on the first node of a lab: how long until all run, how much more memory the node's
own processes have (sum of PSS: shims, zygote, agent; not the containers'), and the agent's CPU over ten idle seconds
with 100 and with 200 of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

from bench_pods import NAMESPACE, pod
from figures import Figure
from harness import Lab, cpu_s, memory_mb

from controlplane.client import from_kubeconfig
from controlplane.client.resources import PODS

STEPS = (100, 200)
SETTLE_S, WINDOW_S = 5.0, 10.0


def figures() -> Iterator[Figure]:
    os.environ["WHERRY_MAX_PODS"] = "250"
    try:
        with Lab() as lab:
            yield from asyncio.run(_measure(lab))
    finally:
        del os.environ["WHERRY_MAX_PODS"]


async def _measure(lab: Lab) -> list[Figure]:
    client = from_kubeconfig(lab.status()["kubeconfig"])
    found: list[Figure] = []
    try:
        node = next(p["node"] for p in lab.status()["processes"] if p["component"] == "nodeagent")
        agent = _pid(lab, "nodeagent", node)
        await asyncio.sleep(SETTLE_S)
        empty, running = _own_mb(lab, node), 0
        for wanted in STEPS:
            begun = time.perf_counter()
            await asyncio.gather(*(_create(client, node, f"dense-{n}") for n in range(running, wanted)))
            await _all_running(client, wanted)
            took, running = time.perf_counter() - begun, wanted
            await asyncio.sleep(SETTLE_S)
            used, since = cpu_s(agent), time.perf_counter()
            await asyncio.sleep(WINDOW_S)
            idle = (cpu_s(agent) - used) / (time.perf_counter() - since) * 100
            aim = 1.0 if wanted == STEPS[0] else None
            found.append(Figure(f"agent's CPU, {wanted} pods idle", idle, "% core", aim))
        found.append(Figure(f"pods {STEPS[0] + 1} to {wanted} on one node, all Running", took, "s"))
        own = (_own_mb(lab, node) - empty) / running
        note = f"PSS of shims, zygote and agent, {running} pods; agent {memory_mb(agent)['Pss']:.0f} MB"
        found.append(Figure("memory of our own for each pod", own, "MB", 1.5, note=note))
    finally:
        await client.close()
    return found


async def _create(client: object, node: str, name: str) -> None:
    wanted = pod(name)
    wanted["spec"]["nodeName"] = node
    await client.create(PODS, wanted)  # type: ignore[attr-defined]


async def _all_running(client: object, count: int) -> None:
    async with asyncio.timeout(120):
        while True:
            listed = await client.list(PODS, NAMESPACE)  # type: ignore[attr-defined]
            if sum(p.get("status", {}).get("phase") == "Running" for p in listed["items"]) >= count:
                return
            await asyncio.sleep(0.05)


def _pid(lab: Lab, component: str, node: str) -> int:
    return next(p["pid"] for p in lab.status()["processes"] if (p["component"], p["node"]) == (component, node))


def _own_mb(lab: Lab, node: str) -> float:
    """PSS of the node's agent, zygote and shims: every process that runs our code, and none of the containers'."""
    zygote = _pid(lab, "runtime", node)
    with open(f"/proc/{zygote}/task/{zygote}/children", encoding="ascii") as file:
        shims = [int(pid) for pid in file.read().split()]
    return sum(memory_mb(pid)["Pss"] for pid in (zygote, *shims, _pid(lab, "nodeagent", node)))
