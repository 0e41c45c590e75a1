"""Bodies in, bytes out.

In: JSON, YAML or Kubernetes' protobuf envelope become one dict. Out: an object is encoded once, with kind, apiVersion
and metadata first, so that `splice` finds where the resourceVersion goes without parsing; its protobuf message is made
when the first client asks for it, and kept.
"""

import contextlib
from typing import Any

import msgspec

from controlplane.api import convert, status, wire
from controlplane.api.apply.entries import plain
from controlplane.api.resources import Resource
from controlplane.api.validate import duplicate_fields
from controlplane.apiserver.customresources import reading
from controlplane.apiserver.http import Request
from controlplane.store.cache import Cached

Object = dict[str, Any]

_decode_json = msgspec.json.Decoder().decode
_encode_json = msgspec.json.Encoder().encode
_EMPTY: tuple[Any, ...] = ({}, [], "")
_ACCEPTED = (
    "application/json", "application/yaml", "application/vnd.kubernetes.protobuf",
)  # fmt: skip


def decode_body(request: Request) -> tuple[Any, list[str]]:
    """The body as JSON values, and what is to be told of fields that it had twice (only looked for when somebody wants
    to know). Raises StatusError 400 for bad syntax, 415 for an unknown media type."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    body = request.body
    if kind in ("application/json", "") or kind.endswith("+json"):
        try:
            return _decode_json(body), _repeated(request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise status.bad_request(f"error decoding the request body: {error}") from None
    if kind in ("application/yaml", "application/x-yaml", "text/yaml", "application/apply-patch+yaml"):
        if body.lstrip()[:1] in (b"{", b"["):  # JSON is YAML, and what clients mostly send as such
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return _decode_json(body), _repeated(request)
        from controlplane.apiserver.registry import yaml_body

        try:
            content, repeated = yaml_body.decode(body)
        except (ValueError, RecursionError) as error:
            raise status.bad_request(f"error decoding the request body: {error}") from None
        return content, repeated if request.query.get("fieldValidation") != "Ignore" else []
    if kind == "application/vnd.kubernetes.protobuf":
        try:
            return wire.decode(body), []
        except ValueError as error:
            raise status.bad_request(f"error decoding the request body: {error}") from None
    raise status.unsupported_media_type(_ACCEPTED)


def _repeated(request: Request) -> list[str]:
    """Duplicate keys are a user's slip: clients that generate their bodies do not ask for validation at all, and need
    not pay for a second parse."""
    if "fieldValidation" not in request.query_string or request.query.get("fieldValidation") == "Ignore":
        return []
    return [f"duplicate field {status.quote(field)}" for field in duplicate_fields(request.body)]


def encode(obj: Object) -> bytes:
    """The bytes to store: JSON without resourceVersion, head fields first."""
    # Empty labels and the like are left out, as Kubernetes' clients expect from its `omitempty`.
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion" and (v or v not in _EMPTY)}
    ordered = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": metadata}
    for key, value in obj.items():
        if key not in ordered:
            ordered[key] = value
    return _encode_json(ordered)


def to_json(value: Any) -> bytes:
    return _encode_json(value)


def in_version(cached: Cached, resource: Resource) -> bytes:
    """A stored object's bytes as `resource`'s version. Where the shape is the same, only apiVersion is replaced."""
    if resource.custom is not None:
        return reading.read(cached, resource.custom).data
    stored, wanted = resource.storage_version, resource.api_version
    if stored == wanted:
        return cached.data
    if convert.same_shape(resource.kind, stored, wanted):
        return cached.data.replace(b'"apiVersion":"%b"' % stored.encode(), b'"apiVersion":"%b"' % wanted.encode(), 1)
    return _encode_json(convert.convert(cached.object, wanted))


def wire_item(cached: Cached, resource: Resource) -> bytes:
    """A stored object as `resource`'s protobuf message, which must have one, framed for its envelope or a list."""
    version = resource.api_version
    made = cached.kept(version)
    if made is None:
        name = wire.message_of(version, resource.kind)
        assert name is not None
        obj = plain(cached.object)
        obj = obj if version == resource.storage_version else convert.convert(obj, version)
        made = wire.framed(wire.message(name, obj))
        cached.keep(version, made)
    return made


def object_in(cached: Cached, resource: Resource) -> Object:
    """A stored object, decoded, as `resource`'s version. Shared: do not change it."""
    if resource.custom is not None:
        return reading.read(cached, resource.custom).object
    return cached.object if resource.native else convert.convert(cached.object, resource.api_version)
