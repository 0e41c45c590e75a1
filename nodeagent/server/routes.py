"""What the agent serves, path by path.

    /healthz                                      alive (the only path without a certificate)
    /pods, /runningpods                           the pods it looks after
    /containerLogs/<ns>/<pod>/<container>         logs
    /exec/<ns>/<pod>[/<uid>]/<container>          a command in a container, over WebSocket
    /attach/<ns>/<pod>[/<uid>]/<container>        a container's own streams
    /metrics, /stats/summary                      small: what the agent itself counts
    /portForward/<ns>/<pod>                       not yet

Paths and parameters are kubelet's (pkg/kubelet/server/server.go), because API servers expect them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from controlplane.api.status import StatusError, bad_request, internal, method_not_allowed, not_found
from nodeagent.pods.manager import PodManager
from nodeagent.pods.model import LABEL_UID
from nodeagent.pods.node import NodeFacts
from nodeagent.runtime.interface import ContainerState, ContainerStatus, ExecSession, Runtime, RuntimeFailure
from nodeagent.server import logs, stats, streams, websocket
from nodeagent.server.auth import Authorizer
from nodeagent.server.http import Request, Response


@dataclass(slots=True)
class Routes:
    """The handler of `http.Server`. `healthy()`: empty, or what is wrong."""

    node: NodeFacts
    runtime: Runtime
    pods: PodManager
    authorizer: Authorizer
    healthy: Callable[[], str] = lambda: ""
    _routes: dict[str, Callable[[Request, list[str]], Awaitable[Response]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._routes = {
            "pods": self._pods,
            "runningpods": self._pods,
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
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

    async def _logs(self, request: Request, rest: list[str]) -> Response:
        if len(rest) != 3:
            raise bad_request("expected /containerLogs/<namespace>/<pod>/<container>")
        namespace, pod, name = rest
        options = logs.LogOptions.of(request)
        found = await self._instances(namespace, pod, "", name)
        if options.previous:
            found = found[1:]
        if not found:
            raise bad_request(self._why_no_log(namespace, pod, name, previous=options.previous))
        container = found[0]
        if not options.follow:
            return Response(stream=logs.read(container.log_path, options, _over), content_type=_TEXT)

        async def ended() -> bool:
            try:
                now = await self.runtime.container_status(container.id)
            except RuntimeFailure:
                return True
            return now.state in (ContainerState.EXITED, ContainerState.UNKNOWN)

        return Response(stream=logs.read(container.log_path, options, ended), content_type=_TEXT)

    def _why_no_log(self, namespace: str, pod: str, name: str, *, previous: bool) -> str:
        if previous:
            return f'previous terminated container "{name}" in pod "{pod}" not found'
        worker = self.pods.find(namespace, pod)
        status = (worker is not None and self.pods.status(worker.want.uid)) or {}
        entries = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
        waiting = next((e["state"].get("waiting") for e in entries if e["name"] == name), None) or {}
        return f'container "{name}" in pod "{pod}" is waiting to start: {waiting.get("reason", "ContainerCreating")}'

    async def _exec(self, request: Request, rest: list[str]) -> Response:
        command = list(request.query.get("command") or ())
        if not command:
            raise bad_request("you must specify at least 1 command for the container")
        tty, stdin = request.flag("tty"), request.flag("input", "stdin")
        container = await self._running(rest)

        async def begin() -> ExecSession:
            return await self.runtime.exec(container.id, command, tty=tty, stdin=stdin)

        return await self._stream(request, begin, stdin=stdin, tty=tty)

    async def _attach(self, request: Request, rest: list[str]) -> Response:
        container = await self._running(rest)
        tty, stdin = request.flag("tty"), request.flag("input", "stdin")

        async def begin() -> ExecSession:
            return await self.runtime.attach(container.id)

        return await self._stream(request, begin, stdin=stdin, tty=tty)

    async def _stream(
        self, request: Request, begin: Callable[[], Awaitable[ExecSession]], *, stdin: bool, tty: bool
    ) -> Response:
        stdout, stderr = request.flag("output", "stdout"), request.flag("error", "stderr") and not tty
        if not (stdin or stdout or stderr):
            raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
        if not websocket.wanted(request):
            raise bad_request("unable to upgrade: only WebSocket is served here")
        socket = await websocket.WebSocket.accept(request, streams.PROTOCOLS)
        try:
            session = await begin()
        except RuntimeFailure as failure:
            await streams.refuse(socket, f"error executing command in container: {failure}")
        else:
            await streams.pump(socket, session, stdin=stdin, stdout=stdout, stderr=stderr)
        return Response(taken=True)

    async def _port_forward(self, request: Request, rest: list[str]) -> Response:
        raise StatusError(501, "NotImplemented", "port forwarding is not served yet")

    async def _metrics(self, request: Request, rest: list[str]) -> Response:
        return Response(200, stats.metrics(self.pods).encode(), "text/plain; version=0.0.4")

    async def _stats(self, request: Request, rest: list[str]) -> Response:
        return Response(200, msgspec.json.encode(stats.summary(self.node, self.pods)))

    async def _running(self, rest: list[str]) -> ContainerStatus:
        if len(rest) not in (3, 4):
            raise bad_request("expected <namespace>/<pod>[/<uid>]/<container>")
        namespace, pod, name = rest[0], rest[1], rest[-1]
        found = await self._instances(namespace, pod, rest[2] if len(rest) == 4 else "", name)
        if not found or found[0].state is not ContainerState.RUNNING:
            raise bad_request(f'container "{name}" in pod "{pod}" is not running')
        return found[0]

    async def _instances(self, namespace: str, pod: str, uid: str, name: str) -> list[ContainerStatus]:
        """The instances of a container, newest first. Raises StatusError (404) for an unknown pod or container."""
        worker = self.pods.find(namespace, pod, uid)
        if worker is None:
            raise not_found("pods", pod)
        if worker.want.container(name) is None:
            raise not_found("containers", name)
        try:
            everything = [
                c
                for c in await self.runtime.containers()
                if c.labels.get(LABEL_UID) == worker.want.uid and c.name == name
            ]
        except RuntimeFailure as failure:
            raise internal(str(failure)) from failure
        return sorted(everything, key=lambda c: (c.attempt, c.created_at), reverse=True)


async def _over() -> bool:
    return True


_TEXT = "text/plain; charset=utf-8"
