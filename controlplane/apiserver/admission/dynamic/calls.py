"""The HTTPS request to a webhook: where it is, whom to trust, how long to wait, and what its answer means.

A webhook is a URL, or a Service: then one of its ready endpoints is dialled, under the Service's DNS name. Source:
k8s.io/apiserver/pkg/util/webhook and plugin/webhook/request.
"""

import base64
import logging
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from controlplane.api.status import StatusError
from controlplane.apiserver import backends
from controlplane.store.cache import WatchCache

log = logging.getLogger(__name__)
Object = dict[str, Any]
_ANSWER_LIMIT = 4 << 20
_SUPPORTED = ("v1", "v1beta1")


class CallFailed(Exception):
    """A webhook that could not be asked, or whose answer is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A webhook's response."""

    allowed: bool
    status: Object
    patch: list[Any] | None
    warnings: list[str]
    annotations: dict[str, str]


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


def review(version: str, request: Object) -> Object:
    """The AdmissionReview to send."""
    return {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}


def version_for(hook: Object) -> str:
    """The first version of AdmissionReview that a webhook takes and we have. Raises CallFailed."""
    for version in hook.get("admissionReviewVersions") or ():
        if version in _SUPPORTED:
            return str(version)
    raise CallFailed("webhook does not accept known AdmissionReview versions (v1, v1beta1)")


def read(answer: Object, version: str, uid: str, *, may_patch: bool) -> Answer:
    """What a webhook's AdmissionReview says. Raises CallFailed."""
    wanted = f"admission.k8s.io/{version}"
    if version == "v1" and (answer.get("kind"), answer.get("apiVersion")) != ("AdmissionReview", wanted):
        given = f"{answer.get('apiVersion')}, Kind={answer.get('kind')}"
        raise CallFailed(
            "received invalid webhook response: expected webhook response of "
            f"{wanted}, Kind=AdmissionReview, got {given}"
        )
    response = answer.get("response")
    if not isinstance(response, dict):
        raise CallFailed("webhook response was absent")
    if version == "v1" and response.get("uid") != uid:
        raise CallFailed(
            f'received invalid webhook response: expected response.uid="{uid}", got "{response.get("uid", "")}"'
        )
    patch = None
    if response.get("patch"):
        if not may_patch:
            patch = None
        elif version == "v1" and response.get("patchType") != "JSONPatch":
            raise CallFailed(
                "received invalid webhook response: webhook returned response.patch but response.patchType is not "
                f'"JSONPatch": "{response.get("patchType", "")}"'
            )
        else:
            try:
                patch = msgspec.json.decode(base64.b64decode(response["patch"], validate=True), type=list[Any])
            except (ValueError, msgspec.DecodeError) as error:
                raise CallFailed(f"received undecodable patch in webhook response: {error}") from None
    result = response.get("status")
    return Answer(
        bool(response.get("allowed")),
        result if isinstance(result, dict) else {},
        patch,
        [str(each) for each in response.get("warnings") or ()],
        {str(key): str(value) for key, value in (response.get("auditAnnotations") or {}).items()},
    )
