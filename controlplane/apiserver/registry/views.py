"""In which form an answer goes out: the object, its metadata or a Table; in JSON or protobuf.

Decided once a request by the Accept header. Every form answers the same questions (one object's body, an item of a
list, the list around the items, an event of a watch), so lists and watches do not know which one they serve. The plain
JSON form is the stored bytes; what the others make of an object is made once for all who ask (`Cached.kept`).
YAML is the JSON form, rewritten at the very end (representation.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from controlplane import clock
from controlplane.api import status, tables, wire
from controlplane.api.resources import Resource
from controlplane.api.wire import MEDIA_TYPE as PROTOBUF
from controlplane.api.wire import frames
from controlplane.apiserver.http import JSON, Request
from controlplane.apiserver.negotiation import CACHED_LENGTH, Choice, Offer, negotiate
from controlplane.apiserver.registry.codec import in_version, object_in, to_json, wire_item
from controlplane.store.cache import Cached
from controlplane.store.cached import watch_line

Object = dict[str, Any]
_META = "meta.k8s.io"
_PIECE = 1 << 17


class View(Protocol):
    """A form of answer. Equal views make equal bytes, so they can be keys."""

    @property
    def resource(self) -> Resource: ...
    @property
    def content_type(self) -> str: ...
    @property
    def stream_type(self) -> str:
        """The content type of a watch."""

    @property
    def ready(self) -> bool:
        """Whether items cost nothing, because they are the stored bytes."""

    def body(self, cached: Cached) -> bytes:
        """One object as a whole answer."""

    def item(self, cached: Cached) -> bytes:
        """One object as part of a list."""

    def listing(self, items: Sequence[bytes], metadata: Object) -> list[bytes]:
        """A list of what `item` made, in pieces of a size that suits a connection."""

    def event(self, type_: str, cached: Cached, *, first: bool = False) -> bytes:
        """An event of a watch; Tables show their columns in the `first`."""

    def bookmark(self, metadata: Object) -> bytes: ...
    def error(self, error: status.StatusError) -> bytes:
        """The event that ends a watch."""


# --- JSON ------------------------------------------------------------------------------------------------------------


class _Json:
    """What all forms in JSON share."""

    content_type = JSON
    stream_type = JSON
    ready = False

    def body(self, cached: Cached) -> bytes:
        raise NotImplementedError

    def event(self, type_: str, cached: Cached, *, first: bool = False) -> bytes:
        return watch_line(type_, self.body(cached))

    def error(self, error: status.StatusError) -> bytes:
        return watch_line("ERROR", to_json(error.to_dict()))


@dataclass(frozen=True)
class Objects(_Json):
    """The stored bytes, or another version of them."""

    resource: Resource

    @property
    def ready(self) -> bool:  # type: ignore[override]
        return self.resource.native

    def body(self, cached: Cached) -> bytes:
        return in_version(cached, self.resource)

    item = body

    def listing(self, items: Sequence[bytes], metadata: Object) -> list[bytes]:
        resource = self.resource
        return _json_list(resource.list_kind, resource.api_version, metadata, items)

    def bookmark(self, metadata: Object) -> bytes:
        resource = self.resource
        body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        return watch_line("BOOKMARK", to_json(body))


@dataclass(frozen=True)
class Metadata(_Json):
    """PartialObjectMetadata: the metadata's bytes, cut out of the stored ones."""

    resource: Resource
    version: str = "v1"

    def body(self, cached: Cached) -> bytes:
        return b'{"kind":"PartialObjectMetadata","apiVersion":"%b/%b","metadata":%b}' % (
            _META.encode(), self.version.encode(), bytes(cached.raw_metadata),
        )  # fmt: skip

    item = body

    def listing(self, items: Sequence[bytes], metadata: Object) -> list[bytes]:
        return _json_list("PartialObjectMetadataList", f"{_META}/{self.version}", metadata, items)

    def bookmark(self, metadata: Object) -> bytes:
        body = {"kind": "PartialObjectMetadata", "apiVersion": f"{_META}/{self.version}", "metadata": metadata}
        return watch_line("BOOKMARK", to_json(body))


