"""Streams through the API server and the node agent: exec, logs, copies, port-forward; what they cost in memory, and
whether others wait meanwhile.

The client is aiohttp (kubectl's own start would be most of an exec), and kubectl for port-forward. All of them share
the two cores with the cluster, so that rates are of client, API server, agent and shim together.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from figures import Figure, median, quantile
from harness import Lab, cpu_s, memory_mb

MB = 1_000_000
COPY_MB, LOG_MB, FORWARD_MB = 1000, 200, 200
EXECS = 40
NAMESPACE = "default"
LINES = b"".join(b"%09d %s\n" % (n, b"x" * 89) for n in range(100_000))  # 10 MB, every line another


def figures() -> Iterator[Figure]:
    with Lab() as lab:
        results = asyncio.run(_measure(lab))
        yield from results


class Cpu:
    """CPU seconds of some processes since it was made."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}

    def note(self, megabytes: float) -> str:
        """Per gigabyte."""
        used = {name: (cpu_s(pid) - self._before[name]) * 1000 / megabytes for name, pid in self._pids.items()}
        return "CPU s a GB: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.items())


class Client:
    """The API as an admin sees it."""

    def __init__(self, kubeconfig: str) -> None:
        document = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        pem = Path(kubeconfig + ".bench.pem")
        pem.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        context.load_cert_chain(pem)
        pem.unlink()
        self.http = aiohttp.ClientSession(cluster["server"], connector=aiohttp.TCPConnector(ssl=context, limit=0))

    async def pod(self, name: str, *command: str) -> None:
        container = {"name": "c", "image": "busybox:1.35", "command": list(command)}
        body = {
            "metadata": {"name": name},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
                     "nodeName": "node-2"},
        }  # fmt: skip
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        async with self.http.post(path, json=body) as answer:
            assert answer.status == 201, await answer.text()
        async with asyncio.timeout(30):
            while True:
                async with self.http.get(f"{path}/{name}") as answer:
                    if (await answer.json())["status"].get("phase") in ("Running", "Succeeded"):
                        return
                await asyncio.sleep(0.02)

    async def exec(self, pod: str, *command: str, stdin: AsyncIterator[bytes] | None = None) -> tuple[int, int]:
        """(bytes of output, exit code)."""
        query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
        if stdin is not None:
            query.append(("stdin", "true"))
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/exec"
        count, code = 0, -1
        async with self.http.ws_connect(
            path, params=query, protocols=["v5.channel.k8s.io"], max_msg_size=0
        ) as socket:  # fmt: skip

            async def feed() -> None:
                assert stdin is not None
                async for chunk in stdin:
                    await socket.send_bytes(b"\x00" + chunk)
                await socket.send_bytes(b"\xff\x00")

            feeding = asyncio.ensure_future(feed()) if stdin is not None else None
            async for message in socket:
                if message.data[0] == 3:
                    status = json.loads(message.data[1:])
                    code = 0 if status["status"] == "Success" else int(status["details"]["causes"][0]["message"])
                else:
                    count += len(message.data) - 1
            if feeding:
                await feeding
        return count, code

    async def output(self, pod: str, *command: str) -> str:
        """What a short command prints."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/exec"
        query = [("command", word) for word in command] + [("stdout", "true")]
        found = b""
        async with self.http.ws_connect(path, params=query, protocols=["v5.channel.k8s.io"]) as socket:
            async for message in socket:
                found += message.data[1:] if message.data[0] == 1 else b""
        return found.decode()

    async def log(self, pod: str) -> tuple[str, int]:
        """(sha256, bytes) of a followed log, to its end."""
        found, count = hashlib.sha256(), 0
        async with self.http.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/log?follow=true") as answer:
            async for chunk in answer.content.iter_any():
                found.update(chunk)
                count += len(chunk)
        return found.hexdigest(), count


async def _measure(lab: Lab) -> list[Figure]:
    status = lab.status()
    agent = next(p["pid"] for p in status["processes"] if p["component"] == "nodeagent" and p["node"] == "node-2")
    server = next(p["pid"] for p in status["processes"] if p["component"] == "apiserver")
    client = Client(status["kubeconfig"])
    try:
        await client.pod("bystander", "sleep", "3600")
        return [
            *await _execs(client),
            *await _logs(client, agent, server),
            *await _copies(client, agent, server),
            *await _forward(client, status["kubeconfig"], agent, server),
        ]
    finally:
        await client.http.close()


async def _execs(client: Client) -> list[Figure]:
    took = []
    for _ in range(EXECS):
        begun = time.perf_counter()
        assert (await client.exec("bystander", "true"))[1] == 0
        took.append((time.perf_counter() - begun) * 1000)
    return [
        Figure("exec of true through the API, median", median(took), "ms", note=f"p95 {quantile(took, 0.95):.1f} ms")
    ]


async def _logs(client: Client, agent: int, server: int) -> list[Figure]:
    """The same lines twice: written while nobody looks, and followed through the API while they are written."""
    rounds = LOG_MB * MB // len(LINES)
    loop = f"i=0; while [ $i -lt {rounds} ]; do cat /tmp/lines; i=$((i+1)); done"
    wait = "until [ -e /tmp/go ]; do sleep 0.05; done; sleep 1"
    timed = f"read a _ < /proc/uptime; {loop}; read b _ < /proc/uptime; echo $a $b > /tmp/took; sleep 1000"
    await client.pod("writer", "sh", "-c", f"{wait}; {timed}")
    await client.pod("logger", "sh", "-c", f"{wait}; {loop}")

    async def lines() -> AsyncIterator[bytes]:
        for start in range(0, len(LINES), 64 * 1024):
            yield LINES[start : start + 64 * 1024]

    for pod in ("writer", "logger"):
        assert (await client.exec(pod, "sh", "-c", "cat > /tmp/lines", stdin=lines()))[1] == 0
    assert (await client.exec("writer", "touch", "/tmp/go"))[1] == 0
    assert (await client.exec("writer", "sh", "-c", "until [ -s /tmp/took ]; do sleep 0.1; done"))[1] == 0
    begun_at, ended_at = map(float, (await client.output("writer", "cat", "/tmp/took")).split())

    before = memory_mb(agent)["Rss"]
    assert (await client.exec("logger", "touch", "/tmp/go"))[1] == 0
    begun, cpu = time.perf_counter(), Cpu(agent=agent, API_server=server)
    seen, count = await client.log("logger")
    seconds = time.perf_counter() - begun - 1
    expected = hashlib.sha256()
    for _ in range(rounds):
        expected.update(LINES)
    lost = rounds * len(LINES) - count
    assert lost or seen == expected.hexdigest()
    return [
        Figure("log written by a container", LOG_MB / max(ended_at - begun_at, 0.01), "MB/s", 100, more=True),
        Figure("log written and followed through the API", LOG_MB / seconds, "MB/s", more=True, note=cpu.note(LOG_MB)),
        Figure("log bytes lost", lost, "B", 0),
        Figure("agent's memory while following, growth", memory_mb(agent)["Rss"] - before, "MB", 16),
    ]


async def _copies(client: Client, agent: int, server: int) -> list[Figure]:
    """A gigabyte each way, while another pod's execs are timed."""
    block = os.urandom(64 * 1024)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(COPY_MB * MB // len(block)):
            yield block

    result = []
    peaks = {agent: memory_mb(agent)["Rss"], server: memory_mb(server)["Rss"]}
    before = dict(peaks)
    took: list[float] = []
    for direction, command, stdin in (
        ("in", ("sh", "-c", "cat > /dev/null"), source()),
        ("out", ("head", "-c", str(COPY_MB * MB), "/dev/zero"), None),
    ):
        begun, cpu = time.perf_counter(), Cpu(agent=agent, API_server=server)
        copy = asyncio.ensure_future(client.exec("bystander", *command, stdin=stdin))
        while not copy.done():
            started = time.perf_counter()
            await client.exec("bystander", "true")
            took.append((time.perf_counter() - started) * 1000)
            for pid in peaks:
                peaks[pid] = max(peaks[pid], memory_mb(pid)["Rss"])
            await asyncio.wait([copy], timeout=0.2)
        count, code = await copy
        assert code == 0 and count in (0, COPY_MB * MB)
        rate = COPY_MB / (time.perf_counter() - begun)
        result.append(Figure(f"copy of 1 GB {direction} by exec", rate, "MB/s", more=True, note=cpu.note(COPY_MB)))
    return [
        *result,
        Figure("agent's memory while copying, growth", peaks[agent] - before[agent], "MB", 16),
        Figure("API server's memory while copying, growth", peaks[server] - before[server], "MB", 16),
        Figure("exec of true meanwhile, median", median(took), "ms", note=f"worst {max(took):.0f} ms of {len(took)}"),
    ]


async def _forward(client: Client, kubeconfig: str, agent: int, server: int) -> list[Figure]:
    script = f"while true; do head -c {FORWARD_MB * MB} /dev/zero | nc -l -p 9000; done"
    await client.pod("target", "sh", "-c", script)
    before = memory_mb(agent)["Rss"]
    command = [str(Path(sys.executable).with_name("kubectl")), "port-forward", "target", ":9000"]
    process = subprocess.Popen(  # noqa: ASYNC220
        command, env={**os.environ, "KUBECONFIG": kubeconfig}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        line = await asyncio.to_thread(process.stdout.readline)
        found: Any = re.search(r":(\d+) ->", line)
        begun, cpu = time.perf_counter(), Cpu(agent=agent, API_server=server)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
        count = 0
        while count < FORWARD_MB * MB and (data := await reader.read(1 << 20)):
            count += len(data)
        rate = count / MB / (time.perf_counter() - begun)
        writer.close()
        assert count == FORWARD_MB * MB
    finally:
        process.terminate()
        process.wait(10)
    growth = memory_mb(agent)["Rss"] - before
    return [
        Figure("port-forward by kubectl, download", rate, "MB/s", more=True, note=cpu.note(FORWARD_MB)),
        Figure("agent's memory while forwarding, growth", growth, "MB", 16),
    ]
