"""What a store promises, whatever keeps the bytes: SQLite (`sqlite.py`), memory (`memory.py`), later etcd.

A store is a map from keys to opaque bytes with one counter, the *revision*: every write gets the next number, and for
a while the past stays readable at any of them (until `compact`). That is etcd's model, cut down to what an API server
needs: create, compare-and-set, compare-and-delete, ordered ranges, and a watch that misses nothing.

It is not the watch cache (`cache.py`), which the API server reads from, and it knows nothing of JSON except in
`splice`: values carry no resourceVersion because a write's revision is only known after its commit.

Keys: `<group or "core">/<plural>/<namespace>/<name>`, or `<group or "core">/<plural>/<name>` without a namespace.
Prefixes, here and in the cache: `""` (everything) or a leading part of keys that ends in `/`. A watch also takes one
whole key, and then means that key only.

Semantics follow etcd's KV and Watch services (etcd.io/docs, "etcd API"): compaction at R keeps reads at R working.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

import msgspec


class StoreError(Exception):
    """Base of everything a store raises on purpose; by itself: the backend failed (the cause is chained)."""


class KeyExists(StoreError):
    """`create` of a key that is there."""


class KeyMissing(StoreError):
    """`update` or `delete` of a key that is not there."""


class Conflict(StoreError):
    """The key is there, but not at the expected revision. `current` is the revision it is at."""

    def __init__(self, key: str, current: int) -> None:
        super().__init__(f"{key} is at revision {current}")
        self.current = current


class Compacted(StoreError):
    """The revision asked for is forgotten. `oldest` is the oldest one that can still be read or watched from."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class FutureRevision(StoreError):
    """A read at a revision that has not happened yet."""


class StoreClosed(StoreError):
    """The store is not open (any more). A write that raises this may or may not have happened."""


class StoreFull(StoreError):
    """No space left. The write did not happen; writes work again when there is space."""


class EventType(StrEnum):
    PUT = "PUT"
    DELETE = "DELETE"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One key at one revision. Immutable and shared; `create_revision` is kept until the key is deleted."""

    key: str
    value: bytes
    create_revision: int
    revision: int


class Event(msgspec.Struct, frozen=True, gc=False):
    """One write. Of a delete, `record` has the delete's own revision and an empty value: what was there before is
    known to whoever followed (as the cache does), and a remote store need not send it twice."""

    type: EventType
    record: Record

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def revision(self) -> int:
        return self.record.revision

    @property
    def size(self) -> int:
        """Bytes that keeping this event costs, about."""
        return len(self.record.value) + 200


class Page(msgspec.Struct, frozen=True):
    """A part of a range: `records` sorted by key, as of `revision`; `remaining` more follow."""

    records: list[Record]
    revision: int
    remaining: int


class Store(Protocol):
    """Every method raises StoreClosed unless the store is open. All are called on one event loop."""

    @property
    def current_revision(self) -> int:
        """Of the last write that this process knows to be durable. Never goes back, also across restarts."""

    @property
    def compacted_revision(self) -> int:
        """Reads and watches need at least this revision. 0 until the first compaction."""

    async def open(self) -> None:
        """Restore what was acknowledged. Raises StoreError if the backend cannot be used."""

    async def close(self) -> None:
        """Finish what was asked for and let go. Watches end with StoreClosed. No error if it is closed."""

    async def create(self, key: str, value: bytes) -> int:
        """Write a new key; returns its revision once it is durable. Raises KeyExists, StoreFull."""

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        """Replace a key that is at `expected_revision`. Raises KeyMissing, Conflict, StoreFull."""

    async def delete(self, key: str, expected_revision: int) -> int:
        """Remove a key that is at `expected_revision`; returns the delete's own revision. Raises as `update`."""

    async def get(self, key: str, revision: int | None = None) -> Record | None:
        """The key now, or as it was at `revision`. Raises Compacted, FutureRevision."""

    async def range(
        self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int | None = None, count: bool = True
    ) -> Page:
        """Records under `prefix` whose key is greater than `start_after`, at most `limit` (0: all), as of `revision`
        (None: now). Without `count`, `remaining` is 1 if there are any more: who reads everything need not pay for a
        number with each page. Raises Compacted, FutureRevision."""

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[list[Event]]:
        """Every event under `prefix` after `after_revision`, in order, once, in batches, for ever. A live event is
        handed over before the write that made it returns. Raises Compacted, StoreClosed."""

    def trouble(self) -> str:
        """What is wrong that opening the store again would mend, or "". Asked every few seconds, never twice a second:
        "nothing has moved since you last asked" is an answer."""

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted up to `revision`; returns when it is done, which may take a while
        and delays no write noticeably. Raises FutureRevision; no error if it is compacted already."""


def prefix_end(prefix: str) -> str:
    """The least string greater than every key that starts with `prefix` (which is not empty)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def covers(prefix: str, key: str) -> bool:
    """Whether a watch of `prefix` sees `key`."""
    return not prefix or (key.startswith(prefix) if prefix[-1] == "/" else key == prefix)


_HOLE = b'"metadata":{'


def splice(value: bytes, revision: int) -> bytes:
    """`value`, a JSON object, with `resourceVersion` put first into its metadata: the first `"metadata":{` in it.
    Writers therefore put nothing before it that could contain those bytes (only kind and apiVersion).

    Raises ValueError if there is no such place."""
    at = value.index(_HOLE) + 12
    comma = b"" if value[at : at + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (value[:at], revision, comma, value[at:])


def resplice(data: bytes, old: int, new: int) -> bytes:
    """`data`, which `splice` made for revision `old`, as it would be for `new`."""
    return data.replace(b'"metadata":{"resourceVersion":"%d"' % old, b'"metadata":{"resourceVersion":"%d"' % new, 1)
