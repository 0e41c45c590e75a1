"""Much of everything: a start with 100,000 objects, memory with 10,000 pods, 10,000 watches at once, and what a write
costs with all that around it.

The store of 100,000 objects is written directly, in the form in which the server wrote two that it was asked for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import load
from figures import Figure, median
from harness import ApiServer, memory_mb

from controlplane.store.sqlite import SqliteStore

OBJECTS, PODS, WATCHES = 100_000, 10_000, 10_000
HELD = 512  # writes under way at once while the store is filled
SECRETS = load.CONFIGMAPS.replace("configmaps", "secrets")


async def _examples(server: ApiServer) -> list[tuple[str, bytes]]:
    """A pod and a ConfigMap as the server stored them: (key, value) with the name `example`."""
    await load.prepare(server)
    made = []
    for path, obj in ((load.PODS, load.pod("example")), (load.CONFIGMAPS, load.configmap("example"))):
        await load.drive(server, 1, [load.request("POST", path, obj)])
    store = SqliteStore(server.store_file)
    server.stop()
    await store.open()
    for plural in ("pods", "configmaps"):
        record = await store.get(f"core/{plural}/bench/example")
        assert record is not None
        made.append((record.key, record.value))
    await store.close()
    return made


async def _fill(file: Path, examples: list[tuple[str, bytes]], count: int) -> None:
    """`count` objects more, as many of each."""
    store = SqliteStore(file)
    await store.open()
    names = iter(range(count // len(examples)))

    async def write() -> None:
        for i in names:
            for key, value in examples:
                uid = b'"uid":"%08x-' % i
                named = value.replace(b'"example"', b'"scale-%d"' % i, 1)
                at = named.index(b'"uid":"')
                await store.create(f"{key.removesuffix('example')}scale-{i}", named[:at] + uid + named[at + 16 :])

    await asyncio.gather(*(write() for _ in range(HELD)))
    await store.close()


def _start(server: ApiServer) -> Iterator[Figure]:
    examples = load.run(_examples(server))
    size = sum(len(value) for _, value in examples) * OBJECTS // len(examples)
    load.run(_fill(server.store_file, examples, OBJECTS))
    times, cpu = [], []
    for _ in range(3):
        server.start()
        times.append(server.ready_s)
        cpu.append(server.cpu_s())
        if len(times) < 3:
            server.stop()
    note = f"{size / 1e6:.0f} MB, half pods; median of 3; CPU {median(cpu):.2f} s"
    yield Figure(f"API server start → ready, {OBJECTS:,} objects", median(times), "s", aim=2.0, note=note)
    rss = memory_mb(server.pid)["Rss"]
    yield Figure(f"memory with {OBJECTS:,} objects", rss, "MB", note=f"{rss * 1e6 / size:.2f} times their bytes")


async def _writes(server: ApiServer, name: str, count: int = 2_000) -> load.Result:
    """ConfigMaps made by 64 connections."""
    made = (load.configmap(f"{name}-{i}") for i in range(count))
    return await load.drive(server, 64, [load.request("POST", load.CONFIGMAPS, each) for each in made])


async def _memory(server: ApiServer) -> Figure:
    await load.prepare(server)
    await load.drive(server, 16, (load.request("POST", load.PODS, load.pod(f"m-{i}")) for i in range(PODS)))
    stored = memory_mb(server.pid)["Rss"]
    result = await load.drive(server, 1, [load.request("GET", load.PODS)])
    listed = memory_mb(server.pid)["Rss"]
    note = f"{result.size / 1e6:.0f} MB of JSON; after a LIST of all {listed:.0f} MB"
    return Figure(f"memory with {PODS:,} pods made", stored, "MB", aim=150, note=note)


async def _watches(server: ApiServer) -> list[Figure]:
    """All watch the Secrets; one is written, then many ConfigMaps, which they do not watch."""
    before, _ = memory_mb(server.pid)["Rss"], await _writes(server, "warm")
    alone = await _writes(server, "alone")
    watchers: list[load.Connection] = []
    begun, cpu = time.perf_counter(), server.cpu_s()
    heard = 0
    everybody = asyncio.Event()

    def listen(data: bytes) -> None:
        nonlocal heard
        heard += data.count(b'"type":"ADDED"')
        if heard >= WATCHES:
            everybody.set()

    query = f"{SECRETS}?watch=1&timeoutSeconds=600"
    for _ in range(WATCHES // 100):  # the listener's queue of connections is no longer than a thousand
        some = await load.connect(server, 100)
        for each in some:
            each.stream = listen
        await asyncio.gather(*(each.ask(load.request("GET", query)) for each in some))
        watchers += some
    opened, opened_cpu = time.perf_counter() - begun, server.cpu_s() - cpu
    grown = memory_mb(server.pid)["Rss"] - before
    [writer] = await load.connect(server, 1)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "told"}, "data": {"payload": "eA=="}}
    begun, cpu = time.perf_counter(), server.cpu_s()
    status, body = await writer.ask(load.request("POST", SECRETS, secret))
    if status != 201:
        raise RuntimeError(f"POST: {status} {body[:300]!r}")
    async with asyncio.timeout(60):
        await everybody.wait()
    told, told_cpu = time.perf_counter() - begun, server.cpu_s() - cpu
    beside = await _writes(server, "beside")
    for each in (*watchers, writer):
        each.close()
    return [
        Figure(f"{WATCHES:,} watches: memory of one", grown / WATCHES * 1e3, "kB",
               note=f"TLS; opened in {opened:.1f} s, CPU {opened_cpu / WATCHES * 1e3:.2f} ms each"),
        Figure(f"{WATCHES:,} watches: all told of one write", told, "s",
               note=f"{told_cpu / WATCHES * 1e3:.4f} CPU ms each"),
        Figure(f"{WATCHES:,} watches: write of another kind", beside.cpu_ms, "CPU ms", aim=1.3 * alone.cpu_ms,
               note=f"{alone.cpu_ms:.3f} ms without watches; aim: no more, with room for noise"),
    ]  # fmt: skip


async def _among_many(server: ApiServer) -> Figure:
    many = await _writes(server, "many")
    p99 = f"{many}; {OBJECTS:,} objects are there"
    return Figure("POST configmap among 100,000", many.cpu_ms, "CPU ms", note=p99)


def figures() -> Iterator[Figure]:
    with ApiServer() as server:
        yield load.run(_memory(server))
    with ApiServer() as server:
        yield from _start(server)
        yield load.run(_among_many(server))
        yield from load.run(_watches(server))


if __name__ == "__main__":
    for figure in figures():
        print(json.dumps(figure.dump()))
