"""Conversion of custom objects by a webhook: between the version that is stored and the one that is asked for.

Answers are made by plain calls from what is in memory, but a webhook has to be awaited. So whoever is about to read
calls `prepare` first, which converts what is not yet known, in one request; and a write converts its object into the
other versions that somebody reads (`value_of`) before it is stored, so that watches have it. Where neither happened,
`NotConverted` ends a watch, and the next one begins with `prepare`.

Definitions whose conversion is None need nothing of this. Source: apiextensions-apiserver pkg/apiserver/conversion.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from controlplane import clock
from controlplane.api import convert, status
from controlplane.api.resources import Resource
from controlplane.apiserver.registry.codec import encode
from controlplane.apiserver.webhook_client import Caller, CallFailed
from controlplane.store.cache import Cached

if TYPE_CHECKING:
    from controlplane.api.schema.kind import CustomKind

Object = dict[str, Any]
_TIMEOUT_S = 30.0
_REMEMBERED = 50_000
_SUPPORTED = ("v1", "v1beta1")
_MAY_CHANGE = ("labels", "annotations")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class NotConverted(Exception):
    """A stored object that nobody has converted into the version asked for."""


class WebhookConverter:
    """The webhook of a definition's spec.conversion; `kind` as in errors."""

    def __init__(self, caller: Caller, webhook: Object, kind: str) -> None:
        self._caller = caller
        self._client = webhook["clientConfig"]
        self._versions = webhook.get("conversionReviewVersions") or ("v1",)
        self._kind = kind

    async def convert(self, objects: Sequence[Object], api_version: str) -> list[Object]:
        """The objects in another version. Raises StatusError 500."""
        if not objects:
            return []
        uid = clock.new_uid()
        version = next((each for each in self._versions if each in _SUPPORTED), "v1")
        review = {
            "kind": "ConversionReview", "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": list(objects)},
        }  # fmt: skip
        try:
            answer = await self._caller.post(self._client, review, _TIMEOUT_S)
            made = self._read(answer, uid, len(objects))
            return [_kept(old, new, api_version) for old, new in zip(objects, made, strict=True)]
        except CallFailed as error:
            group, _, name = api_version.rpartition("/")
            text = f"conversion webhook for {group}/{name}, Kind={self._kind} failed: {error}"
            raise status.internal(text.replace("failed to call webhook: ", "")) from None

    def _read(self, answer: Object, uid: str, count: int) -> list[Object]:
        response = answer.get("response")
        if not isinstance(response, dict):
            raise CallFailed("no response provided")
        if response.get("uid") != uid:
            raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
        result = response.get("result") or {}
        if result.get("status") != "Success":
            raise CallFailed(str(result.get("message") or f"response.result.status was '{result.get('status', '')}'"))
        made = response.get("convertedObjects") or []
        if len(made) != count:
            raise CallFailed(f"webhook returned {len(made)} objects, expected {count}")
        return list(made)


def _kept(old: Object, new: Any, api_version: str) -> Object:
    """`new` with the metadata that a conversion may not change. Raises CallFailed."""
    if not isinstance(new, dict) or new.get("apiVersion") != api_version or new.get("kind") != old["kind"]:
        shown = new.get("apiVersion") if isinstance(new, dict) else new
        raise CallFailed(f"invalid converted object: expected {api_version}, got {shown}")
    before, after = old["metadata"], new.get("metadata")
    if not isinstance(after, dict) or after.get("name") != before.get("name") or after.get("uid") != before.get("uid"):
        raise CallFailed("invalid metadata in converted object: name and uid must not change")
    meta = {key: value for key, value in before.items() if key not in _MAY_CHANGE}
    meta |= {key: after[key] for key in _MAY_CHANGE if after.get(key)}
    return {**new, "metadata": meta}


def is_foreign(cached: Cached, custom: "CustomKind") -> bool:
    """Whether a webhook has to convert a stored object before `custom` can show it."""
    return custom.converter is not None and not cached.data.startswith(custom.head)


async def prepare(items: Iterable[Cached], custom: "CustomKind | None") -> None:
    """Have `items` ready to be read as `custom`. Raises StatusError 500."""
    if custom is None or custom.converter is None:
        return
    custom.is_read = True
    missing = [each for each in items if is_foreign(each, custom) and known(each, custom) is None]
    if not missing:
        return
    made = await custom.converter.convert([_decode(each.data) for each in missing], custom.api_version)
    for cached, obj in zip(missing, made, strict=True):
        remember(cached, _encode(custom.present(obj)), custom)


def known(cached: Cached, custom: "CustomKind") -> Cached | None:
    """What `prepare` or `value_of` made of a stored object."""
    seen = custom.seen.get(cached.key)
    if seen is not None and seen[0] == cached.data:
        made: Cached = seen[1]
        return made
    mark = b'"resourceVersion":"%d",' % cached.revision
    for value, shown in custom.foreseen.get(cached.key, ()):
        if cached.data.replace(mark, b"", 1) == value:
            head = b'"metadata":{'
            data = shown.replace(head, head + mark, 1)
            return remember(cached, data, custom)
    return None


def remember(cached: Cached, data: bytes, custom: "CustomKind") -> Cached:
    made = Cached(cached.key, data, cached.revision, cached.create_revision)
    if len(custom.seen) >= _REMEMBERED:
        custom.seen.clear()
    custom.seen[cached.key] = cached.data, made
    return made


async def value_of(resource: Resource, key: str, obj: Object) -> bytes:
    """The bytes to store of a custom object. Raises StatusError 500."""
    custom = resource.custom
    assert custom is not None
    if custom.converter is None:
        native = resource.storage_version == resource.api_version
        return encode(obj if native else convert.convert(obj, resource.storage_version))
    stored = obj
    if obj["apiVersion"] != resource.storage_version:
        (stored,) = await custom.converter.convert([obj], resource.storage_version)
    value = encode(stored)
    await _foresee(resource, key, _decode(value), value)
    return value


async def _foresee(resource: Resource, key: str, stored: Object, value: bytes) -> None:
    """Before `value` is stored: what it looks like in the versions that are read. A version that cannot be had now is
    converted when somebody reads it."""
    custom = resource.custom
    if custom is None or custom.converter is None:
        return
    converter = custom.converter
    custom.is_read = True
    wanted = [each for each in custom.siblings if each.is_read and each.api_version != resource.storage_version]
    made = await asyncio.gather(
        *(converter.convert([stored], each.api_version) for each in wanted), return_exceptions=True
    )
    for each, outcome in zip(wanted, made, strict=True):
        if isinstance(outcome, BaseException):
            continue
        shown = _encode(_ordered(each.present(outcome[0])))
        if len(each.foreseen) >= _REMEMBERED:
            each.foreseen.clear()
        # The last two: watches are told what an object was before, too.
        each.foreseen[key] = [*each.foreseen.get(key, ())[-1:], (value, shown)]


def _ordered(obj: Object) -> Object:
    """Head first, so that the resourceVersion finds its place."""
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    head = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": meta}
    return {**head, **{key: value for key, value in obj.items() if key not in head}}
