"""Watches: from which revision, in which form, until when. What then happens to everybody alike is fanout.py.

A watch is: the state (when asked for, or when no revision is named), the events since, then whatever comes; bookmarks
in between. Source of the semantics: kubernetes.io/docs/reference/using-api/api-concepts.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane import clock
from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.apiserver.customresources import conversion
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry import options as list_options
from controlplane.apiserver.registry import views
from controlplane.apiserver.registry.fanout import TOO_SLOW, Fanout, Member, Subject
from controlplane.apiserver.registry.generic import Registry
from controlplane.apiserver.registry.options import ListOptions
from controlplane.apiserver.registry.selection import (
    EVERYTHING_SELECTED,
    Selection,
    selection,
    single_key,
    wait_for,
)
from controlplane.apiserver.registry.selection import state as state_of
from controlplane.apiserver.streams import Chunk, Feed, Sink
from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import Cached, CacheEvent, CacheWatcher, WatchCache
from controlplane.store.interface import Compacted, FutureRevision, StoreError

if TYPE_CHECKING:
    from controlplane.api.schema.kind import CustomKind

Object = dict[str, Any]
_CHUNK = 1 << 18
_SLICE_S = 0.005  # how long the loop may be kept by the state of one watch
_SHORTEST_S = 1800
"""A watch without timeoutSeconds lasts this long, up to twice of it: so that they do not all come back at once."""


async def watch_objects(
    registry: Registry, fanout: Fanout, request: Request, resource: Resource, namespace: str, name: str = ""
) -> Response:
    """`name`: from the path, for a watch of one object. Raises StatusError 400, 406, 422, 504; a revision that is gone
    is told as an ERROR event, as Kubernetes does."""
    chosen = selection(request, resource, name)
    view = views.of(request, resource, watching=True)
    options = list_options.read(request, watching=True)
    prefix = registry.prefix(resource, namespace)
    if options.revision:
        await wait_for(registry.cache, options.revision)
    single = single_key(prefix, chosen, namespace, resource)
    if single:
        prefix, chosen = single, EVERYTHING_SELECTED
    watch = _Watch(registry.cache, fanout, view, prefix, chosen, options)
    return Response(stream=Feed(watch.run), content_type=view.stream_type)


@dataclass(frozen=True, slots=True)
class _Watch:
    cache: WatchCache
    fanout: Fanout
    view: views.View
    prefix: str
    chosen: Selection
    options: ListOptions

    async def run(self, sink: Sink) -> None:
        """Write the watch to `sink` until its time is over or the store ends. Cancelled when the client goes."""
        options = self.options
        seconds = options.timeout or _SHORTEST_S * (1 + clock.chance.random())
        ends = asyncio.get_running_loop().time() + seconds
        encoder = _Encoder(self.view, self.chosen)
        state: list[Cached] = []
        after = options.revision
        if options.initial or not after:
            state, after = state_of(self.cache, self.prefix)
            if options.initial is False:
                state = []
        try:
            since = self.cache.subscribe(self.prefix, after)  # what happens while the state is being sent
        except Compacted as error:
            sink.write(Chunk(encoder.error(status.expired(f"too old resource version: {after} ({error.oldest})"))))
            return
        except FutureRevision:
            sink.write(Chunk(encoder.error(status.expired(f"too new resource version: {after}"))))
            return
        try:
            custom = self.view.resource.custom
            if custom is not None:
                await conversion.prepare(state, custom)
            await self._send_state(sink, encoder, state, after)
            state.clear()
            missed = since.take()
            while custom is not None and missed and (more := await _converted(missed, custom, since)):
                missed = [*missed, *more]
        except Overflow:
            sink.write(Chunk(encoder.error(TOO_SLOW)))
            return
        except status.StatusError as error:  # a conversion that failed
            sink.write(Chunk(encoder.error(error)))
            return
        except StoreError:
            return
        finally:
            since.close()
        await self._follow(sink, encoder, missed, ends)

    async def _follow(self, sink: Sink, encoder: "_Encoder", missed: Sequence[CacheEvent], ends: float) -> None:
        """Nothing is awaited from here until the group has us, so no event is lost or sent twice."""
        custom = self.view.resource.custom
        if custom is not None and custom.retired:
            return  # its definition changed meanwhile: the client watches again, and sees it as it is now
        member = Member(sink, self.options.bookmarks)
        group = self.fanout.group(self._key(), self.prefix, lambda: encoder, self._subject())
        try:
            group.join(member)
            if lines := encoder.events(missed):
                sink.write(Chunk(b"".join(lines)))
            await asyncio.wait((member.ended,), timeout=max(ends - asyncio.get_running_loop().time(), 0))
            if self.options.bookmarks and not member.ended.done():
                sink.write(Chunk(encoder.bookmark(group.join(member))))
        except (StoreError, conversion.NotConverted):
            return
        finally:
            group.leave(member)

    def _key(self) -> tuple[Any, ...]:
        # A Table watch has its columns in its own first event, so it is a group of its own.
        return (self.prefix, self.chosen, self.view, id(self) if isinstance(self.view, views.Table) else None)

    async def _send_state(self, sink: Sink, encoder: "_Encoder", state: list[Cached], after: int) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _SLICE_S
        lines: list[bytes] = []
        size = 0
        for cached in state:
            if self.chosen.matches(cached):
                lines.append(encoder.state(cached))
                size += len(lines[-1])
                if size > _CHUNK:
                    await self._send(sink, lines)
                    lines, size = [], 0
            if loop.time() > until:
                await asyncio.sleep(0)
                until = loop.time() + _SLICE_S
        if self.options.initial and self.options.bookmarks:
            lines.append(encoder.bookmark(after, end_of_state=True))
        if lines:
            await self._send(sink, lines)

    async def _send(self, sink: Sink, lines: list[bytes]) -> None:
        chunk = Chunk(b"".join(lines))
        self.fanout.count(self._subject(), len(lines), len(chunk.data))
        sink.write(chunk)
        await sink.drain()

    def _subject(self) -> Subject:
        resource = self.view.resource
        return resource.group, resource.version, resource.plural


async def _converted(events: Sequence[CacheEvent], custom: "CustomKind", since: CacheWatcher) -> Sequence[CacheEvent]:
    """Have the objects of `events` converted; what happened meanwhile. Raises StatusError."""
    await conversion.prepare([event.cached for event in events], custom)
    return since.take()


class _Encoder:
    """Events in one view. Plain events of stored versions are the shared bytes themselves; what another view makes of
    an event is kept with it, so that it is made once for all groups of watchers that want it so."""

    def __init__(self, view: views.View, chosen: Selection) -> None:
        self.view = view
        self._chosen = chosen
        self._shared = view.ready
        self._first = isinstance(view, views.Table)

    def state(self, cached: Cached) -> bytes:
        """An object that was there before the watch."""
        first, self._first = self._first, False
        return self.view.event("ADDED", cached, first=first)

    def events(self, events: Sequence[CacheEvent]) -> list[bytes]:
        chosen = self._chosen
        if chosen.everything:
            if self._shared:
                return [event.line for event in events]
            return [self._event(event.type, event) for event in events]
        lines = []
        for event in events:
            kind = _seen(event, chosen)
            if not kind:
                continue
            lines.append(event.line if self._shared and kind == event.type else self._event(kind, event))
        return lines

    def _event(self, kind: str, event: CacheEvent) -> bytes:
        if self._first:
            self._first = False
            return self.view.event(kind, event.cached, first=True)
        memo = event.memo
        if memo is None:
            memo = event.memo = {}
            _remember(event)
        key = (kind, self.view)
        made: bytes | None = memo.get(key)
        if made is None:
            cached = event.cached
            if kind == "DELETED" and event.type != "DELETED" and event.previous is not None:
                # It left the selection: the client is told of the state that it knew, at this revision.
                cached = event.previous.at_revision(event.revision)
            made = memo[key] = self.view.event(kind, cached)
        return made

    def bookmark(self, revision: int, *, end_of_state: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if end_of_state:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        return self.view.bookmark(metadata)

    def error(self, error: status.StatusError) -> bytes:
        return self.view.error(error)


_remembered: deque[CacheEvent] = deque()
_REMEMBERED = 512
"""Events whose other encodings are kept: all groups of watchers come to an event at nearly the same time, and the
cache's window, which keeps thousands, need not keep them in every form."""


def _remember(event: CacheEvent) -> None:
    _remembered.append(event)
    if len(_remembered) > _REMEMBERED:
        _remembered.popleft().memo = None


def _seen(event: CacheEvent, chosen: Selection) -> str:
    """What a watcher of `chosen` sees of an event: an object that enters or leaves the selection is new or gone."""
    now = event.type != "DELETED" and chosen.matches(event.cached)
    before = event.previous is not None and chosen.matches(event.previous)
    if now:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else ""
