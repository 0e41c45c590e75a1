"""Protobuf beside JSON: GET, POST and LIST of pods, and a watch, as kubelets, controllers and schedulers of Kubernetes
ask for them. Kubernetes' figures are those for JSON; there are none for its protobuf."""

from __future__ import annotations

from collections.abc import Iterator

import bench_watch
import load
from figures import KUBERNETES, Figure
from harness import ApiServer

from controlplane.api import wire

COUNT = 2_000
LISTED = 5_000


async def _measure(server: ApiServer) -> list[Figure]:
    found = []
    await load.prepare(server)
    for form, accept in (("JSON", "application/json"), ("protobuf", load.PROTOBUF)):

        def pod(name: str, kind: str = accept) -> bytes:
            body = {"apiVersion": "v1", "kind": "Pod", **load.pod(name)}
            return load.request("POST", load.PODS, wire.encode(body) if kind == load.PROTOBUF else body, kind, kind)

        made = await load.drive(server, 64, [pod(f"{form.lower()}-{i}") for i in range(COUNT)])
        found.append(Figure(f"POST pod, {form}, 64 conn.", made.cpu_ms, "CPU ms", 1.65, 1.65, KUBERNETES, str(made)))
        path = f"{load.PODS}/json-1"
        got = await load.drive(server, 64, [load.request("GET", path, accept=accept)] * COUNT)
        note = f"{got.rate:,.0f}/s, {got.size / 1e3:.1f} KB"
        found.append(Figure(f"GET pod, {form}, 64 conn.", got.cpu_ms, "CPU ms", 0.2, None, "", note))
    more = (load.request("POST", load.PODS, load.pod(f"l-{i}")) for i in range(LISTED - 2 * COUNT))
    await load.drive(server, 16, more)
    for form, accept in (("JSON", "application/json"), ("protobuf", load.PROTOBUF)):
        read = load.request("GET", load.PODS, accept=accept)
        first = await load.drive(server, 1, [read])
        again = await load.drive(server, 1, [read] * 10)
        note = f"p50 {again.p50_ms:.0f} ms, {again.size / 1e6:.1f} MB; the first time {first.cpu_ms:.0f} CPU ms"
        found.append(Figure(f"LIST {LISTED:,} pods, {form}", again.cpu_ms, "CPU ms", 18.8, None, "", note))
    return found


def figures() -> Iterator[Figure]:
    with ApiServer() as server:
        yield from load.run(_measure(server))
    with ApiServer() as server:
        yield from load.run(bench_watch.measure(server, load.PROTOBUF))
