"""Passing a request on to the server of an aggregated API, and its answer back as it comes.

Who asks is said in headers (X-Remote-User and so on), which the other server believes because of our client
certificate. Source: k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go.
"""

import base64
import logging
import ssl
from collections.abc import AsyncGenerator
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from controlplane.api import status
from controlplane.apiserver import backends
from controlplane.apiserver.aggregation.apiservices import Backend
from controlplane.apiserver.http import Request, Response, User
from controlplane.store.cache import WatchCache

log = logging.getLogger(__name__)
_NOT_PASSED = frozenset((
    "authorization", "connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "te", "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip
_NOT_RETURNED = _NOT_PASSED | {"content-type", "date", "server"}
_CONNECT_S = 10


class Relay:
    """`certificate`, `key`: what we show, as paths of PEM files."""

    def __init__(self, cache: WatchCache, certificate: str, key: str) -> None:
        self._cache = cache
        self._files = certificate, key
        self._sessions: dict[tuple[str, bool], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def forward(self, request: Request, backend: Backend) -> Response:
        """Raises StatusError 503 if nobody answers."""
        path = quote(request.path, safe="/:@!$&'()*+,;=~-._")
        target = f"{path}?{request.query_string}" if request.query_string else path
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _NOT_PASSED and not name.lower().startswith("x-remote-")
        )
        answer = await self._send(request.method, backend, target, request.user, headers, request.body, None)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_RETURNED}

        async def chunks() -> AsyncGenerator[bytes, None]:
            try:
                async for chunk in answer.content.iter_any():
                    yield chunk
            except aiohttp.ClientError as error:
                log.info("stream of apiservice=%s ended error=%r", backend.name, error)
            finally:
                answer.close()

        kind = answer.headers.get("Content-Type", "application/json")
        return Response(answer.status, content_type=kind, headers=kept, stream=chunks())

    async def get(self, backend: Backend, path: str, user: User, accept: str, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of one document. Raises StatusError 503."""
        headers = CIMultiDict({"Accept": accept})
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        answer = await self._send("GET", backend, path, user, headers, b"", timeout)
        try:
            return answer.status, await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise status.service_unavailable(f"error trying to reach service: {error}") from error
        finally:
            answer.release()

    async def _send(
        self, method: str, backend: Backend, target: str, user: User, headers: CIMultiDict[str], body: bytes,
        timeout: aiohttp.ClientTimeout | None,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        headers["X-Remote-User"] = user.name
        for group in user.groups:
            headers.add("X-Remote-Group", group)
        if user.uid:
            headers["X-Remote-Uid"] = user.uid
        for key, values in user.extra.items():
            for value in values:
                headers.add(f"X-Remote-Extra-{quote(key, safe='')}", value)
        headers["Host"] = backend.host
        address, port = backends.endpoint(self._cache, backend.namespace, backend.service, str(backend.port))
        where = f"[{address}]" if ":" in address else address
        try:
            return await self._session(backend).request(
                method, URL(f"https://{where}:{port}{target}", encoded=True), headers=headers, data=body or None,
                allow_redirects=False, server_hostname=backend.host,
                timeout=timeout or aiohttp.ClientTimeout(total=None, connect=_CONNECT_S),
            )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = f"error trying to reach service: {error or type(error).__name__}"
            raise status.service_unavailable(text) from error

    def _session(self, backend: Backend) -> aiohttp.ClientSession:
        key = backend.bundle, backend.insecure
        session = self._sessions.get(key)
        if session is None:
            if backend.bundle:
                context = ssl.create_default_context(cadata=base64.b64decode(backend.bundle).decode())
            else:
                context = ssl.create_default_context()
            if backend.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(*self._files)
            connector = aiohttp.TCPConnector(ssl=context, limit=0)
            session = self._sessions[key] = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return session
