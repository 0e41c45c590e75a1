"""LIST: 1,000 and 10,000 configmaps and pods in one answer, and a page of 500. One connection."""

from __future__ import annotations

from collections.abc import Iterator

import load
from figures import KUBERNETES, Figure
from harness import ApiServer

# (what, objects) -> Kubernetes' CPU ms for one: the middle of its range in the design's peers table
PEER = {("configmaps", 1_000): 21.5, ("configmaps", 10_000): 220.0, ("pods", 1_000): 44.5, ("pods", 10_000): 376.0}
PEER_PAGE = 16.0
AIM = 0.1


async def _measure(server: ApiServer) -> list[Figure]:
    found = []
    await load.prepare(server)
    for what, path, make in (("configmaps", load.CONFIGMAPS, load.configmap), ("pods", load.PODS, load.pod)):
        there = 0
        for count in (1_000, 10_000):
            names = (f"l-{i}" for i in range(there, count))
            await load.drive(server, 16, (load.request("POST", path, make(name)) for name in names))
            there = count
            read = load.request("GET", path)
            await load.drive(server, 1, [read])
            result = await load.drive(server, 1, [read] * (50 if count == 1_000 else 10))
            note = f"p50 {result.p50_ms:.0f} ms, {result.size / 1e6:.1f} MB"
            peer = PEER[what, count]
            name = f"LIST {count:,} {what}"
            found.append(Figure(name, result.cpu_ms, "CPU ms", peer * AIM, peer, KUBERNETES, note))
        if what == "configmaps":
            result = await load.drive(server, 1, [load.request("GET", path + "?limit=500")] * 50)
            name, note = "page of 500 of 10,000", f"p50 {result.p50_ms:.1f} ms"
            found.append(Figure(name, result.cpu_ms, "CPU ms", PEER_PAGE, PEER_PAGE, KUBERNETES, note))
    return found


def figures() -> Iterator[Figure]:
    with ApiServer() as server:
        yield from load.run(_measure(server))
