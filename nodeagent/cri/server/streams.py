"""exec, attach and port-forward by CRI: what was asked for waits behind a URL with a token that works once.

The URL is of a small HTTP server on 127.0.0.1, which speaks what the agent's own does (nodeagent/server): the client,
mostly a kubelet for somebody else, connects to it with SPDY or WebSocket. A token is 128 random bits and lives a
minute.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from socket import socket as Socket

from controlplane.api.status import StatusError
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.cri.server import memory
from nodeagent.cri.server.containers import Containers
from nodeagent.cri.server.pods import Pods
from nodeagent.runtime.interface import ExecSession, Runtime, RuntimeFailure, SandboxState
from nodeagent.server import streaming
from nodeagent.server.http import Request, Response, Server
from nodeagent.server.remotecommand import Options

TOKEN_LIFE_S = 60.0
_MOST_TOKENS = 1000
_LONGEST_OUTPUT = 16 * 1024 * 1024 - 4096  # of ExecSync: the CRI's largest message, less the rest of it

Serve = Callable[[Request], Awaitable[Response]]


class Streams:
    def __init__(self, runtime: Runtime, pods: Pods, containers: Containers) -> None:
        self._runtime, self._pods, self._containers = runtime, pods, containers
        self._waiting: dict[str, tuple[Serve, asyncio.TimerHandle]] = {}
        self._server = Server(self._arrived)
        self._port = 0

    async def listen(self) -> None:
        """Raises OSError."""
        self._port = await self._server.listen("127.0.0.1", 0, None)

    async def close(self) -> None:
        for _, timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        await self._server.close()

    # The CRI's methods.

    async def exec_sync(self, request: Message) -> Message:
        command, timeout_s = request["cmd"], request["timeout"]
        if not command:
            raise ValueError("ExecSync needs a command")
        found = await self._containers.running(request["container_id"])
        session = await self._runtime.exec(found.id, command, tty=False, stdin=False)
        output = {1: bytearray(), 2: bytearray()}
        try:
            async with asyncio.timeout(timeout_s if timeout_s > 0 else None):
                while (chunk := await session.read()) is not None:
                    kept = output[chunk[0]]
                    kept += chunk[1][: _LONGEST_OUTPUT // 2 - len(kept)]
                code = await session.wait()
        except TimeoutError:
            message = f'command "{" ".join(command)}" timed out after {timeout_s} s'
            raise GrpcError(Code.DEADLINE_EXCEEDED, message) from None
        finally:
            await session.close()
        return {"stdout": bytes(output[1]), "stderr": bytes(output[2]), "exit_code": code}

    async def exec(self, request: Message) -> Message:
        command = list(request["cmd"])
        if not command:
            raise ValueError("Exec needs a command")
        options = _options(request)
        found = await self._containers.running(request["container_id"])

        async def begin() -> ExecSession:
            return await self._runtime.exec(found.id, command, tty=options.tty, stdin=options.stdin)

        async def serve(arrived: Request) -> Response:
            return await streaming.remote(arrived, begin, options, streaming.EXEC_FAILED, command)

        return {"url": self._url("exec", serve)}

    async def attach(self, request: Message) -> Message:
        options = _options(request)
        found = await self._containers.running(request["container_id"])
        given = memory.recall(found.annotations, "ContainerConfig")
        if given is not None and given["tty"] != options.tty:
            raise ValueError("tty must be as the container was made")

        async def serve(arrived: Request) -> Response:
            return await streaming.remote(arrived, begin, options, streaming.ATTACH_FAILED, ())

        async def begin() -> ExecSession:
            return await self._runtime.attach(found.id)

        return {"url": self._url("attach", serve)}

    async def port_forward(self, request: Message) -> Message:
        sandbox = await self._pods.find(request["pod_sandbox_id"])
        if sandbox.state is not SandboxState.READY:
            raise GrpcError(Code.FAILED_PRECONDITION, f"sandbox {sandbox.id} is not ready")
        allowed = set(request["port"])
        if any(not 0 < port < 65536 for port in allowed):
            raise ValueError(f"ports {sorted(allowed)} must be between 1 and 65535")

        async def dial(port: int) -> Socket:
            if allowed and port not in allowed:
                raise RuntimeFailure(f"port {port} was not asked for")
            return await self._runtime.dial(sandbox.id, port)

        async def serve(arrived: Request) -> Response:
            name = f"{sandbox.identity.name}_{sandbox.identity.namespace}"
            return await streaming.forward(arrived, dial, name, sandbox.identity.uid)

        return {"url": self._url("portforward", serve)}

    # The server behind the URLs.

    def _url(self, kind: str, serve: Serve) -> str:
        if len(self._waiting) >= _MOST_TOKENS:
            raise GrpcError(Code.RESOURCE_EXHAUSTED, "maximum number of in-flight requests exceeded")
        token = secrets.token_urlsafe(16)
        timer = asyncio.get_running_loop().call_later(TOKEN_LIFE_S, self._waiting.pop, token, None)
        self._waiting[token] = serve, timer
        return f"http://127.0.0.1:{self._port}/{kind}/{token}"

    async def _arrived(self, request: Request) -> Response:
        token = request.path.rpartition("/")[2]
        found = self._waiting.pop(token, None)
        if found is None:
            raise StatusError(404, "NotFound", "404 page not found: the token is unknown, used or too old")
        serve, timer = found
        timer.cancel()
        return await serve(request)


def _options(request: Message) -> Options:
    """Raises ValueError."""
    if request["tty"] and request["stderr"]:
        raise ValueError("tty and stderr cannot both be true: a terminal has one output")
    if not (request["stdin"] or request["stdout"] or request["stderr"]):
        raise ValueError("one of stdin, stdout, or stderr must be set")
    return Options(request["stdin"], request["stdout"], request["stderr"], request["tty"])
