"""The transport over HTTPS: a small pool of kept-alive connections, and a connection of its own for every stream.

At most `connections` requests are under way; further ones wait for a free connection in order, which costs less than
a TLS handshake each. A dead peer is noticed by the kernel (keep-alive probes and TCP_USER_TIMEOUT, about half a
minute) and by the caller's limits (`timeout`, `silence`). A GET on a kept connection that turns out to be closed is
repeated once; nothing else is, since it may have been carried out.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from controlplane.client.credentials import Credentials
from controlplane.client.errors import ConfigurationError, Unreachable
from controlplane.client.http1 import Connection
from controlplane.client.transport import Answer

CONNECT_SECONDS = 5.0
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


class HttpsTransport:
    """A `Transport` to the server that `credentials` name."""

    def __init__(self, credentials: Credentials, *, user_agent: str = "wherry", connections: int = 8) -> None:
        self._credentials = credentials
        url = urlsplit(credentials.server)
        if url.scheme not in ("https", "http") or not url.hostname:
            raise ConfigurationError(f"not a server URL: {credentials.server!r}")
        self._host = url.hostname
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._prefix = url.path.rstrip("/")
        self._fixed = f"Host: {url.netloc}\r\nUser-Agent: {user_agent}\r\nAccept: application/json\r\n"
        self._idle: list[tuple[Connection, ssl.SSLContext | None]] = []
        self._open: set[Connection] = set()
        self._free = connections
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def request(
        self, method: str, target: str, body: bytes = b"", *, content_type: str = "application/json", timeout: float
    ) -> Answer:
        try:
            async with asyncio.timeout(timeout), self._slot():
                return await self._request(method, target, body, content_type)
        except TimeoutError:
            raise Unreachable(f"{method} {self._host}:{self._port}: no answer within {timeout:g} s") from None

    async def _request(self, method: str, target: str, body: bytes, content_type: str) -> Answer:
        headers = self._headers() + (f"Content-Type: {content_type}\r\n" if body else "")
        while True:
            connection, context, fresh = await self._connection()
            try:
                connection.send(method, self._prefix + target, headers, body)
                status = await connection.read_head()
                answer = Answer(status, connection.headers, await connection.read_all())
            except Unreachable:
                if fresh or connection.heard or method != "GET":
                    raise
                continue  # the server had closed it while it was idle
            finally:
                if connection.idle and not self._closed:
                    self._idle.append((connection, context))
                else:
                    self._drop(connection)
            return answer

    async def stream(self, target: str, *, timeout: float, silence: float) -> "HttpsStream":
        try:
            async with asyncio.timeout(timeout):
                connection, _ = await self._connect()
                try:
                    connection.send("GET", self._prefix + target, self._headers(), b"")
                    status = await connection.read_head()
                except BaseException:
                    self._drop(connection)
                    raise
        except TimeoutError:
            raise Unreachable(f"{self._host}:{self._port}: no answer within {timeout:g} s") from None
        return HttpsStream(self, connection, status, connection.headers, silence)

    def reload(self) -> None:
        self._credentials.reload()

    async def close(self) -> None:
        self._closed = True
        for connection in list(self._open):
            self._drop(connection)
        self._idle.clear()
        await asyncio.sleep(0)  # one turn of the loop, in which the sockets close

    def _headers(self) -> str:
        token = self._credentials.bearer()
        return f"{self._fixed}Authorization: Bearer {token}\r\n" if token else self._fixed

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """The right to have a request under way; first come, first served."""
        if self._free > 0:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._hand_on()
                raise
        try:
            yield
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def _connection(self) -> tuple[Connection, ssl.SSLContext | None, bool]:
        """A connection that is ready to send, its TLS context, and whether it is new."""
        context = self._credentials.tls() if self._idle else None
        while self._idle:
            connection, used = self._idle.pop()
            if connection.idle and used is context:  # otherwise closed meanwhile, or made with old certificates
                return connection, context, False
            self._drop(connection)
        connection, context = await self._connect()
        return connection, context, True

    async def _connect(self) -> tuple[Connection, ssl.SSLContext | None]:
        if self._closed:
            raise Unreachable("the client is closed")
        context = self._credentials.tls()
        server_name = (self._credentials.server_name or self._host) if context else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=context, server_hostname=server_name
                )
        except TimeoutError:
            raise Unreachable(f"{self._host}:{self._port}: no connection within {CONNECT_SECONDS:g} s") from None
        except OSError as error:  # ssl.SSLError included
            raise Unreachable(f"{self._host}:{self._port}: {error}") from error
        sock = transport.get_extra_info("socket")
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
        self._open.add(connection)
        return connection, context

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()


class HttpsStream:
    """A `Stream` on a connection of its own."""

    def __init__(
        self, owner: HttpsTransport, connection: Connection, status: int, headers: Mapping[str, str], silence: float
    ) -> None:
        self.status, self.headers = status, headers
        self._owner, self._connection, self._silence = owner, connection, silence

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(self._silence):
                return await self._connection.read()
        except TimeoutError:
            raise Unreachable(f"nothing heard for {self._silence:g} s") from None

    def close(self) -> None:
        self._owner._drop(self._connection)
