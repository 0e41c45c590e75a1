"""Watch fan-out: 100 watchers, one writer, 1,000 updates of one configmap. From the PATCH to each watcher.

The PATCH replaces one short value beside 1 KiB of data. Kubernetes' event for such an object had 1.7 KB, with
managedFields, which ours does not have."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import load
from figures import KUBERNETES, Figure, median, quantile
from harness import ApiServer

WATCHERS, UPDATES = 100, 1_000
MARK, END = b"<sent:", b">"  # around the time of sending, in every form of an event
PEER_CPU, PEER_RATE, PEER_P50 = 0.044, 22_900, 4.6


async def measure(server: ApiServer, accept: str = "application/json") -> list[Figure]:
    """`accept`: the form that the watchers want."""
    await load.prepare(server)
    await load.drive(server, 1, [load.request("POST", load.CONFIGMAPS, load.configmap("watched"))])
    [writer] = await load.connect(server, 1)
    _, body = await writer.ask(load.request("GET", f"{load.CONFIGMAPS}/watched"))
    version = json.loads(body)["metadata"]["resourceVersion"]
    delays: list[float] = []
    finished = asyncio.Event()

    def listener() -> Callable[[bytes], None]:
        rest = b""

        def heard(data: bytes) -> None:
            nonlocal rest
            now = time.perf_counter()
            data, at = rest + data, 0
            while (found := data.find(MARK, at)) >= 0 and (end := data.find(END, found + len(MARK))) >= 0:
                delays.append((now - float(data[found + len(MARK) : end])) * 1e3)
                at = end
            rest = data[max(at, found if found >= 0 else len(data) - len(MARK)) :]  # the beginning of a stamp, if any
            if len(delays) >= WATCHERS * UPDATES:
                finished.set()

        return heard

    query = f"watch=1&fieldSelector=metadata.name%3Dwatched&resourceVersion={version}&timeoutSeconds=600"
    watchers = await load.connect(server, WATCHERS)
    for watcher in watchers:
        watcher.stream = listener()
    await asyncio.gather(*(w.ask(load.request("GET", f"{load.CONFIGMAPS}?{query}", accept=accept)) for w in watchers))
    cpu, begun = server.cpu_s(), time.perf_counter()
    for _ in range(UPDATES):
        change = {"data": {"sent": f"<sent:{time.perf_counter()!r}>"}}
        kind = "application/merge-patch+json"
        status, body = await writer.ask(load.request("PATCH", f"{load.CONFIGMAPS}/watched", change, kind))
        if status != 200:
            raise RuntimeError(f"PATCH: {status} {body[:300]!r}")
    written = time.perf_counter() - begun
    async with asyncio.timeout(60):
        await finished.wait()
    wall, used = time.perf_counter() - begun, server.cpu_s() - cpu
    for connection in (*watchers, writer):
        connection.close()
    rate = f"{len(delays) / wall:,.0f}/s (Kubernetes {PEER_RATE:,}/s)"
    note = f"{rate}, p50 {median(delays):.1f} ms ({PEER_P50}), p99 {quantile(delays, 0.99):.1f} ms (12.1), "
    note += f"{UPDATES / written:.0f} updates/s"
    name = f"watch event, {WATCHERS} watchers" + (", protobuf" if accept == load.PROTOBUF else "")
    return [Figure(name, used / len(delays) * 1e3, "CPU ms", 0.3 * PEER_CPU, PEER_CPU, KUBERNETES, note)]


def figures() -> Iterator[Figure]:
    with ApiServer() as server:
        yield from load.run(measure(server))
