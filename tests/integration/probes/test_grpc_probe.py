"""gRPC probes against Google's own gRPC server and health service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from nodeagent.pods import grpcprobe, handlers
from nodeagent.runtime.fake import FakeRuntime


@pytest.fixture
async def served() -> AsyncIterator[tuple[int, Any]]:
    """A server's port and its health service."""
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port, servicer
    await server.stop(None)


async def probe(port: int, service: str = "", timeout_s: float = 5.0) -> handlers.Result:
    target = handlers.Target(FakeRuntime(), "c", {}, "127.0.0.1")
    return await handlers.run({"grpc": {"port": port, "service": service}}, target, timeout_s)


@pytest.mark.parametrize("name", ["", "a", "a.long.Service" * 20])
async def test_it_follows_what_the_server_says(served, name) -> None:
    port, servicer = served
    await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    assert await probe(port, name) == handlers.Result(True, "service healthy")
    await servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert await probe(port, name) == handlers.Result(False, 'service unhealthy (responded with "NOT_SERVING")')


async def test_a_service_that_it_does_not_know(served) -> None:
    result = await probe(served[0], "nobody")
    assert not result.ok and result.output.startswith("error: health rpc probe failed: ")


async def test_a_server_without_health() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    result = await probe(port)
    await server.stop(None)
    assert not result.ok and "does not implement the grpc health protocol" in result.output


@pytest.mark.parametrize("words", [b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 100, b""])
async def test_what_is_no_grpc_server(words) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    result = await probe(server.sockets[0].getsockname()[1])
    server.close()
    assert not result.ok and result.output


async def test_nobody_listens_and_nobody_answers() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    slow = await probe(port, timeout_s=0.05)
    assert slow.output == f'timeout: failed to connect service "127.0.0.1:{port}" within 0.05s'
    await gone.wait()
    server.close()
    refused = await probe(port)
    assert not refused.ok and "connection refused" in refused.output


def test_a_long_name_has_a_long_length() -> None:
    name = "x" * 300
    assert health_pb2.HealthCheckRequest.FromString(grpcprobe._request(name)[5:]).service == name
