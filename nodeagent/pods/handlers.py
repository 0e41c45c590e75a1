"""What probes and hooks do: run a command, ask over HTTP or gRPC, open a TCP connection. Small, and nothing kept open.

HTTP is spoken by hand over one connection (a client library would cost more than the question); redirects count as
success as their status does, TLS is not verified, as with kubelet (pkg/probe/http).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodeagent.pods import grpcprobe
from nodeagent.pods.model import Object
from nodeagent.runtime.interface import Runtime, RuntimeFailure

_LONGEST_ANSWER = 10 * 1024
USER_AGENT = "kube-probe/wherry"


@dataclass(frozen=True, slots=True)
class Result:
    ok: bool
    output: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a handler acts. `host`: the pod's address."""

    runtime: Runtime
    container_id: str
    container: Object
    host: str


async def run(handler: Object, target: Target, timeout_s: float) -> Result:
    """Carry out a probe's or hook's handler. Never raises but for cancellation."""
    try:
        async with asyncio.timeout(timeout_s):
            if (spec := handler.get("exec")) is not None:
                return await _exec(spec.get("command") or (), target)
            if (spec := handler.get("httpGet")) is not None:
                return await _http(spec, target)
            if (spec := handler.get("tcpSocket")) is not None:
                return await _tcp(spec, target)
            if (spec := handler.get("grpc")) is not None:
                return Result(*await grpcprobe.check(target.host, int(spec["port"]), spec.get("service") or ""))
            if (spec := handler.get("sleep")) is not None:
                await asyncio.sleep(float(spec.get("seconds") or 0))
                return Result(True)
    except TimeoutError:
        if "exec" in handler:
            return Result(False, f"command timed out after {timeout_s:g}s")
        if "grpc" in handler:
            where = f"{target.host}:{handler['grpc'].get('port')}"
            return Result(False, f'timeout: failed to connect service "{where}" within {timeout_s:g}s')
        return Result(False, "context deadline exceeded (timeout while awaiting an answer)")
    except ConnectionRefusedError:
        return Result(False, f"{_where(handler, target)}connect: connection refused")
    except (OSError, RuntimeFailure, ValueError, ssl.SSLError, asyncio.IncompleteReadError) as error:
        return Result(False, f"{_where(handler, target)}{error}")
    return Result(False, "unknown handler")


def _where(handler: Object, target: Target) -> str:
    """What was being asked, as kubelet's messages say it."""
    spec = handler.get("httpGet") or handler.get("tcpSocket") or handler.get("grpc")
    if not spec:
        return ""
    try:
        port = find_port(spec["port"], target.container)
    except ValueError:
        return ""
    dial = f"dial tcp {spec.get('host') or target.host}:{port}: "
    if "httpGet" not in handler:
        return dial
    scheme = (spec.get("scheme") or "HTTP").lower()
    return f'Get "{scheme}://{spec.get("host") or target.host}:{port}{spec.get("path") or "/"}": {dial}'


async def exec_output(runtime: Runtime, container_id: str, command: Sequence[str], limit: int) -> tuple[int, bytes]:
    """Exit code and the first `limit` bytes of output of a command inside a container."""
    session = await runtime.exec(container_id, command, tty=False, stdin=False)
    try:
        output = bytearray()
        while (chunk := await session.read()) is not None:
            if len(output) < limit:
                output += chunk[1][: limit - len(output)]
        return await session.wait(), bytes(output)
    finally:
        await session.close()


async def _exec(command: Sequence[str], target: Target) -> Result:
    code, output = await exec_output(target.runtime, target.container_id, command, _LONGEST_ANSWER)
    return Result(code == 0, output.decode("utf-8", "replace"))


async def _tcp(spec: Object, target: Target) -> Result:
    host, port = spec.get("host") or target.host, find_port(spec["port"], target.container)
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return Result(True)


async def _http(spec: Object, target: Target) -> Result:
    host, port = spec.get("host") or target.host, find_port(spec["port"], target.container)
    context: ssl.SSLContext | None = None
    if (spec.get("scheme") or "HTTP").upper() == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_LONGEST_ANSWER)
    try:
        path = spec.get("path") or "/"
        path = path if path.startswith("/") else "/" + path
        given = {h["name"].lower(): h["value"] for h in spec.get("httpHeaders") or ()}
        headers = {
            "host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "user-agent": USER_AGENT,
            "accept": "*/*",
        }
        headers |= given | {"connection": "close"}
        lines = "".join(f"{name.title()}: {value}\r\n" for name, value in headers.items() if value != "")
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        status_line = await reader.readline()
        words = status_line.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1][:3].isdigit():
            return Result(False, f"malformed HTTP response {status_line[:50]!r}")
        status = int(words[1][:3])
        if 200 <= status < 400:
            return Result(True)
        return Result(False, f"HTTP probe failed with statuscode: {status}")
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            transport: Any = writer.transport
            transport.abort()


def find_port(port: int | str, container: Object) -> int:
    """A port by number or by its name in the container's ports. Raises ValueError."""
    if isinstance(port, int):
        return port
    for entry in container.get("ports") or ():
        if entry.get("name") == port:
            return int(entry["containerPort"])
    if str(port).isdigit():
        return int(port)
    raise ValueError(f"couldn't find port: {port}")
