"""`Client`: Kubernetes' verbs on resources, over any transport.

Objects are plain dicts. An answer that is not a success becomes `StatusError`; no answer becomes `Unreachable`.
Requests that the server refuses for now (429 or 503 with Retry-After) are repeated a few times. It holds no cache
(see informer.py) and knows nothing of connections (see https.py).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from controlplane.api.status import StatusError
from controlplane.client import credentials
from controlplane.client.https import HttpsTransport
from controlplane.client.resources import ApiResource
from controlplane.client.transport import Answer, Stream, Transport

log = logging.getLogger(__name__)

Obj = dict[str, Any]
PatchKind = Literal["merge", "json", "strategic", "apply"]

_PATCH_TYPES: dict[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_ATTEMPTS = 4
_MOST_WARNINGS = 1_000  # different ones that a process passes on
_LONGEST_PAUSE_SECONDS = 5.0

encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class _WatchEvent(msgspec.Struct):
    type: str
    object: dict[str, Any]


_decode_event = msgspec.json.Decoder(_WatchEvent).decode


class Client:
    """One API server, as one user. Share one per process: it owns the connections."""

    def __init__(self, transport: Transport, *, timeout: float = 30.0) -> None:
        """`timeout`: seconds for a whole answer, also for the head of a watch's answer."""
        self.transport = transport
        self.timeout = timeout
        self._warnings: set[str] = set()

    def with_timeout(self, seconds: float) -> "Client":
        """The same client with another patience, e.g. for heartbeats. Shares the connections."""
        return Client(self.transport, timeout=seconds)

    def reload(self) -> None:
        """Read certificates and tokens again (`controlplane.daemon.on_reload(client.reload)`)."""
        self.transport.reload()

    async def close(self) -> None:
        """Close every connection."""
        await self.transport.close()

    # --- verbs

    async def get(self, r: ApiResource, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        """Read one object."""
        return await self.json("GET", r.path(namespace, name, subresource))

    async def list(
        self,
        r: ApiResource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
        limit: int = 0,
        continue_token: str = "",
    ) -> Obj:
        """Read a List: `items`, and in `metadata` the `resourceVersion` to watch from and `continue` for more."""
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            limit=limit,
            **{"continue": continue_token},
        )
        return await self.json("GET", r.path(namespace) + query)

    async def create(
        self, r: ApiResource, obj: Obj, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Obj:
        """Create `obj`, or POST it to a subresource of `name` (binding, eviction, token). `namespace` defaults to
        the object's own."""
        namespace = namespace or obj.get("metadata", {}).get("namespace", "")
        return await self.json("POST", r.path(namespace, name, subresource), obj)

    async def update(self, r: ApiResource, obj: Obj, *, subresource: str = "") -> Obj:
        """Replace an object (or its status). With a `resourceVersion`, 409 if it changed meanwhile."""
        metadata = obj["metadata"]
        return await self.json("PUT", r.path(metadata.get("namespace", ""), metadata["name"], subresource), obj)

    async def patch(
        self,
        r: ApiResource,
        name: str,
        body: Obj | Sequence[Obj],
        namespace: str = "",
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Obj:
        """Change an object by a patch. `field_manager` and `force` matter to `kind="apply"`."""
        query = _query(fieldManager=field_manager, force="true" if force else "")
        target = r.path(namespace, name, subresource) + query
        return await self.json("PATCH", target, body, content_type=_PATCH_TYPES[kind])

    async def delete(
        self,
        r: ApiResource,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
    ) -> Obj:
        """Delete an object: a Status, or the object if it stays for a while. 409 if `uid` or `resource_version` is
        given and differs."""
        body = _delete_options(uid, resource_version, grace_period_seconds, propagation_policy)
        return await self.json("DELETE", r.path(namespace, name), body)

    async def delete_collection(
        self,
        r: ApiResource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
    ) -> Obj:
        """Delete every object that the selectors match."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector)
        body = _delete_options(None, None, grace_period_seconds, propagation_policy)
        return await self.json("DELETE", r.path(namespace) + query, body)

    async def watch(
        self,
        r: ApiResource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        send_initial_events: bool = False,
        timeout_seconds: int = 0,
        silence: float = 150.0,
    ) -> AsyncGenerator[tuple[str, Obj], None]:
        """Changes after `resource_version` as (type, object), type one of ADDED, MODIFIED, DELETED and BOOKMARK,
        until the server ends the watch. An ERROR event is raised as StatusError (410: too old). `silence`: seconds
        without a byte after which the peer counts as dead. Use it under `contextlib.aclosing` when leaving early."""
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            timeoutSeconds=timeout_seconds,
            **({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"} if send_initial_events else {}),
        )
        stream = await self.transport.stream(r.path(namespace) + query, timeout=self.timeout, silence=silence)
        try:
            if stream.status != 200:
                raise await _stream_error(stream)
            rest = b""
            while chunk := await stream.read():
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line:
                        event = _decode_event(line)
                        if event.type == "ERROR":
                            raise StatusError.from_dict(event.object)
                        yield event.type, event.object
        finally:
            stream.close()

    # --- below the verbs

    async def json(self, method: str, target: str, body: Any = None, *, content_type: str = "application/json") -> Obj:
        """Any request with JSON both ways. Raises StatusError and Unreachable."""
        data = b"" if body is None else encode(body)
        answer = await self.raw(method, target, data, content_type=content_type)
        return _decode_object(answer.body) if answer.body else {}

    async def raw(
        self, method: str, target: str, body: bytes = b"", *, content_type: str = "application/json"
    ) -> Answer:
        """Any request; the answer is a success (2xx). Raises StatusError and Unreachable."""
        for attempt in range(_ATTEMPTS):
            answer = await self.transport.request(method, target, body, content_type=content_type, timeout=self.timeout)
            if 200 <= answer.status < 300:
                if "warning" in answer.headers:
                    self._warned(method, target, answer.headers["warning"])
                return answer
            pause = _pause(answer)
            if pause is None or attempt + 1 == _ATTEMPTS:
                break
            await asyncio.sleep(pause)
        raise _error(answer.status, answer.headers, answer.body)

    def _warned(self, method: str, target: str, text: str) -> None:
        """Pass on what the server warns of, each text once: a controller may write thousands of the same kind."""
        if text not in self._warnings and len(self._warnings) < _MOST_WARNINGS:
            self._warnings.add(text)
            log.warning("server_warning method=%s target=%s text=%s", method, target, text)

    async def stream(self, target: str, *, silence: float = 86400.0) -> Stream:
        """GET `target` as a stream of bytes, e.g. a pod's log with `follow=true`. Raises StatusError, Unreachable."""
        stream = await self.transport.stream(target, timeout=self.timeout, silence=silence)
        if stream.status != 200:
            try:
                raise await _stream_error(stream)
            finally:
                stream.close()
        return stream


def from_kubeconfig(path: str, user_agent: str = "wherry", *, context: str = "", timeout: float = 30.0) -> Client:
    """A client for a kubeconfig's current (or the named) context. Raises ConfigurationError."""
    return Client(HttpsTransport(credentials.from_kubeconfig(path, context), user_agent=user_agent), timeout=timeout)


def _query(**parameters: str | int | None) -> str:
    given = {k: v for k, v in parameters.items() if v}
    return "?" + urlencode(given) if given else ""


def _delete_options(
    uid: str | None, resource_version: str | None, grace_period_seconds: int | None, propagation_policy: str | None
) -> Obj | None:
    options: Obj = {}
    if uid is not None or resource_version is not None:
        pairs = {"uid": uid, "resourceVersion": resource_version}
        options["preconditions"] = {k: v for k, v in pairs.items() if v is not None}
    if grace_period_seconds is not None:
        options["gracePeriodSeconds"] = grace_period_seconds
    if propagation_policy is not None:
        options["propagationPolicy"] = propagation_policy
    return {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None


def _pause(answer: Answer) -> float | None:
    """Seconds to wait before asking again, None if asking again is not what the server wants."""
    if answer.status not in (429, 503) or "retry-after" not in answer.headers:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(answer.headers["retry-after"])
        if seconds <= _LONGEST_PAUSE_SECONDS:
            return seconds
    return None


async def _stream_error(stream: Stream) -> StatusError:
    body = b""
    while len(body) < 1 << 20 and (chunk := await stream.read()):
        body += chunk
    return _error(stream.status, stream.headers, body)


def _error(status: int, headers: Mapping[str, str], body: bytes) -> StatusError:
    """The Status that the server sent, or one made up from an answer that is not ours (a proxy's page)."""
    with contextlib.suppress(msgspec.DecodeError):
        document = _decode_object(body)
        if document.get("kind") == "Status":
            document.setdefault("code", status)
            return StatusError.from_dict(document)
    text = body[:200].decode("utf-8", "replace").strip()
    return StatusError.from_dict(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status,
            "reason": {401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(status, "InternalError"),
            "message": f"the server answered {status}: {text}",
        }
    )
