"""Watches: from which revision, in which form, until when. What then happens to everybody alike is fanout.py.

A watch is: the state (when asked for, or when no revision is named), the events since, then whatever comes; bookmarks
in between. Source of the semantics: kubernetes.io/docs/reference/using-api/api-concepts.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry import views
from controlplane.apiserver.registry.codec import to_json
from controlplane.apiserver.registry.fanout import TOO_SLOW, Fanout, Member
from controlplane.apiserver.registry.generic import Registry
from controlplane.apiserver.registry.listing import invalid_list
from controlplane.apiserver.registry.selection import (
    EVERYTHING_SELECTED,
    Selection,
    number,
    selection,
    single_key,
    wait_for,
)
from controlplane.apiserver.registry.selection import state as state_of
from controlplane.apiserver.streams import Chunk, Feed, Sink
from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import Cached, CacheEvent, WatchCache
from controlplane.store.cached import watch_line
from controlplane.store.interface import Compacted, FutureRevision, StoreError

Object = dict[str, Any]
_CHUNK = 1 << 18
_DEFAULT_S = 3600


async def watch_objects(
    registry: Registry, fanout: Fanout, request: Request, resource: Resource, namespace: str, name: str = ""
) -> Response:
    """`name`: from the path, for a watch of one object. Raises StatusError 400, 422, 504; a revision that is gone is
    told as an ERROR event, as Kubernetes does."""
    chosen = selection(request, resource, name)
    view = views.of(request, resource, listing=False)
    prefix = registry.prefix(resource, namespace)
    start = number(request, "resourceVersion")
    initial = request.flag("sendInitialEvents")
    if initial and request.query.get("resourceVersionMatch") != "NotOlderThan":
        raise invalid_list(resource, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    if start:
        await wait_for(registry.cache, start)
    single = single_key(prefix, chosen, namespace, resource)
    if single:
        prefix, chosen = single, EVERYTHING_SELECTED
    without_state = request.query.get("sendInitialEvents") == "false"
    seconds = number(request, "timeoutSeconds") or _DEFAULT_S
    bookmarks = request.flag("allowWatchBookmarks")
    return Response(
        stream=Feed(
            _Watch(registry.cache, fanout, view, prefix, chosen, start, initial, without_state, bookmarks, seconds).run
        )
    )


@dataclass(frozen=True, slots=True)
class _Watch:
    cache: WatchCache
    fanout: Fanout
    view: views.View
    prefix: str
    chosen: Selection
    start: int | None
    initial: bool
    """sendInitialEvents: the state comes first, with a bookmark that ends it."""
    without_state: bool
    bookmarks: bool
    seconds: float

    async def run(self, sink: Sink) -> None:
        """Write the watch to `sink` until its time is over or the store ends. Cancelled when the client goes."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.seconds
        encoder = _Encoder(self.view, self.chosen)
        state: list[Cached] = []
        after = self.start
        if self.initial or not after:
            state, after = state_of(self.cache, self.prefix)
            if self.without_state:
                state = []
        try:
            since = self.cache.subscribe(self.prefix, after)  # what happens while the state is being sent
        except Compacted as error:
            sink.write(_expired(f"too old resource version: {after} ({error.oldest})"))
            return
        except FutureRevision:
            sink.write(_expired(f"too new resource version: {after}"))
            return
        try:
            await self._send_state(sink, encoder, state, after)
            state.clear()
            missed = since.take()
        except Overflow:
            sink.write(Chunk(TOO_SLOW))
            return
        except StoreError:
            return
        finally:
            since.close()
        await self._follow(sink, encoder, missed, ends)

    async def _follow(self, sink: Sink, encoder: "_Encoder", missed: Sequence[CacheEvent], ends: float) -> None:
        """Nothing is awaited from here until the group has us, so no event is lost or sent twice."""
        member = Member(sink, self.bookmarks)
        group = self.fanout.group(self._key(), self.prefix, lambda: encoder)
        try:
            group.join(member)
            if lines := encoder.events(missed):
                sink.write(Chunk(b"".join(lines)))
            await asyncio.wait((member.ended,), timeout=max(ends - asyncio.get_running_loop().time(), 0))
            if self.bookmarks and not member.ended.done():
                sink.write(Chunk(encoder.bookmark(group.join(member))))
        except StoreError:
            return
        finally:
            group.leave(member)

    def _key(self) -> tuple[Any, ...]:
        # A Table watch has its columns in its own first event, so it is a group of its own.
        return (self.prefix, self.chosen, self.view, None if self.view.form != "Table" else id(self))

    async def _send_state(self, sink: Sink, encoder: "_Encoder", state: list[Cached], after: int) -> None:
        chunk: list[bytes] = []
        size = 0
        for cached in state:
            if self.chosen.matches(cached):
                chunk.append(encoder.line("ADDED", cached))
                size += len(chunk[-1])
                if size > _CHUNK:
                    sink.write(Chunk(b"".join(chunk)))
                    await sink.drain()
                    chunk, size = [], 0
        if self.initial:
            chunk.append(encoder.bookmark(after, end_of_state=True))
        if chunk:
            sink.write(Chunk(b"".join(chunk)))
            await sink.drain()


def _expired(message: str) -> Chunk:
    return Chunk(watch_line("ERROR", to_json(status.expired(message).to_dict())))


class _Encoder:
    """Events as lines in one view. Plain events of stored versions are the shared bytes themselves."""

    def __init__(self, view: views.View, chosen: Selection) -> None:
        self.view = view
        self._chosen = chosen
        resource = view.resource
        self._shared = view.plain and resource.storage_version == resource.api_version
        self._first = True

    def line(self, kind: str, cached: Cached) -> bytes:
        if self.view.plain:
            return watch_line(kind, self.view.data(cached))
        columns, self._first = self._first, False
        return watch_line(kind, to_json(self.view.one(cached.object, columns=columns)))

    def events(self, events: Sequence[CacheEvent]) -> list[bytes]:
        chosen = self._chosen
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
