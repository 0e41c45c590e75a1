"""Lists and watches: selection, paging, resourceVersion semantics, and streams of events.

A list without selectors costs what its bytes cost: stored bytes are joined. Watchers share the bytes of an event.
Source of the semantics: kubernetes.io/docs/reference/using-api/api-concepts.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.api.selectors import EVERYTHING, FieldSelector, LabelSelector, parse_labels
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry import fields, views
from controlplane.apiserver.registry.codec import in_version, to_json
from controlplane.apiserver.registry.generic import Registry
from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import Cached, CacheEvent, WatchCache
from controlplane.store.cached import watch_line
from controlplane.store.interface import Compacted, FutureRevision, StoreError

Object = dict[str, Any]

_CHUNK = 1 << 18
_FUTURE_WAIT_S = 3.0
_BOOKMARK_S = 60.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource: by labels and fields."""

    labels: LabelSelector
    fields: FieldSelector
    name: str = ""  # when the fields say exactly one name

    @property
    def everything(self) -> bool:
        return self.labels.empty and self.fields.empty

    def matches(self, cached: Cached) -> bool:
        if not self.labels.empty and not self.labels.matches(cached.labels):
            return False
        if self.fields.empty:
            return True
        if self.name:
            if cached.key.rpartition("/")[2] != self.name:
                return False
            if len(self.fields.requirements) == 1:
                return True
        return self.fields.matches(fields.values(self.fields, cached.object))


_ALL = Selection(EVERYTHING, FieldSelector())


def selection(request: Request, resource: Resource) -> Selection:
    """From labelSelector and fieldSelector. Raises StatusError 400."""
    if not request.query_string:
        return _ALL
    by_labels, by_fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
    if not by_labels and not by_fields:
        return _ALL
    try:
        labels = parse_labels(by_labels) if by_labels else EVERYTHING
    except ValueError as error:
        raise status.bad_request(f"unable to parse requirement: {error}") from None
    chosen = fields.parse(resource, by_fields) if by_fields else FieldSelector()
    return Selection(labels, chosen, chosen.exact("metadata.name") or "")


def number(request: Request, name: str) -> int | None:
    """A non-negative integer parameter, None if it is not there. Raises StatusError 400."""
    text = request.query.get(name, "") if request.query_string else ""
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise status.bad_request(f"invalid value for {name}: {text!r}")
    return int(text)


# --- lists ------------------------------------------------------------------------------------------------------------


async def list_objects(registry: Registry, request: Request, resource: Resource, namespace: str) -> Response:
    chosen = selection(request, resource)
    view = views.of(request, resource, listing=True)
    prefix = registry.prefix(resource, namespace)
    cache = registry.cache
    limit = number(request, "limit") or 0
    token = request.query.get("continue", "")
    at = number(request, "resourceVersion")
    match = request.query.get("resourceVersionMatch", "")
    if match not in ("", "Exact", "NotOlderThan"):
        raise _invalid_list(resource, f'resourceVersionMatch: Unsupported value: "{match}"')
    if match and at is None:
        raise _invalid_list(resource, "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if token and at:
        raise status.bad_request("specifying resource version is not allowed when using continue")
    if at and not token:
        await wait_for(cache, at)
    if not token and not limit and not (at and match == "Exact"):
        single = _single_key(prefix, chosen, namespace, resource)
        items, revision = _state(cache, single or prefix)
        if not single and not chosen.everything:
            items = [item for item in items if chosen.matches(item)]
        return _answer(view, items, {"resourceVersion": str(revision)})
    return await _page(registry, view, prefix, chosen, limit, token, at if match == "Exact" or limit else None, match)


async def _page(
    registry: Registry, view: views.View, prefix: str, chosen: Selection, limit: int, token: str,
    at: int | None, match: str,
) -> Response:  # fmt: skip
    """A part of a list on one snapshot; `continue` says where and when the next part starts."""
    revision, after = _open_token(token, prefix) if token else (at if match == "Exact" else None, "")
    found: list[Cached] = []
    remaining = 0
    try:
        while True:
            want = limit - len(found) if limit else 0
            items, revision, remaining = await registry.cache.page(
                prefix, start_after=after, limit=want, revision=None if revision == -1 else revision
            )
            after = items[-1].key if items else after
            found += items if chosen.everything else [item for item in items if chosen.matches(item)]
            if not remaining or (limit and len(found) >= limit):
                break
    except Compacted:
        if not token:
            raise status.expired() from None
        fresh = _token(-1, after, prefix)
        error = status.expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list - objects that were "
            "created, modified, or deleted between the time the first chunk was returned and now may show up in the "
            "list."
        )
        from controlplane.apiserver.http import error_response

        body = {**error.to_dict(), "metadata": {"continue": fresh}}
        answer = error_response(error)
        answer.body = to_json(body)
        return answer
    metadata: Object = {"resourceVersion": str(revision)}
    if remaining:
        metadata["continue"] = _token(revision, after, prefix)
        if chosen.everything:
            metadata["remainingItemCount"] = remaining
    return _answer(view, found, metadata)


