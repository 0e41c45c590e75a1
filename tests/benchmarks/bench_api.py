"""Single operations of the API server: what each costs it in CPU, and how many a second, on 1 and 64 connections.

TLS with client certificates, RBAC, SQLite with every write durable before its answer, as in a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import load
from figures import KUBERNETES, Figure
from harness import ApiServer, memory_mb

# operation -> connections -> Kubernetes' (CPU ms for one, operations a second); ../../../peers in the table's README
PEER = {
    "GET": {1: (1.36, 862), 64: (0.81, 2175)},
    "POST": {1: (2.17, 520), 64: (1.33, 1305)},
    "PATCH": {1: (2.49, 461), 64: (1.64, 1086)},
    "PUT": {1: (2.18, 517), 64: (1.44, 1233)},
    "DELETE": {1: (2.68, 456), 64: (1.18, 1430)},
    "POST pod": {1: (2.67, 419), 64: (1.65, 994)},
}
COUNT = {1: 800, 64: 2000}


def requests(operation: str, connections: int, count: int) -> Iterator[bytes]:
    for i in range(count):
        name = f"c{connections}-{i}"
        path = f"{load.CONFIGMAPS}/{name}"
        match operation:
            case "GET" | "DELETE":
                yield load.request(operation, path)
            case "POST":
                yield load.request("POST", load.CONFIGMAPS, load.configmap(name))
            case "PATCH":
                yield load.request("PATCH", path, {"data": {"n": str(i)}}, "application/merge-patch+json")
            case "PUT":
                yield load.request("PUT", path, load.configmap(name) | {"data": {"payload": "y" * 1024}})
            case "POST pod":
                yield load.request("POST", load.PODS, load.pod(name))


async def _measure(server: ApiServer) -> list[Figure]:
    found = []
    await load.prepare(server)
    for operation in ("POST", "GET", "PATCH", "PUT", "DELETE", "POST pod"):
        for connections, count in COUNT.items():
            result = await load.drive(server, connections, list(requests(operation, connections, count)))
            peer_cpu, peer_rate = PEER[operation][connections]
            name = f"{operation}{'' if ' ' in operation else ' configmap'}, {connections} conn."
            note = f"{result} (Kubernetes {peer_rate:,}/s)"
            found.append(Figure(name, result.cpu_ms, "CPU ms", peer_cpu, peer_cpu, KUBERNETES, note))
    rss = memory_mb(server.pid)["Rss"]
    found.append(Figure("API server after that, RSS", rss, "MB", 300, note="peer: 1,270 MB + etcd, after more load"))
    return found


def figures() -> Iterator[Figure]:
    with ApiServer() as server:
        yield from load.run(_measure(server))
