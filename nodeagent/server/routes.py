"""What the agent serves, path by path.

    /healthz                                      alive (the only path without a certificate)
    /pods, /runningpods                           the pods it looks after
    /containerLogs/<ns>/<pod>/<container>         logs
    /exec/<ns>/<pod>[/<uid>]/<container>          a command in a container
    /attach/<ns>/<pod>[/<uid>]/<container>        a container's own streams
    /portForward/<ns>/<pod>[/<uid>]               connections to a pod's localhost
    /stats/summary                                what node, pods and containers use (kubelet's Summary)
    /metrics, /metrics/resource, /metrics/cadvisor   for Prometheus: the agent, what autoscalers read, containers

Paths and parameters are kubelet's (pkg/kubelet/server/server.go), because API servers expect them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from controlplane import clock
from controlplane.api.status import StatusError, method_not_allowed
from nodeagent.machine import Machine
from nodeagent.pods.manager import PodManager
from nodeagent.pods.node import NodeFacts
from nodeagent.runtime.interface import Runtime
from nodeagent.server.auth import Authorizer
from nodeagent.server.http import Request, Response
from nodeagent.server.lookup import Lookup
from nodeagent.server.podlogs import PodLogs
from nodeagent.server.stats import exposition
from nodeagent.server.stats.sample import Sampler
from nodeagent.server.stats.summary import summary
from nodeagent.server.streaming import Streaming


@dataclass(slots=True)
class Routes:
    """The handler of `http.Server`. `healthy()`: empty, or what is wrong."""

    node: NodeFacts
    runtime: Runtime
    pods: PodManager
    authorizer: Authorizer
    machine: Machine
    healthy: Callable[[], str] = lambda: ""
    _routes: dict[str, Callable[[Request, list[str]], Awaitable[Response]]] = field(init=False)
    _sampler: Sampler = field(init=False)
    _started_at: float = field(default_factory=clock.wall_time)

    def __post_init__(self) -> None:
        lookup = Lookup(self.pods, self.runtime)
        self._sampler = Sampler(self.node, self.runtime, self.pods)
        streams = Streaming(lookup)
        self._routes = {
            "pods": self._pods,
            "runningpods": self._pods,
            "containerLogs": PodLogs(lookup),
            "exec": streams.exec,
            "attach": streams.attach,
            "portForward": streams.port_forward,
            "metrics": self._metrics,
            "stats": self._stats,
        }

    async def __call__(self, request: Request) -> Response:
        first, *rest = [p for p in request.path.split("/") if p] or [""]
        if first == "healthz":
            wrong = self.healthy()
            return Response(500 if wrong else 200, (wrong or "ok").encode(), "text/plain; charset=utf-8")
        await self.authorizer.check(request)
        route = self._routes.get(first)
        if route is None:
            raise StatusError(404, "NotFound", "404 page not found")
        if request.method not in ("GET", "POST", "HEAD"):
            raise method_not_allowed("nodes", request.method)
        return await route(request, rest)

    async def _pods(self, request: Request, rest: list[str]) -> Response:
        items = self.pods.pods()
        return Response(
            200, msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        )

    async def _metrics(self, request: Request, rest: list[str]) -> Response:
        if not rest:
            containers = await self.runtime.containers()
            text = exposition.agent(self.node.name, self.pods.pods(), containers, self._started_at)
        elif rest == ["resource"]:
            text = exposition.resources(await self._sampler.sample(disk=False))
        elif rest == ["cadvisor"]:
            text = exposition.cadvisor(await self._sampler.sample(disk=True), self.machine)
        else:
            raise StatusError(404, "NotFound", "404 page not found")
        return Response(200, text.encode(), exposition.CONTENT_TYPE)

    async def _stats(self, request: Request, rest: list[str]) -> Response:
        if rest not in ([], ["summary"]):
            raise StatusError(404, "NotFound", "404 page not found")
        sample = await self._sampler.sample(disk=not request.flag("only_cpu_and_memory"))
        return Response(200, msgspec.json.encode(summary(sample, started_at=self.machine.booted_at)))