def _answer(view: views.View, items: Sequence[Cached], metadata: Object) -> Response:
    resource = view.resource
    if not view.plain:
        return Response(body=view.listing([item.object for item in items], metadata))
    if resource.storage_version == resource.api_version:
        parts = [item.data for item in items]
    else:
        parts = [in_version(item, resource) for item in items]
    head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
        resource.list_kind.encode(), resource.api_version.encode(), to_json(metadata),
    )  # fmt: skip
    return Response(body=head + b",".join(parts) + b"]}")


def _token(revision: int, after: str, prefix: str) -> str:
    text = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": after.removeprefix(prefix)})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _open_token(token: str, prefix: str) -> tuple[int, str]:
    try:
        content = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(content["rv"]), prefix + str(content["start"])
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        raise status.bad_request("continue key is not valid: illegal token") from None


def _invalid_list(resource: Resource, message: str) -> status.StatusError:
    return status.StatusError(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: {message}')


async def wait_for(cache: WatchCache, revision: int) -> None:
    """Until the cache has reached `revision`. Raises StatusError 504 if it does not come."""
    if cache.revision >= revision:
        return
    try:
        async with asyncio.timeout(_FUTURE_WAIT_S):
            await cache.reached(revision)
    except TimeoutError:
        error = status.timeout(f"Too large resource version: {revision}, current: {cache.revision}", retry_after=1)
        error.details = {**error.details, "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        ]}  # fmt: skip
        raise error from None


def _single_key(prefix: str, chosen: Selection, namespace: str, resource: Resource) -> str:
    """The key of the only object that can be selected, if the selection is nothing but its name."""
    if not chosen.name or not chosen.labels.empty or len(chosen.fields.requirements) != 1:
        return ""
    return prefix + chosen.name if namespace or not resource.namespaced else ""


def _state(cache: WatchCache, prefix: str) -> tuple[list[Cached], int]:
    if prefix.endswith("/"):
        return cache.list(prefix)
    one = cache.get(prefix)
    return [one] if one is not None else [], cache.revision


# --- watches ----------------------------------------------------------------------------------------------------------


async def watch_objects(registry: Registry, request: Request, resource: Resource, namespace: str) -> Response:
    chosen = selection(request, resource)
    view = views.of(request, resource, listing=False)
    prefix = registry.prefix(resource, namespace)
    cache = registry.cache
    start = number(request, "resourceVersion")
    initial = request.flag("sendInitialEvents")
    if initial and request.query.get("resourceVersionMatch") != "NotOlderThan":
        raise _invalid_list(resource, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    if start:
        await wait_for(cache, start)
    state: list[Cached] = []
    single = _single_key(prefix, chosen, namespace, resource)
    if single:
        prefix, chosen = single, _ALL
    try:
        if initial or not start:  # the state first: as asked, or because no revision was named
            state, after = _state(cache, prefix)
            if initial is False and request.query.get("sendInitialEvents") == "false":
                state = []
            watcher = cache.subscribe(prefix, after)
        else:
            after = start
            watcher = cache.subscribe(prefix, start)
    except Compacted as error:
        return _single(status.expired(f"too old resource version: {start} ({error.oldest})"))
    except FutureRevision:
        return _single(status.expired(f"too new resource version: {start}"))
    seconds = number(request, "timeoutSeconds")
    bookmarks = request.flag("allowWatchBookmarks")
    stream = _events(cache, watcher, view, chosen, state, after, initial, bookmarks, seconds or 3600)
    return Response(stream=stream)


def _single(error: status.StatusError) -> Response:
    """A watch that ends at once with an ERROR event: the form in which clients expect 410."""

    async def stream() -> AsyncIterator[bytes]:
        yield watch_line("ERROR", to_json(error.to_dict()))

    return Response(stream=stream())


async def _events(
    cache: WatchCache, watcher: Any, view: views.View, chosen: Selection, state: list[Cached], after: int,
    initial: bool, bookmarks: bool, seconds: float,
) -> AsyncIterator[bytes]:  # fmt: skip
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    encode = _Encoder(view)
    try:
        chunk: list[bytes] = []
        size = 0
        for cached in state:
            if chosen.matches(cached):
                chunk.append(encode.line("ADDED", cached))
                size += len(chunk[-1])
                if size > _CHUNK:
                    yield b"".join(chunk)
                    chunk, size = [], 0
        if initial:
            chunk.append(encode.bookmark(after, end_of_state=True))
        yield b"".join(chunk)
        state.clear()
        last = after
        while (left := ends - loop.time()) > 0:
            try:
                events = await watcher.next(min(left, _BOOKMARK_S))
            except TimeoutError:
                events = ()
            except Overflow:
                yield watch_line("ERROR", to_json(status.expired("the watch fell too far behind").to_dict()))
                return
            except StoreError:
                return
            if not events:
                if bookmarks and cache.revision > last:
                    last = cache.revision
                    yield encode.bookmark(last)
                continue
            last = events[-1].revision
            lines = encode.events(events, chosen)
            if lines:
                yield lines[0] if len(lines) == 1 else b"".join(lines)
        if bookmarks:
            yield encode.bookmark(cache.revision)
    finally:
        watcher.close()


class _Encoder:
    """Events as lines in one view. Plain events of stored versions are the shared bytes themselves."""

    def __init__(self, view: views.View) -> None:
        self.view = view
        resource = view.resource
        self._shared = view.plain and resource.storage_version == resource.api_version
        self._first = True

    def line(self, kind: str, cached: Cached) -> bytes:
        if self.view.plain:
            return watch_line(kind, self.view.data(cached))
        columns, self._first = self._first, False
        return watch_line(kind, to_json(self.view.one(cached.object, columns=columns)))

    def events(self, events: Sequence[CacheEvent], chosen: Selection) -> list[bytes]:
        if chosen.everything:
            if self._shared:
                return [event.line for event in events]
            return [self.line(event.type, event.cached) for event in events]
        lines = []
        for event in events:
            kind = _seen(event, chosen)
            if not kind:
                continue
            if self._shared and kind == event.type:
                lines.append(event.line)
            elif kind == "DELETED" and event.type != "DELETED" and event.previous is not None:
                # It left the selection: the client is told of the state that it knew, at this revision.
                lines.append(self.line(kind, event.previous.at_revision(event.revision)))
            else:
                lines.append(self.line(kind, event.cached))
        return lines

    def bookmark(self, revision: int, *, end_of_state: bool = False) -> bytes:
        resource = self.view.resource
        metadata: Object = {"resourceVersion": str(revision)}
        if end_of_state:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self.view.form == "Table":
            obj: Object = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": str(revision)},
                "columnDefinitions": None,
                "rows": [],
            }
            if end_of_state:
                partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
                obj["rows"] = [{"cells": [], "object": partial}]
        elif self.view.plain:
            obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        else:
            obj = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return watch_line("BOOKMARK", to_json(obj))


def _seen(event: CacheEvent, chosen: Selection) -> str:
    """What a watcher of `chosen` sees of an event: an object that enters or leaves the selection is new or gone."""
    now = event.type != "DELETED" and chosen.matches(event.cached)
    before = event.previous is not None and chosen.matches(event.previous)
    if now:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else ""
