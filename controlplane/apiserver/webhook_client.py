"""The HTTPS request to a webhook: where it is, whom to trust, how long to wait.

A webhook is a URL, or a Service: then one of its ready endpoints is dialled, under the Service's DNS name. What is
asked and what the answer means is the asker's: admission/dynamic/calls.py, customresources/conversion.py. Source:
k8s.io/apiserver/pkg/util/webhook.
"""

import base64
import ssl
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from controlplane.api.status import StatusError
from controlplane.apiserver import backends
from controlplane.store.cache import WatchCache

Object = dict[str, Any]
_ANSWER_LIMIT = 4 << 20


class CallFailed(Exception):
    """A webhook that could not be asked, or whose answer is none."""


class Caller:
    """Connections to webhooks, kept while they are in use."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def post(self, client: Object, body: Object, timeout_s: float) -> Object:
        """The JSON object that a clientConfig's webhook answers. Raises CallFailed."""
        try:
            url, shown, host = self._place(client)
        except StatusError as error:
            raise CallFailed(f"failed to call webhook: {error.message}") from None
        except ValueError as error:
            raise CallFailed(f"failed to call webhook: {error}") from None
        query = f"timeout={timeout_s:g}s"
        target = f"{url}&{query}" if "?" in url else f"{url}?{query}"
        told = f'failed to call webhook: Post "{shown}{"&" if "?" in shown else "?"}{query}"'
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "kube-apiserver"}
        more: dict[str, Any] = {}
        if host:
            headers["Host"] = host
            more["server_hostname"] = host
        try:
            session = self._session(client.get("caBundle") or "")
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with session.post(
                URL(target, encoded=True), data=msgspec.json.encode(body), headers=headers, timeout=timeout,
                allow_redirects=False, **more,
            ) as answer:  # fmt: skip
                text = await answer.content.read(_ANSWER_LIMIT + 1)
                code = answer.status
        except TimeoutError:
            raise CallFailed(f"{told}: context deadline exceeded") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallFailed(f"{told}: {_reason(error)}") from None
        if code >= 400 or code < 200:
            shown_text = text[:200].decode(errors="replace")
            raise CallFailed(f"failed to call webhook: the server responded with {code}: {shown_text}")
        if len(text) > _ANSWER_LIMIT:
            raise CallFailed("failed to call webhook: the answer is too large")
        try:
            decoded = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise CallFailed(f"failed to call webhook: couldn't get version/kind; json parse error: {error}") from None
        if not isinstance(decoded, dict):
            raise CallFailed("failed to call webhook: expected an object")
        return decoded

    def _place(self, client: Object) -> tuple[str, str, str]:
        """(URL to dial, URL to speak of, host name of a Service's certificate). Raises StatusError, ValueError."""
        if client.get("url"):
            if urlsplit(client["url"]).scheme != "https":
                raise ValueError(f"unable to load root certificates: {client['url']!r} is not https")
            return client["url"], client["url"], ""
        service = client.get("service")
        if not service:
            raise ValueError("webhook configuration must have either service or URL")
        name, namespace, port = service["name"], service["namespace"], int(service.get("port", 443))
        path = "/" + str(service.get("path") or "").lstrip("/")
        address, number = backends.endpoint(self._cache, namespace, name, str(port))
        host = f"{name}.{namespace}.svc"
        literal = f"[{address}]" if ":" in address else address
        return f"https://{literal}:{number}{path}", f"https://{host}:{port}{path}", host

    def _session(self, bundle: str) -> aiohttp.ClientSession:
        session = self._sessions.get(bundle)
        if session is None:
            context = ssl.create_default_context()
            if bundle:
                context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
            connector = aiohttp.TCPConnector(ssl=context, limit=100, keepalive_timeout=60)
            session = self._sessions[bundle] = aiohttp.ClientSession(connector=connector)
        return session


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        where = f"{error.host}:{error.port}"
        return f"dial tcp {where}: connect: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
