"""`FakeAPI`: an API server in a dict, for tests of everything that is an API client.

    api = FakeAPI()
    api.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {...}})
    client = api.client()

It is a `Transport` that answers real paths with real semantics (tests/contract/test_api_transport.py holds it to the
real server's): get, list with selectors and pages, watch with bookmarks and initial events, create, update, patch,
delete, and the subresources status, scale, binding, eviction, token and finalize. Any group and kind is served.
Trouble on request: `fail`, `offline`, `break_watches`, `expire`. `requests` is what was asked. It does not
validate, default, authenticate or authorise.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from controlplane.api import patch as patches
from controlplane.api import selectors, status
from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from controlplane.client.fake_objects import Change, Id, Obj, Objects, group_resource
from controlplane.client.rest import Client
from controlplane.client.transport import Answer
from controlplane.clock import rfc3339

_encode = msgspec.json.Encoder().encode
_IRREGULAR = {"endpoints": "Endpoints", "networkpolicies": "NetworkPolicy", "ingresses": "Ingress"}
_CLUSTER_SCOPED = {
    "nodes", "namespaces", "persistentvolumes", "clusterroles", "clusterrolebindings", "storageclasses",
    "priorityclasses", "runtimeclasses", "customresourcedefinitions", "certificatesigningrequests", "ingressclasses",
}  # fmt: skip


class FakeAPI:
    """A `Transport` with the API server inside."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """(method, target) of every request and watch so far."""
        self.offline = False
        """While true every request is Unreachable; setting it does not break watches under way."""
        self._objects = Objects(self._changed)
        self._streams: set[_FakeStream] = set()
        self._faults: list[tuple[Callable[[str, str], bool], StatusError | Unreachable, int]] = []

    # --- for tests

    def client(self) -> Client:
        """A client of this server."""
        return Client(self)

    def put(self, obj: Obj) -> Obj:
        """Store an object directly, status included, as if it had always been so. Returns it as stored."""
        metadata, plural = obj["metadata"], plural_of(obj["kind"])
        group = obj["apiVersion"].rpartition("/")[0]
        namespace = "" if plural in _CLUSTER_SCOPED else metadata.get("namespace") or "default"
        return self._objects.put((group, plural, namespace, metadata["name"]), obj)

    def get(self, plural: str, name: str, namespace: str = "", group: str = "") -> Obj | None:
        """The stored object, None if there is none."""
        try:
            return self._objects.get((group, plural, namespace, name))
        except StatusError:
            return None

    def all(self, plural: str, namespace: str = "", group: str = "") -> list[Obj]:
        """The stored objects of a kind."""
        return [obj for _, obj in self._objects.find((group, plural), namespace)]

    def fail(self, error: StatusError | Unreachable, *, times: int = 1, method: str = "", containing: str = "") -> None:
        """Answer the next `times` requests with `method` (if given) and `containing` in their target by `error`."""

        def matches(asked: str, target: str) -> bool:
            return method in ("", asked) and containing in target

        self._faults.append((matches, error, times))

    def break_watches(self) -> None:
        """Cut every watch, as a dying server does."""
        for stream in list(self._streams):
            stream.broken = True
            stream.wake()

    def expire(self) -> None:
        """Forget the history: a watch from an older revision gets 410."""
        self._objects.compact()

    def send_bookmarks(self) -> None:
        """Send a bookmark of now on every watch."""
        for stream in self._streams:
            stream.bookmark(self._objects.revision)

    # --- Transport

    async def request(
        self, method: str, target: str, body: bytes = b"", *, content_type: str = "application/json", timeout: float
    ) -> Answer:
        await asyncio.sleep(0)
        self.requests.append((method, target))
        try:
            self._trouble(method, target)
            code, answer = _Request(self._objects, method, target, body, content_type).answer()
        except StatusError as error:
            headers = {k.lower(): v for k, v in error.headers.items()}
            return Answer(error.code, headers, _encode(error.to_dict()))
        return Answer(code, {}, _encode(answer))

    async def stream(self, target: str, *, timeout: float, silence: float) -> "_FakeStream":
        await asyncio.sleep(0)
        self.requests.append(("WATCH", target))
        try:
            self._trouble("WATCH", target)
            stream = _FakeStream(self._objects, target, self._streams)
        except StatusError as error:
            return _FakeStream.refused(error, self._streams)
        self._streams.add(stream)
        return stream

    def reload(self) -> None:
        pass

    async def close(self) -> None:
        self.break_watches()

    def _trouble(self, method: str, target: str) -> None:
        if self.offline:
            raise Unreachable("offline")
        for i, (matches, error, times) in enumerate(self._faults):
            if matches(method, target):
                if times > 1:
                    self._faults[i] = (matches, error, times - 1)
                else:
                    del self._faults[i]
                raise error

    def _changed(self, change: Change) -> None:
        for stream in self._streams:
            stream.offer(change)


def plural_of(kind: str) -> str:
    """`pods` of `Pod`; good enough for the kinds that Kubernetes has."""
    word = kind.lower()
    if word == "endpoints":
        return word
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "es" if word.endswith(("s", "x", "ch")) else word + "s"


class _Target:
    """What a URL names."""

    def __init__(self, target: str) -> None:
        url = urlsplit(target)
        self.query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        parts = [unquote(p) for p in url.path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) > 2:
            self.group, self.version, parts = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            self.group, self.version, parts = parts[1], parts[2], parts[3:]
        else:
            raise status.not_found()
        self.namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            self.namespace, parts = parts[1], parts[2:]
        self.plural, self.name, self.subresource = (*parts, "", "")[:3]
        try:
            self.labels = selectors.parse_labels(self.query.get("labelSelector", ""))
            self.fields = selectors.parse_fields(self.query.get("fieldSelector", ""))
        except ValueError as error:
            raise status.bad_request(str(error)) from error

    @property
    def id(self) -> Id:
        return (self.group, self.plural, self.namespace, self.name)

    def selects(self, id: Id, obj: Obj | None) -> bool:
        if obj is None or id[:2] != (self.group, self.plural) or (self.namespace and id[2] != self.namespace):
            return False
        if not self.labels.empty and not self.labels.matches(obj["metadata"].get("labels")):
            return False
        return all((_field(obj, r.path) == r.value) == (r.operator == "=") for r in self.fields.requirements)


def _field(obj: Any, path: str) -> str:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, Mapping) else None
    return "" if obj is None else str(obj)


class _Request:
    """One request that is not a watch."""

    def __init__(self, objects: Objects, method: str, target: str, body: bytes, content_type: str) -> None:
        self._objects, self._method, self._content_type = objects, method, content_type
        self._target = _Target(target)
        self._body: Any = msgspec.json.decode(body) if body else {}

    def answer(self) -> tuple[int, Obj]:
        """The status code and the body."""
        t = self._target
        special = getattr(self, f"_{t.subresource}", None) if t.subresource in _SPECIAL else None
        if special:
            return special()  # type: ignore[no-any-return]
        if self._method == "GET":
            return 200, (self._objects.get(t.id) if t.name else self._list())
        if self._method == "POST":
            return 201, self._objects.create((t.group, t.plural), t.namespace, self._body)
        if self._method == "PUT":
            return 200, self._objects.update(t.id, self._body, t.subresource)
        if self._method == "PATCH":
            return self._patch()
        if t.name:
            obj, gone = self._objects.delete(t.id, self._body)
            return 200, (_success(t.id, obj) if gone and t.plural != "pods" else obj)
        for id, obj in list(self._objects.find((t.group, t.plural), t.namespace)):
            if t.selects(id, obj):
                self._objects.delete(id, self._body)
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _list(self) -> Obj:
        t = self._target
        found = [(id, obj) for id, obj in self._objects.find((t.group, t.plural), t.namespace) if t.selects(id, obj)]
        after = t.query.get("continue")
        if after:
            found = [(id, obj) for id, obj in found if f"{id[2]}/{id[3]}" > after]
        metadata: Obj = {"resourceVersion": str(self._objects.revision)}
        limit = int(t.query.get("limit") or 0)
        if limit and len(found) > limit:
            metadata |= {"continue": "/".join(found[limit - 1][0][2:]), "remainingItemCount": len(found) - limit}
            found = found[:limit]
        items = [obj for _, obj in found]
        kind = items[0]["kind"] if items else _IRREGULAR.get(t.plural, t.plural.removesuffix("s").capitalize())
        version = f"{t.group}/{t.version}" if t.group else t.version
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items}

    def _patch(self) -> tuple[int, Obj]:
        t = self._target
        apply = self._content_type.startswith("application/apply-patch")
        try:
            old = self._objects.get(t.id)
        except StatusError:
            if apply:
                return 201, self._objects.create((t.group, t.plural), t.namespace, self._body)
            raise
        new = self._patched(old)
        version = self._body.get("metadata", {}).get("resourceVersion") if isinstance(self._body, dict) else ""
        return 200, self._objects.update(t.id, new, t.subresource, version=version or "")

    def _patched(self, old: Obj) -> Obj:
        if self._content_type.startswith("application/json-patch"):
            return patches.json_patch(old, self._body)  # type: ignore[no-any-return]
        if self._content_type.startswith("application/merge-patch"):
            return patches.merge_patch(old, self._body)  # type: ignore[no-any-return]
        from controlplane.api import definitions  # megabytes, and only these two patches need it

        known = definitions.load()
        group, _, version = old["apiVersion"].rpartition("/")
        found = known.for_gvk(group, version, old["kind"])
        if found is None:
            return patches.merge_patch(old, self._body)  # type: ignore[no-any-return]
        return patches.strategic_merge(old, self._body, found[0], known)

    # --- subresources that are more than a part of the object

    def _binding(self) -> tuple[int, Obj]:
        t = self._target
        pod = self._objects.get(t.id)
        node = self._body["target"]["name"]
        if pod["spec"].get("nodeName"):
            text = f'pod {t.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise status.conflict("pods/binding", t.name, text)
        if "deletionTimestamp" in pod["metadata"]:
            raise status.conflict(
                "pods/binding", t.name, f"pod {t.name} is being deleted, cannot be assigned to a host"
            )
        before = pod.get("status") or {}
        kept = [c for c in before.get("conditions") or [] if c["type"] != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339()}
        self._objects.put(
            t.id,
            {
                **pod,
                "spec": {**pod["spec"], "nodeName": node},
                "status": {**before, "conditions": [*kept, scheduled]},
            },
        )
        return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _eviction(self) -> tuple[int, Obj]:
        self._objects.delete(self._target.id, self._body.get("deleteOptions") or {})
        return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _token(self) -> tuple[int, Obj]:
        self._objects.get(self._target.id)
        return 201, {**self._body, "status": {"token": "fake-token", "expirationTimestamp": rfc3339()}}

    def _scale(self) -> tuple[int, Obj]:
        old = self._objects.get(self._target.id)
        if self._method != "GET":
            body = self._body if self._method == "PUT" else patches.merge_patch(_scale_of(old), self._body)
            new = {**old, "spec": {**old["spec"], "replicas": body["spec"].get("replicas", 0)}}
            old = self._objects.update(self._target.id, new, version=body["metadata"].get("resourceVersion") or "")
        return 200, _scale_of(old)


_SPECIAL = ("binding", "eviction", "token", "scale")


def _scale_of(obj: Obj) -> Obj:
    metadata = {k: v for k, v in obj["metadata"].items() if k in ("name", "namespace", "uid", "resourceVersion")}
    scale: Obj = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata}
    scale["spec"] = {"replicas": obj["spec"].get("replicas", 1)}
    scale["status"] = {"replicas": (obj.get("status") or {}).get("replicas", 0)}
    return scale


def _success(id: Id, obj: Obj) -> Obj:
    details = {"name": id[3], "kind": id[1], "uid": obj["metadata"]["uid"], **({"group": id[0]} if id[0] else {})}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


class _FakeStream:
    """A watch."""

    def __init__(
        self, objects: Objects, target: str, all: "set[_FakeStream]", error: StatusError | None = None
    ) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {"content-type": "application/json"}
        self.broken = False
        self._all = all
        self._lines: list[bytes] = []
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        if error is not None:
            self.status, self._ended = error.code, True
            self._lines.append(_encode(error.to_dict()))
            return
        self._target = t = _Target(target)
        if t.name:
            raise status.method_not_allowed(group_resource(t.id), "watch")
        version = t.query.get("resourceVersion") or "0"
        if t.query.get("sendInitialEvents") == "true" or version == "0":
            for id, obj in objects.find((t.group, t.plural), t.namespace):
                if t.selects(id, obj):
                    self._send("ADDED", obj)
            if t.query.get("sendInitialEvents") == "true":
                self.bookmark(objects.revision, initial=True)
        elif int(version) < objects.oldest:
            self._send("ERROR", status.expired(f"too old resource version: {version} ({objects.oldest})").to_dict())
            self._ended = True
        else:
            for change in objects.history:
                if change.revision > int(version):
                    self.offer(change)

    @classmethod
    def refused(cls, error: StatusError, all: "set[_FakeStream]") -> "_FakeStream":
        return cls(Objects(lambda change: None), "", all, error)

    def offer(self, change: Change) -> None:
        before = self._target.selects(change.id, change.old)
        after = self._target.selects(change.id, change.new)
        if after:
            self._send("MODIFIED" if before else "ADDED", change.last)
        elif before:
            last = change.last["metadata"]["resourceVersion"]
            assert change.old is not None
            shown = change.last if change.new is None else change.old
            self._send("DELETED", {**shown, "metadata": {**shown["metadata"], "resourceVersion": last}})

    def bookmark(self, revision: int, initial: bool = False) -> None:
        metadata: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        self._send("BOOKMARK", {"kind": "Object", "apiVersion": "v1", "metadata": metadata})

    def _send(self, kind: str, obj: Obj) -> None:
        self._lines.append(_encode({"type": kind, "object": obj}) + b"\n")
        self.wake()

    def wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        while self.broken or not self._lines:
            if self.broken:
                raise Unreachable("connection lost: broken on request")
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = b"".join(self._lines)
        self._lines.clear()
        return data

    def close(self) -> None:
        self._ended = True
        self._all.discard(self)
        self.wake()