@dataclass(frozen=True)
class Table(_Json):
    """meta.k8s.io Table: an item is a row. `include`: None, Metadata or Object, what a row carries beside its cells."""

    resource: Resource
    version: str = "v1"
    include: str = "Metadata"

    def body(self, cached: Cached) -> bytes:
        return self._one(cached, columns=True)

    def event(self, type_: str, cached: Cached, *, first: bool = False) -> bytes:
        return watch_line(type_, self._one(cached, columns=first))

    def item(self, cached: Cached) -> bytes:
        # Cells of built-in kinds are taken from the stored version, whichever version is asked for.
        obj = cached.object if self.resource.custom is None else object_in(cached, self.resource)
        cells = to_json(tables.cells(self.resource, obj, clock.wall_time()))
        if self.include == "None":
            return b'{"cells":%b,"object":null}' % cells
        row = Objects(self.resource) if self.include == "Object" else Metadata(self.resource, self.version)
        return b'{"cells":%b,"object":%b}' % (cells, row.body(cached))

    def listing(self, items: Sequence[bytes], metadata: Object) -> list[bytes]:
        head = self._head(metadata, columns=True)
        return _pieces(head, items)

    def bookmark(self, metadata: Object) -> bytes:
        head = self._head({"resourceVersion": metadata["resourceVersion"]}, columns=False)
        if "annotations" not in metadata:
            return watch_line("BOOKMARK", head + b"]}")
        body = {"kind": "PartialObjectMetadata", "apiVersion": f"{_META}/{self.version}", "metadata": metadata}
        return watch_line("BOOKMARK", b'%b{"cells":[],"object":%b}]}' % (head, to_json(body)))

    def _one(self, cached: Cached, *, columns: bool) -> bytes:
        head = self._head({"resourceVersion": str(cached.revision)}, columns=columns)
        return b"%b%b]}" % (head, self.item(cached))

    def _head(self, metadata: Object, *, columns: bool) -> bytes:
        shown = _columns(self.resource) if columns else b"null"
        return b'{"kind":"Table","apiVersion":"%b/%b","metadata":%b,"columnDefinitions":%b,"rows":[' % (
            _META.encode(), self.version.encode(), to_json(metadata), shown,
        )  # fmt: skip


def _columns(resource: Resource) -> bytes:
    return to_json(tables.columns(resource))


def _json_list(kind: str, api_version: str, metadata: Object, items: Sequence[bytes]) -> list[bytes]:
    head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
        kind.encode(), api_version.encode(), to_json(metadata),
    )  # fmt: skip
    return _pieces(head, items)


def _pieces(head: bytes, parts: Sequence[bytes]) -> list[bytes]:
    """`head`, the parts with commas between them, and the end."""
    pieces = []
    start, size = 0, 0
    for at, part in enumerate(parts):
        size += len(part)
        if size > _PIECE:
            pieces.append(b"%b%b" % (b"," if start else head, b",".join(parts[start : at + 1])))
            start, size = at + 1, 0
    rest = b",".join(parts[start:])
    pieces.append(b"%b%b]}" % ((b"," if rest else b"") if start else head, rest))
    return pieces


# --- protobuf --------------------------------------------------------------------------------------------------------


class _Protobuf:
    """What all forms in protobuf share. `api_version` and `kind` are those of the envelope around one object."""

    content_type = PROTOBUF
    stream_type = frames.STREAM_TYPE
    ready = False
    api_version: str
    kind: str

    def item(self, cached: Cached) -> bytes:
        raise NotImplementedError

    def body(self, cached: Cached) -> bytes:
        return wire.enveloped(self.api_version, self.kind, self.item(cached))

    def listing(self, items: Sequence[bytes], metadata: Object) -> list[bytes]:
        return _gathered(frames.list_body(self.api_version, f"{self.kind}List", metadata, items))

    def event(self, type_: str, cached: Cached, *, first: bool = False) -> bytes:
        return frames.watch_frame(type_, self.body(cached))

    def bookmark(self, metadata: Object) -> bytes:
        raw = wire.sized(1, wire.message("meta.v1.ObjectMeta", metadata))
        return frames.watch_frame("BOOKMARK", wire.envelope(self.api_version, self.kind, raw))

    def error(self, error: status.StatusError) -> bytes:
        return frames.watch_frame("ERROR", wire.encode(error.to_dict()) or b"")


