"""exec, attach and port-forward: from an upgrade request to whoever speaks the protocol that the client wants.

Everything that can be refused is refused before the upgrade, while there is a status code to say it with: no command,
no such pod, a container that does not run. What fails later is said on the session's own error channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from controlplane.api.status import bad_request
from nodeagent.runtime.interface import ExecSession
from nodeagent.server import portforward, portforward_websocket, remote_spdy, remote_websocket, remotecommand, upgrade
from nodeagent.server.http import Request, Response
from nodeagent.server.lookup import Lookup
from nodeagent.server.portforward import Dial, PortForward
from nodeagent.server.remote_spdy import SpdyRemote
from nodeagent.server.remote_websocket import WebSocketRemote
from nodeagent.server.remotecommand import ClientLeft, Options
from nodeagent.server.websocket import WebSocket, wanted

Begin = Callable[[], Awaitable[ExecSession]]
EXEC_FAILED = "error executing command in container"
ATTACH_FAILED = "error attaching to container"


@dataclass(frozen=True, slots=True)
class Streaming:
    """The handlers. `rest` is the path behind /exec/, /attach/ or /portForward/."""

    lookup: Lookup

    async def exec(self, request: Request, rest: list[str]) -> Response:
        namespace, pod, uid, name = _names(rest)
        command = list(request.query.get("command") or ())
        options = _options(request, tty=request.flag("tty"))
        if not command:
            raise bad_request("you must specify at least 1 command for the container")
        container = await self.lookup.running(self.lookup.worker(namespace, pod, uid), name)

        async def begin() -> ExecSession:
            runtime = self.lookup.runtime
            return await runtime.exec(container.id, command, tty=options.tty, stdin=options.stdin)

        return await remote(request, begin, options, EXEC_FAILED, command)

    async def attach(self, request: Request, rest: list[str]) -> Response:
        namespace, pod, uid, name = _names(rest)
        worker = self.lookup.worker(namespace, pod, uid)
        wanted_container = worker.want.container(name)
        spec = wanted_container.spec if wanted_container else {}
        options = _options(request, tty=bool(spec.get("tty")))  # the container has a terminal or has none
        container = await self.lookup.running(worker, name)

        async def begin() -> ExecSession:
            return await self.lookup.runtime.attach(container.id)

        return await remote(request, begin, options, ATTACH_FAILED, ())

    async def port_forward(self, request: Request, rest: list[str]) -> Response:
        if len(rest) not in (2, 3):
            raise bad_request("expected /portForward/<namespace>/<pod>[/<uid>]")
        worker = self.lookup.worker(rest[0], rest[1], rest[2] if len(rest) == 3 else "")
        sandbox = await self.lookup.sandbox(worker)
        pod, uid = f"{rest[1]}_{rest[0]}", worker.want.uid

        async def dial(port: int) -> socket.socket:
            return await self.lookup.runtime.dial(sandbox.id, port)

        return await forward(request, dial, pod, uid)


async def forward(request: Request, dial: Dial, pod: str, uid: str) -> Response:
    """Upgrade, and serve connections to a pod's ports. `pod` and `uid` are for messages."""
    if not wanted(request):
        protocol = upgrade.negotiate(request, (portforward.PROTOCOL,))
        wire = upgrade.accept(request, protocol)
        await PortForward(wire, dial, pod, uid).run()
    elif portforward.TUNNEL in request.headers.get("sec-websocket-protocol", ""):
        tunnel = await WebSocket.accept(request, (portforward.TUNNEL,))
        await PortForward(tunnel, dial, pod, uid).run()
    else:
        ports = _ports(request)
        channels = await WebSocket.accept(request, portforward_websocket.PROTOCOLS)
        await portforward_websocket.serve(channels, ports, dial, pod, uid)
    return Response(taken=True)


async def remote(request: Request, begin: Begin, options: Options, doing: str, command: Sequence[str]) -> Response:
    """Upgrade, and serve a process's streams. Raises StatusError for what cannot be upgraded."""
    if wanted(request):
        channels = await WebSocket.accept(request, remote_websocket.PROTOCOLS)
        client = WebSocketRemote(channels, options)
        await client.greet()
        await remotecommand.serve(client, begin, options, doing, command)
        return Response(taken=True)
    protocol = upgrade.negotiate(request, remote_spdy.PROTOCOLS)
    streams = SpdyRemote(upgrade.accept(request, protocol), protocol, options)
    try:
        with contextlib.suppress(ClientLeft, TimeoutError):
            await streams.prepare()
            await remotecommand.serve(streams, begin, options, doing, command)
    finally:
        await asyncio.shield(streams.close())
    return Response(taken=True)


def _names(rest: list[str]) -> tuple[str, str, str, str]:
    """Namespace, pod, uid (or empty), container."""
    if len(rest) not in (3, 4):
        raise bad_request("expected <namespace>/<pod>[/<uid>]/<container>")
    return rest[0], rest[1], rest[2] if len(rest) == 4 else "", rest[-1]


def _options(request: Request, *, tty: bool) -> Options:
    """Raises StatusError (400)."""
    stdin, stdout = request.flag("input", "stdin"), request.flag("output", "stdout")
    stderr = request.flag("error", "stderr")
    if not (stdin or stdout or stderr):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return Options(stdin, stdout, stderr and not tty, tty)  # a terminal has one output


def _ports(request: Request) -> list[int]:
    """Raises StatusError (400)."""
    words = [word for value in request.query.get("port", ()) for word in value.split(",")]
    if not words:
        raise bad_request('query parameter "port" is required')
    for word in words:
        if not word.isdigit() or not 0 < int(word) < 65536:
            raise bad_request(f"invalid port {word!r}")
    return [int(word) for word in words]
