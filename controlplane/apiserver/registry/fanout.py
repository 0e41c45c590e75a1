"""One event to many watchers: watches that see the same are a group, which encodes an event once and hands the same
bytes to each member's connection.

    WatchCache ── watcher ──> Group.run ── Chunk ──> Sink.write, Sink.write, ... (plain calls, no task wakes up)

A group is one (prefix, selection, form). It costs one task and one cache watcher, a member costs a write. A member
joins after it was sent everything up to the group's position, and leaves when its time is over, its client has gone, or
it is too far behind, which ends it with 410 rather than let memory grow.

It knows neither HTTP (a Sink does) nor what a watch's parameters mean (watching.py does).
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Protocol

from controlplane.api import status
from controlplane.apiserver.customresources.conversion import NotConverted
from controlplane.apiserver.exposition import family
from controlplane.apiserver.streams import Chunk, Sink
from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import CacheEvent, WatchCache
from controlplane.store.interface import StoreError

log = logging.getLogger(__name__)
BOOKMARK_S = 60.0
_RESTS_FROM, _REST_S, _LONGEST_REST_S = 50, 20e-6, 0.25
"""A group of so many members rests after each dispatch, this long for each of them, which is twice what it cost: others
have their turn, and what is written meanwhile goes to a member in one piece, which costs hardly more than one event."""
TOO_SLOW = status.expired("the watch fell too far behind")


Sent = Callable[[int, int], None]
"""Told how many events, of how many bytes together, were sent."""
Subject = tuple[str, str, str]
"""group, version and plural of what is watched"""


class Encoder(Protocol):
    """How a group's events look."""

    def events(self, events: Sequence[CacheEvent]) -> list[bytes]:
        """A line for each event that is seen at all."""

    def bookmark(self, revision: int) -> bytes: ...
    def error(self, error: status.StatusError) -> bytes:
        """The event that ends a watch."""


class Member:
    """One watch in a group. `ended` is set when the group has no more for it."""

    __slots__ = ("bookmarks", "ended", "sink")

    def __init__(self, sink: Sink, bookmarks: bool) -> None:
        self.sink = sink
        self.bookmarks = bookmarks
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, last: bytes = b"") -> None:
        if not self.ended.done():
            if last:
                self.sink.write(Chunk(last))
            self.ended.set_result(None)


class Group:
    """Made with its first member, gone with its last."""

    def __init__(self, cache: WatchCache, prefix: str, encoder: Encoder, empty: Callable[[], None], sent: Sent) -> None:
        self._cache = cache
        self._sent = sent
        self.prefix = prefix
        self._encoder = encoder
        self._empty = empty
        self._members: dict[Member, None] = {}
        self._watcher = cache.subscribe(prefix)
        self._position = cache.revision
        self._marked_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name=f"watchers of {prefix}")

    def __len__(self) -> int:
        return len(self._members)

    @property
    def alive(self) -> bool:
        """Whether the store still has anything to say."""
        return not self._task.done()

    def join(self, member: Member) -> int:
        """Add a member, which will be sent what comes after the returned revision. Raises StoreError."""
        self._dispatch(self._watcher.take())
        self._members[member] = None
        return self._position

    def leave(self, member: Member) -> None:
        self._members.pop(member, None)
        if not self._members:
            self._empty()
            self._watcher.close()
            self._task.cancel()

    def close(self) -> None:
        """End every member."""
        self._watcher.close()  # the task hears of it, and ends them

    async def _run(self) -> None:
        try:
            while True:
                self._dispatch(await self._watcher.next(BOOKMARK_S))
                if (members := len(self._members)) >= _RESTS_FROM:
                    await asyncio.sleep(min(members * _REST_S, _LONGEST_REST_S))
        except Overflow:
            self._end(self._encoder.error(TOO_SLOW))
        except NotConverted:
            return
        except StoreError:
            self._end(b"")
        except Exception:
            log.exception("watch group ends")
            self._end(b"")

    def _end(self, last: bytes) -> None:
        self._empty()
        for member in tuple(self._members):
            member.end(last)

    def _dispatch(self, events: Sequence[CacheEvent]) -> None:
        # Nothing is queued after a take, so the group is as far as the cache is.
        self._position = self._cache.revision
        try:
            lines = self._encoder.events(events) if events else ()
        except NotConverted:
            self._watcher.close()
            self._end(b"")  # their next watches begin with converting what this one could not
            raise
        if lines:
            chunk = Chunk(lines[0] if len(lines) == 1 else b"".join(lines))
            self._sent(len(lines) * len(self._members), len(chunk.data) * len(self._members))
            for member in tuple(self._members):
                if not member.sink.write(chunk):
                    member.end(self._encoder.error(TOO_SLOW))
                    self._members.pop(member, None)
        now = asyncio.get_running_loop().time()
        if now - self._marked_at >= BOOKMARK_S:
            self._marked_at = now
            bookmark = Chunk(self._encoder.bookmark(self._position))
            for member in tuple(self._members):
                if member.bookmarks:
                    member.sink.write(bookmark)


class Fanout:
    """All groups of a server."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._groups: dict[Hashable, Group] = {}
        self._subjects: dict[Hashable, Subject] = {}
        self._totals: dict[Subject, list[int]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def members(self) -> int:
        """How many watches there are."""
        return sum(len(group) for group in self._groups.values())

    def close(self, prefix: str = "") -> None:
        """End all watches of keys below a prefix, as if their time were over."""
        for group in tuple(self._groups.values()):
            if group.prefix.startswith(prefix):
                group.close()

    def group(self, key: Hashable, prefix: str, make_encoder: Callable[[], Encoder], subject: Subject) -> Group:
        """The group with this key, made if there is none. `key` says everything that makes watches differ."""
        found = self._groups.get(key)
        if found is None or not found.alive:
            sent = partial(self.count, subject)
            made = Group(self._cache, prefix, make_encoder(), lambda: self._forget(key, made), sent)
            found = self._groups[key] = made
            self._subjects[key] = subject
        return found

    def _forget(self, key: Hashable, group: Group) -> None:
        if self._groups.get(key) is group:
            del self._groups[key], self._subjects[key]

    def count(self, subject: Subject, events: int, size: int) -> None:
        """Events that were sent to watchers, and their bytes."""
        total = self._totals.get(subject)
        if total is None:
            total = self._totals[subject] = [0, 0]
        total[0] += events
        total[1] += size

    def metrics(self) -> Iterator[str]:
        """Prometheus text: watches that there are, and what was sent to them."""
        watching: dict[Subject, int] = {}
        for key, group in self._groups.items():
            subject = self._subjects[key]
            watching[subject] = watching.get(subject, 0) + len(group)
        yield from family(
            "apiserver_longrunning_requests", "gauge", "Watches that are open.",
            (({"verb": "WATCH", **_labels(subject), "component": "apiserver"}, count)
             for subject, count in sorted(watching.items())),
        )  # fmt: skip
        totals = sorted(self._totals.items())
        yield from family(
            "apiserver_watch_events_total", "counter", "Number of events sent in watch clients.",
            ((_labels(subject), events) for subject, (events, _) in totals),
        )  # fmt: skip
        yield from family(
            "apiserver_watch_events_bytes_total", "counter", "Bytes of events sent in watch clients.",
            ((_labels(subject), size) for subject, (_, size) in totals),
        )  # fmt: skip


def _labels(subject: Subject) -> dict[str, str]:
    return dict(zip(("group", "version", "resource"), subject, strict=True))
