"""Two small HTTP servers that load balancers and people ask: is this proxy alive, and has a Service pods on this node?

    GET /healthz, /livez  on healthz_address       200 while rules are written in time, else 503
    GET /                 on a healthCheckNodePort  200 if the Service has local endpoints, else 503

Answers are kube-proxy's. It is plain HTTP, as in Kubernetes: who asks is a load balancer; it tells nothing secret.
It is not a web server: one request a connection, no keep-alive, bounded in size and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from controlplane import clock
from netproxy.model import ServiceName

log = logging.getLogger(__name__)
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}
_TIMEOUT_S = 5.0
Answer = tuple[int, dict[str, Any], dict[str, str]]
"""Status code, body, extra headers."""


class Health:
    """Whether the rules keep up: what is queued is written within `limit_s`."""

    def __init__(self, limit_s: float) -> None:
        self._limit = limit_s
        self._queued: float | None = None
        self._updated: float | None = None
        self._updated_wall = 0.0
        self.node_eligible = True  # False: the node is being deleted, load balancers should leave it

    def queued(self) -> None:
        """Something is waiting to be written."""
        if self._queued is None:
            self._queued = asyncio.get_running_loop().time()

    def updated(self) -> None:
        """Everything that was waiting is written."""
        self._queued = None
        self._updated = asyncio.get_running_loop().time()
        self._updated_wall = clock.wall_time()

    @property
    def waiting(self) -> bool:
        """Whether something is not written yet."""
        return self._updated is None or self._queued is not None

    @property
    def healthy(self) -> bool:
        if self._updated is None:
            return False
        return self._queued is None or asyncio.get_running_loop().time() - self._queued < self._limit

    def answer(self, path: str) -> Answer:
        """`/healthz` counts the node's eligibility in, `/livez` does not (restarting the proxy would not help)."""
        if path not in ("/healthz", "/livez"):
            return 404, {"error": "not found"}, {}
        good = self.healthy and (self.node_eligible or path == "/livez")
        body: dict[str, Any] = {
            "lastUpdated": clock.rfc3339(self._updated_wall),
            "currentTime": clock.rfc3339(),
            "nodeEligible": self.node_eligible,
        }
        return (200 if good else 503), body, {}


class ServiceHealth:
    """A server on each healthCheckNodePort, telling how many local endpoints its Service has."""

    def __init__(self, health: Health, host: str = "") -> None:
        """`host`: the address to listen on; empty: all (a load balancer comes from outside)."""
        self._health, self._host = health, host
        self._servers: dict[ServiceName, tuple[int, asyncio.Server]] = {}
        self._counts: dict[ServiceName, int] = {}

    async def sync(self, wanted: Mapping[ServiceName, tuple[int, int]]) -> None:
        """Serve exactly these: Service → (port, number of its local endpoints)."""
        for name in [n for n, (port, _) in self._servers.items() if n not in wanted or wanted[n][0] != port]:
            self._servers.pop(name)[1].close()
        self._counts = {name: count for name, (_, count) in wanted.items()}
        for name, (port, _) in wanted.items():
            if name not in self._servers:
                try:
                    self._servers[name] = (port, await serve(self._host, port, self._answer(name)))
                except OSError as error:
                    log.warning("health check port failed service=%s port=%d error=%r", name, port, str(error))

    async def close(self) -> None:
        await self.sync({})

    def _answer(self, name: ServiceName) -> Callable[[str], Answer]:
        def answer(_path: str) -> Answer:
            count = self._counts.get(name, 0)
            healthy = self._health.healthy
            body = {
                "service": {"namespace": name.namespace, "name": name.name},
                "localEndpoints": count,
                "serviceProxyHealthy": healthy,
            }
            return (200 if count and healthy else 503), body, {"X-Load-Balancing-Endpoint-Weight": str(count)}

        return answer


async def serve(host: str, port: int, answer: Callable[[str], Answer]) -> asyncio.Server:
    """Answer every GET on `host`:`port` with what `answer(path)` says. Raises OSError if the port is taken."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
                words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                path = words[1].split("?", 1)[0] if len(words) == 3 and words[0] == "GET" else ""
                code, body, headers = answer(path)
                content = json.dumps(body, separators=(",", ":")).encode()
                lines = [
                    f"HTTP/1.1 {code} {_REASONS[code]}",
                    "Content-Type: application/json",
                    "X-Content-Type-Options: nosniff",
                    f"Content-Length: {len(content)}",
                    "Connection: close",
                    *(f"{name}: {value}" for name, value in headers.items()),
                ]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(handle, host or None, port, limit=8192)