@dataclass(frozen=True)
class ProtobufObjects(_Protobuf):
    """The object's message."""

    resource: Resource

    @property
    def api_version(self) -> str:  # type: ignore[override]
        return self.resource.api_version

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.resource.kind

    def item(self, cached: Cached) -> bytes:
        return wire_item(cached, self.resource)


@dataclass(frozen=True)
class ProtobufMetadata(_Protobuf):
    """PartialObjectMetadata as a message."""

    resource: Resource
    version: str = "v1"
    kind = "PartialObjectMetadata"

    @property
    def api_version(self) -> str:  # type: ignore[override]
        return f"{_META}/{self.version}"

    def item(self, cached: Cached) -> bytes:
        return wire.framed(wire.sized(1, wire.message("meta.v1.ObjectMeta", cached.metadata)))

    def listing(self, items: Sequence[bytes], metadata: Object) -> list[bytes]:
        if self.version == "v1":
            return super().listing(items, metadata)
        # v1beta1 has its two fields the other way round: items are field 1.
        head = wire.sized(2, wire.message("meta.v1.ListMeta", metadata))
        raw = b"".join([b"\x0a" + item[1:] for item in items])
        return [wire.envelope(self.api_version, "PartialObjectMetadataList", raw + head)]


def _gathered(parts: Sequence[bytes]) -> list[bytes]:
    """Many small parts as few pieces."""
    pieces, start, size = [], 0, 0
    for at, part in enumerate(parts):
        size += len(part)
        if size > _PIECE:
            pieces.append(b"".join(parts[start : at + 1]))
            start, size = at + 1, 0
    if start < len(parts):
        pieces.append(b"".join(parts[start:]))
    return pieces


# --- which one -------------------------------------------------------------------------------------------------------


def of(request: Request, resource: Resource, *, listing: bool = False, watching: bool = False) -> View:
    """The form that the client likes best. Raises StatusError 406 if there is none, 422 for an odd includeObject."""
    accept = request.headers.get("Accept", "")
    if not accept or accept == JSON:
        return _plain(resource)
    include = request.query.get("includeObject", "") if request.query_string else ""
    return (_known if len(accept) <= CACHED_LENGTH else _negotiated)(accept, resource, listing, watching, include)


def _negotiated(accept: str, resource: Resource, listing: bool, watching: bool, include: str) -> View:
    partial = "PartialObjectMetadataList" if listing else "PartialObjectMetadata"
    has_message = wire.message_of(resource.api_version, resource.kind) is not None
    forms = ("Table", partial)
    # Metadata has a message whatever the kind is; a custom resource's object has none.
    choice = negotiate(accept, Offer(has_message or partial in accept, not watching, forms))
    if choice.media_type == PROTOBUF and not choice.form and not has_message:
        choice = negotiate(accept, Offer(False, not watching, forms))
    return _view(choice, resource, include)


_known = lru_cache(maxsize=2048)(_negotiated)


@lru_cache(maxsize=4096)
def _plain(resource: Resource) -> View:
    return Objects(resource)


def _view(choice: Choice, resource: Resource, include: str) -> View:
    if choice.form == "Table":
        include = include or "Metadata"
        if include not in ("None", "Metadata", "Object"):
            cause = status.invalid_value("includeObject", include, "must be 'Metadata', 'Object', 'None', or empty")
            raise status.invalid(_META, "TableOptions", "", [cause])
        return Table(resource, choice.version, include)
    if choice.media_type == PROTOBUF:
        return ProtobufMetadata(resource, choice.version) if choice.form else ProtobufObjects(resource)
    return Metadata(resource, choice.version) if choice.form else _plain(resource)
