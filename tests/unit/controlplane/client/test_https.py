"""The transport against a small TLS server that answers by script."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.status import StatusError
from controlplane.client import Unreachable, credentials
from controlplane.client.https import HttpsTransport
from controlplane.client.resources import PODS
from controlplane.client.rest import Client
from pki import kubeconfig, profiles
from pki.authority import Authority

Handler = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A TLS server that wants client certificates. `handler(head, reader, writer)` answers each request."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = Authority.create(datetime.now(UTC) - timedelta(minutes=1))
        self.heads: list[str] = []
        self.connections = 0
        self.handler: Handler = answer(b"{}")
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        identity = self.ca.issue(profiles.APISERVER, datetime.now(UTC), names=["127.0.0.1"])
        cert, key, ca = (self.directory / n for n in ("server.crt", "server.key", "ca.crt"))
        cert.write_bytes(identity.certificate)
        key.write_bytes(identity.key)
        ca.write_bytes(self.ca.pem())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    def kubeconfig(self, ca: Authority | None = None) -> str:
        path = self.directory / "kubeconfig"
        identity = self.ca.issue(profiles.ADMIN, datetime.now(UTC))
        kubeconfig.write(path, f"https://127.0.0.1:{self.port}", (ca or self.ca).pem(), "admin", identity)
        return str(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                for line in head.split("\r\n"):
                    if line.lower().startswith("content-length:"):
                        await reader.readexactly(int(line.split(":")[1]))
                await self.handler(head, reader, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> Handler:
    async def handler(head: str, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    return handler


@pytest.fixture
async def server(tmp_path: Path):
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: Server):
    client = Client(HttpsTransport(credentials.from_kubeconfig(server.kubeconfig()), user_agent="t"), timeout=5)
    yield client
    await client.close()


async def test_requests_share_a_connection(server: Server, client: Client) -> None:
    server.handler = answer(b'{"kind":"Pod"}')
    for _ in range(5):
        assert await client.get(PODS, "p", "default") == {"kind": "Pod"}
    assert server.connections == 1
    assert server.heads[0].startswith("GET /api/v1/namespaces/default/pods/p HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_at_most_eight_connections(server: Server, client: Client) -> None:
    await asyncio.gather(*(client.get(PODS, f"p{i}", "default") for i in range(100)))
    assert server.connections <= 8
    assert len(server.heads) == 100


async def test_a_kept_connection_that_died_is_replaced(server: Server, client: Client) -> None:
    await client.get(PODS, "p", "default")
    server.cut()
    await client.get(PODS, "p", "default")
    server.cut()
    await asyncio.sleep(0.01)  # let the end of the connection arrive: a POST must not be sent into it
    await client.create(PODS, {"metadata": {"name": "p", "namespace": "default"}})
    assert server.connections == 3


async def test_a_status_becomes_an_error(server: Server, client: Client) -> None:
    server.handler = answer(b'{"kind":"Status","code":404,"reason":"NotFound","message":"gone"}', "404 Not Found")
    with pytest.raises(StatusError, match="gone") as caught:
        await client.get(PODS, "p", "default")
    assert caught.value.code == 404
    server.handler = answer(b"<html>busy</html>", "502 Bad Gateway")
    with pytest.raises(StatusError, match="502: <html>"):
        await client.get(PODS, "p", "default")


async def test_refused_for_now_is_asked_again(server: Server, client: Client) -> None:
    busy = answer(b"", "429 Too Many Requests", "Retry-After: 0\r\n")

    async def handler(head: str, reader: Any, writer: asyncio.StreamWriter) -> None:
        await (busy if len(server.heads) < 3 else answer(b'{"ok":true}'))(head, reader, writer)

    server.handler = handler
    assert await client.create(PODS, {"metadata": {}}, "default") == {"ok": True}
    assert len(server.heads) == 3


async def test_a_watch_is_read_line_by_line_however_it_is_cut(server: Server, client: Client) -> None:
    events = b"".join(b'{"type":"ADDED","object":{"metadata":{"name":"p%d"}}}\n' % i for i in range(50))

    async def handler(head: str, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire = b"".join(b"%x\r\n%s\r\n" % (len(events[i : i + 7]), events[i : i + 7]) for i in range(0, len(events), 7))
        wire += b"0\r\n\r\n"
        for i in range(0, len(wire), 100):
            writer.write(wire[i : i + 100])
            await writer.drain()
            await asyncio.sleep(0)

    server.handler = handler
    got = [obj["metadata"]["name"] async for _, obj in client.watch(PODS, resource_version="1")]
    assert got == [f"p{i}" for i in range(50)]


async def test_a_silent_watch_and_a_late_answer_end(server: Server, client: Client) -> None:
    async def silent(head: str, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def deaf(head: str, reader: Any, writer: asyncio.StreamWriter) -> None:
        pass

    server.handler = silent
    with pytest.raises(Unreachable, match="nothing heard"):
        async for _ in client.watch(PODS, silence=0.05):
            pass
    server.handler = deaf
    with pytest.raises(Unreachable, match="no answer within"):
        await client.with_timeout(0.05).get(PODS, "p", "default")


async def test_a_server_of_another_authority_is_not_trusted(server: Server) -> None:
    config = server.kubeconfig(ca=Authority.create(datetime.now(UTC)))
    client = Client(HttpsTransport(credentials.from_kubeconfig(config)))
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await client.get(PODS, "p", "default")
    await client.close()


async def test_nobody_there(server: Server) -> None:
    client = Client(HttpsTransport(credentials.from_kubeconfig(server.kubeconfig())))
    await server.stop()
    with pytest.raises(Unreachable):
        await client.get(PODS, "p", "default")
    await client.close()


async def test_renewed_credentials_are_used_from_the_next_connection(server: Server, client: Client) -> None:
    await client.get(PODS, "p", "default")
    server.kubeconfig()  # written anew, with another key
    await client.get(PODS, "p", "default")
    assert server.connections == 2


async def test_a_token_file_is_sent_and_read_again(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    identity = credentials.from_kubeconfig(server.kubeconfig())
    identity.token_file = str(token)
    client = Client(HttpsTransport(identity))
    await client.get(PODS, "p", "default")
    token.write_text("second\n")
    client.reload()
    await client.get(PODS, "p", "default")
    assert "Authorization: Bearer " in server.heads[0]
    assert "first" in server.heads[0]
    await client.close()


async def test_bytes_that_are_not_http(server: Server, client: Client) -> None:
    async def handler(head: str, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    server.handler = handler
    with pytest.raises(Unreachable, match="not HTTP"):
        await client.get(PODS, "p", "default")
