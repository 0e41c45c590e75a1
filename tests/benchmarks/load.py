"""Load for an API server: raw HTTP/1.1 over TLS on asyncio, as little Python for each request as can be.

A `Connection` has one request under way; `drive` keeps some of them busy. It shares the machine with the server, so
the server's CPU for an operation says more than the rate. It is no HTTP client for anything else: it knows only
what our and Kubernetes' API servers answer with (Content-Length, or chunks).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from figures import median, quantile
from harness import ApiServer

CONFIGMAPS, PODS = "/api/v1/namespaces/bench/configmaps", "/api/v1/namespaces/bench/pods"


class Connection(asyncio.Protocol):
    """`await ask(request(…))` → (status, body). With `stream` set, the bytes of the answer go there instead."""

    def __init__(self) -> None:
        self.stream: Callable[[bytes], None] | None = None
        self._buffer = bytearray()
        self._need = -1  # bytes of head and body; -1: head not complete; 0: chunked
        self._head = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed by the server"))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.stream and self._need == 0:
            self.stream(data)
            return
        self._buffer += data
        if self._need < 0:
            self._head = self._buffer.find(b"\r\n\r\n") + 4
            if self._head < 4:
                return
            head = bytes(self._buffer[: self._head]).lower()
            if (at := head.find(b"content-length:")) >= 0:
                self._need = self._head + int(head[at + 15 : head.index(b"\r", at)])
            else:
                self._need = 0
                if self.stream:
                    self.stream(bytes(self._buffer[self._head :]))
                    self._buffer.clear()
                    self._finish(200, b"")
                    return
        if self._need > 0:
            if len(self._buffer) >= self._need:
                self._done(bytes(self._buffer[self._head :]))
        elif self._buffer.endswith(b"0\r\n\r\n"):
            self._done(bytes(self._buffer[self._head :]))

    def _done(self, body: bytes) -> None:
        status = int(self._buffer[9:12])
        self._buffer.clear()
        self._need = -1
        self._finish(status, body)

    def _finish(self, status: int, body: bytes) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result((status, body))


PROTOBUF = "application/vnd.kubernetes.protobuf"


def request(
    method: str, path: str, body: Any = None, kind: str = "application/json", accept: str = "application/json"
) -> bytes:
    """`body`: bytes as they are, anything else as JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\n"
    if data:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


async def connect(server: ApiServer, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    opened = (loop.create_connection(Connection, "127.0.0.1", server.port, ssl=server.tls) for _ in range(count))
    return [protocol for _, protocol in await asyncio.gather(*opened)]


@dataclass(frozen=True, slots=True)
class Result:
    rate: float  # operations a second
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the server, for one operation
    size: int  # bytes of the last answer

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


async def drive(server: ApiServer, connections: int, requests: Iterable[bytes]) -> Result:
    """Send all requests, as fast as the connections take them. Raises RuntimeError at the first refusal."""
    todo, times, size = iter(requests), [], 0
    opened = await connect(server, connections)

    async def work(connection: Connection) -> None:
        nonlocal size
        for raw in todo:
            begun = time.perf_counter()
            status, body = await connection.ask(raw)
            times.append((time.perf_counter() - begun) * 1e3)
            if status >= 300:
                raise RuntimeError(f"{raw[:80]!r}: {status} {body[:300]!r}")
            size = len(body)

    cpu, begun = server.cpu_s(), time.perf_counter()
    try:
        await asyncio.gather(*map(work, opened))
        wall, used = time.perf_counter() - begun, server.cpu_s() - cpu
    finally:
        for connection in opened:
            connection.close()
    return Result(len(times) / wall, median(times), quantile(times, 0.99), used / len(times) * 1e3, size)


def configmap(name: str) -> dict[str, Any]:
    """1 KiB of data: 1.3 KB as served (Kubernetes serves the same as 1.6 KB, with managedFields)."""
    labels = {"app": "bench"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels},
            "data": {"payload": "x" * 1024}}  # fmt: skip


def pod(name: str) -> dict[str, Any]:
    """About 2 KB as served, with what admission and defaults add."""
    env = [{"name": f"VARIABLE_{i}", "value": f"value-{i}"} for i in range(8)]
    probe = {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 10}
    container = {
        "name": "main", "image": "registry.example/app:1.2.3", "env": env, "readinessProbe": probe,
        "ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }  # fmt: skip
    metadata = {"name": name, "labels": {"app": "bench"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


async def prepare(server: ApiServer) -> None:
    """The namespace `bench` with the service account that pods need."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
    await drive(server, 1, [
        request("POST", "/api/v1/namespaces", namespace),
        request("POST", "/api/v1/namespaces/bench/serviceaccounts", account),
    ])  # fmt: skip


def run(main: Any) -> Any:
    """asyncio.run on uvloop: the driver should cost less than the server."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
