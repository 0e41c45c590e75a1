"""Requests that a node must answer: logs, exec, attach. Forwarded to the node agent's TLS server, both ways.

The agent's certificate is verified against the kubelet CA; we show our own client certificate. WebSocket messages are
relayed one by one with back-pressure (a slow reader slows the writer); logs are relayed as they come.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from controlplane.api import status
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import WatchCache

log = logging.getLogger(__name__)
Object = dict[str, Any]
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_LOG_PARAMETERS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")


class NodeProxy:
    """`certificate`, `key`: what we show to agents; `authority`: the CA that signed theirs. Paths of PEM files."""

    def __init__(self, cache: WatchCache, certificate: str, key: str, authority: str) -> None:
        self._cache = cache
        self._files = certificate, key, authority
        self._session: aiohttp.ClientSession | None = None
        self._closing: asyncio.Future[None] | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def reload(self) -> None:
        """Read the certificates again at the next request."""
        session, self._session = self._session, None
        if session is not None:
            self._closing = asyncio.ensure_future(session.close())

    async def connect(self, request: Request, info: RequestInfo) -> Response:
        """Raises StatusError 400, 404, 502."""
        if info.resource == "pods" and info.subresource in ("log", "exec", "attach"):
            pod = self._pod(info)
            container = self._container(pod, request.query.get("container", ""), info.name)
            base = self._agent(pod["spec"]["nodeName"])
            if info.subresource == "log":
                return await self._log(request, f"{base}/containerLogs/{info.namespace}/{info.name}/{container}")
            target = f"{base}/{info.subresource}/{info.namespace}/{info.name}/{container}"
            return await self._stream(request, target, _exec_query(request))
        if info.resource == "nodes" and info.subresource == "proxy":
            return await self._plain(request, f"{self._agent(info.name)}/{info.rest}")
        raise status.StatusError(501, "NotImplemented", f"{info.resource}/{info.subresource} is not served yet")

    # --- whom to ask ----------------------------------------------------------------------------------------------

    def _pod(self, info: RequestInfo) -> Object:
        cached = self._cache.get(f"core/pods/{info.namespace}/{info.name}")
        if cached is None:
            raise status.not_found("pods", info.name)
        if not cached.object["spec"].get("nodeName"):
            raise status.bad_request(f"pod {info.name} does not have a host assigned")
        return cached.object

    def _container(self, pod: Object, asked: str, name: str) -> str:
        spec = pod["spec"]
        kinds = ("containers", "initContainers", "ephemeralContainers")
        known = [c["name"] for kind in kinds for c in spec.get(kind) or ()]
        if not asked:
            asked = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER, "")
            if not asked and len(spec["containers"]) == 1:
                asked = spec["containers"][0]["name"]
            if not asked:
                choices = " ".join(c["name"] for c in spec["containers"])
                raise status.bad_request(
                    f"a container name must be specified for pod {name}, choose one of: [{choices}]"
                )
        if asked not in known:
            raise status.bad_request(f"container {asked} is not valid for pod {name}")
        return asked

    def _agent(self, node: str) -> str:
        cached = self._cache.get(f"core/nodes/{node}")
        if cached is None:
            raise status.not_found("nodes", node)
        state = cached.object.get("status", {})
        addresses = {a["type"]: a["address"] for a in state.get("addresses", ())}
        address = addresses.get("InternalIP") or addresses.get("Hostname")
        port = state.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port", 10250)
        if not address:
            raise status.service_unavailable(f"node {node} has no address")
        return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"

    # --- how ------------------------------------------------------------------------------------------------------

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            certificate, key, authority = self._files
            context = ssl.create_default_context(cafile=authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, key)
            connector = aiohttp.TCPConnector(ssl=context, limit=0)
            timeout = aiohttp.ClientTimeout(total=None, connect=10)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    async def _log(self, request: Request, target: str) -> Response:
        query = {name: request.query[name] for name in _LOG_PARAMETERS if name in request.query}
        return await self._plain(request, f"{target}?{urlencode(query)}")

    async def _plain(self, request: Request, target: str) -> Response:
        try:
            answer = await self._client().request(request.method, target, data=request.body or None)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(error) from error
        if answer.status >= 400:
            text = (await answer.text(errors="replace")).strip()
            answer.release()
            raise _refusal(answer.status, text)

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.content.iter_any():
                    yield chunk
            except aiohttp.ClientError as error:
                log.info("stream from a node ended error=%r", error)
            finally:
                answer.close()

        kind = answer.headers.get("Content-Type", "text/plain")
        return Response(answer.status, content_type=kind, stream=chunks())

    async def _stream(self, request: Request, target: str, query: str) -> Response:
        """Relay a WebSocket. The node chooses the subprotocol; what it refuses, the client is told."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise status.bad_request("Upgrade request required")
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        offered = [p for p in offered if not p.startswith("base64url.bearer.")]
        try:
            node = await self._client().ws_connect(
                f"{target}?{query}", protocols=offered, max_msg_size=0, autoclose=False, heartbeat=None
            )
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error.status, error.message) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(error) from error

        async def takeover(raw: web.BaseRequest) -> web.StreamResponse:
            client = web.WebSocketResponse(
                protocols=[node.protocol] if node.protocol else (), max_msg_size=0, autoclose=False
            )
            try:
                await client.prepare(raw)
                await _relay(client, node)
            finally:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await client.close()
                await node.close()
            return client

        return Response(101, takeover=takeover)


async def _relay(client: web.WebSocketResponse, node: aiohttp.ClientWebSocketResponse) -> None:
    """Both directions until either side ends."""

    async def pump(source: Any, sink: Any) -> None:
        async for message in source:
            if message.type is aiohttp.WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await sink.send_str(message.data)
            else:
                return

    up = asyncio.ensure_future(pump(client, node))
    down = asyncio.ensure_future(pump(node, client))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


def _exec_query(request: Request) -> str:
    """The API's stdin, stdout, stderr are the agent's input, output, error."""
    pairs = [("command", word) for word in request.query_lists.get("command", ())]
    for ours, theirs in (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")):
        if request.flag(ours):
            pairs.append((theirs, "1"))
    return urlencode(pairs, quote_via=quote)


def _refusal(code: int, text: str) -> status.StatusError:
    if code == 404:
        return status.StatusError(404, "NotFound", text)
    if code in (400, 403, 429):
        return status.StatusError(code, "BadRequest" if code == 400 else "Forbidden", text)
    return status.internal(f"the node answered {code}: {text}")


def _unreachable(error: BaseException) -> status.StatusError:
    return status.StatusError(502, "BadGateway", f"error dialing the node: {error or type(error).__name__}")
