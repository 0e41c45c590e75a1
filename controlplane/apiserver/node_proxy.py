"""Requests that others must answer: a node's agent (logs, exec, attach, port-forward, nodes/proxy) or a pod itself.

The agent's certificate is verified against the kubelet CA; we show our own client certificate. Answers are relayed as
they come; upgraded connections are node_upgrade's, and where a pod or Service is, backends'.
"""

import logging
import ssl
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from controlplane.api import status
from controlplane.apiserver import backends, logoptions, node_upgrade
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import WatchCache

log = logging.getLogger(__name__)
Object = dict[str, Any]
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_PROXIED = ("Accept", "Accept-Language", "Content-Type", "Range", "If-None-Match", "If-Modified-Since", "User-Agent")


class NodeProxy:
    """`certificate`, `key`: what we show to agents; `authority`: the CA that signed theirs. Paths of PEM files."""

    def __init__(self, cache: WatchCache, certificate: str, key: str, authority: str) -> None:
        self._cache = cache
        self._files = certificate, key, authority
        self._context: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self._stranger: ssl.SSLContext | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def reload(self) -> None:
        """Read the certificates again at the next request. What is being streamed goes on."""
        self._context = None

    async def connect(self, request: Request, info: RequestInfo) -> Response:
        """Raises StatusError 400, 404, 502."""
        if info.subresource == "proxy" and info.resource in ("pods", "services"):
            url = backends.locate(self._cache, info)
            return await self._plain(request, f"{url}/{info.rest}", self._nobody(), relay_errors=True)
        if info.resource == "nodes":
            name, _, _ = info.name.partition(":")
            return await self._plain(request, f"{self._agent(name)}/{info.rest}", self._tls(), relay_errors=True)
        pod = self._pod(info)
        node = self._agent(pod["spec"]["nodeName"])
        if info.subresource == "portforward":
            pairs = [("port", port) for port in request.query_lists.get("ports", ())]
            return await self._stream(request, node, f"/portForward/{info.namespace}/{info.name}?{urlencode(pairs)}")
        container = self._container(pod, request.query.get("container", ""), info.name)
        path = f"{info.namespace}/{info.name}/{container}"
        if info.subresource == "log":
            query = urlencode(logoptions.chosen(request.query, info.name))
            return await self._plain(request, f"{node}/containerLogs/{path}?{query}", self._tls())
        return await self._stream(request, node, f"/{info.subresource}/{path}?{_exec_query(request)}")

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

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            certificate, key, authority = self._files
            self._context = ssl.create_default_context(cafile=authority)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context.load_cert_chain(certificate, key)
        return self._context

    def _nobody(self) -> ssl.SSLContext:
        """For pods: any user's choice of address, so nothing is shown to them (an agent would obey), and nothing is
        known to verify them by."""
        if self._stranger is None:
            self._stranger = ssl.create_default_context()
            self._stranger.check_hostname = False
            self._stranger.verify_mode = ssl.CERT_NONE
        return self._stranger

    async def _plain(
        self, request: Request, target: str, context: ssl.SSLContext, *, relay_errors: bool = False
    ) -> Response:
        """Relay a request and its answer as it comes. `relay_errors`: an error is the backend's own answer."""
        if relay_errors and request.query_string:
            target += f"?{request.query_string}"
        headers = {name: request.headers[name] for name in _PROXIED if name in request.headers} if relay_errors else {}
        if self._session is None:
            self._session = _session()
        try:
            # Connections are kept by their context: after a reload new ones are made, the old ones end by themselves.
            answer = await self._session.request(
                request.method, URL(target, encoded=True), data=request.body or None, headers=headers, ssl=context,
                allow_redirects=False,
            )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(error) from error
        if answer.status >= 400 and not relay_errors:
            text = (await answer.text(errors="replace")).strip()
            answer.release()
            raise _refusal(answer.status, text)

        async def chunks() -> AsyncGenerator[bytes, None]:
            try:
                async for chunk in answer.content.iter_any():
                    yield chunk
            except aiohttp.ClientError as error:
                log.info("stream from a node ended error=%r", error)
            finally:
                answer.close()

        kind = answer.headers.get("Content-Type", "text/plain")
        kept = {name: answer.headers[name] for name in ("Location", "Content-Encoding") if name in answer.headers}
        return Response(answer.status, content_type=kind, headers=kept, stream=chunks())

    async def _stream(self, request: Request, node: str, target: str) -> Response:
        """Relay an upgraded connection. What the node refuses is relayed, too, as plain text: so does Kubernetes, and
        kubectl puts its own words before it."""
        if not node_upgrade.wanted(request):
            raise status.bad_request("Upgrade request required")
        url = URL(node)
        try:
            answer = await node_upgrade.dial(request, url.host or "", url.port or 10250, target, self._tls())
        except (OSError, TimeoutError) as error:
            raise _unreachable(error) from error
        if answer.takeover is None:
            return Response(answer.status, answer.body.encode(), content_type="text/plain; charset=utf-8")
        return Response(101, takeover=answer.takeover)


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, connect=10)
    jar = aiohttp.DummyCookieJar()  # one session for everybody
    return aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=jar)


def _exec_query(request: Request) -> str:
    """The API's stdin, stdout, stderr are the agent's input, output, error."""
    pairs = [("command", word) for word in request.query_lists.get("command", ())]
    for ours, theirs in (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")):
        if request.flag(ours):
            pairs.append((theirs, "1"))
    return urlencode(pairs, quote_via=quote)


_REASONS = {400: "BadRequest", 403: "Forbidden", 429: "TooManyRequests", 501: "NotImplemented"}


def _refusal(code: int, text: str) -> status.StatusError:
    if code == 404:
        return status.StatusError(404, "NotFound", text)
    if code in _REASONS:
        return status.StatusError(code, _REASONS[code], text)
    return status.internal(f"the node answered {code}: {text}")


def _unreachable(error: BaseException) -> status.StatusError:
    return status.StatusError(502, "BadGateway", f"error dialing the node: {error or type(error).__name__}")
