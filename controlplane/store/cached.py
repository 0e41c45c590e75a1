"""What the cache holds and hands out: an object as bytes, and an event about it. Shared by everybody, so: read only.

Bytes are what most requests need; the decoded dict is made when somebody asks and forgotten again after a while,
because it is about eight times as big as its JSON. `labels` are kept: selectors ask for them again and again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from controlplane.store.interface import resplice

_decode = msgspec.json.Decoder().decode


class _Metadata(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct, gc=False):
    metadata: _Metadata


_decode_labels = msgspec.json.Decoder(_Labelled).decode
_NO_LABELS: dict[str, str] = {}


class Decoded:
    """Which objects are decoded at the moment, oldest first, so that their number stays bounded."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes  # counted in JSON; the dicts take about eight times that
        self._queue: deque[Cached] = deque()
        self._bytes = 0

    def add(self, cached: Cached) -> None:
        self._queue.append(cached)
        self._bytes += len(cached.data)
        while self._bytes > self.limit_bytes and len(self._queue) > 1:
            oldest = self._queue.popleft()
            self._bytes -= len(oldest.data)
            oldest._object = None

    def clear(self) -> None:
        """Forget them all, e.g. when memory is short."""
        for cached in self._queue:
            cached._object = None
        self._queue.clear()
        self._bytes = 0


decoded = Decoded(limit_bytes=4 << 20)


class Cached(msgspec.Struct, gc=False, eq=False, weakref=False):
    """One object at one revision. `data` is its JSON with the resourceVersion in it."""

    key: str
    data: bytes
    revision: int
    create_revision: int
    _object: dict[str, Any] | None = None
    _labels: dict[str, str] | None = None

    @property
    def object(self) -> dict[str, Any]:
        """The decoded object. Shared and never to be changed; not to be kept for long either (it is a memory cost)."""
        obj = self._object
        if obj is None:
            obj = self._object = _decode(self.data)
            decoded.add(self)
        return obj

    @property
    def labels(self) -> dict[str, str]:
        """metadata.labels, without decoding the rest."""
        labels = self._labels
        if labels is None:
            labels = self._labels = _decode_labels(self.data).metadata.labels or _NO_LABELS
        return labels

    def at_revision(self, revision: int) -> Cached:
        """The same content with another resourceVersion: what a watcher is told when the object left its selection."""
        return Cached(self.key, resplice(self.data, self.revision, revision), revision, self.create_revision)


class CacheEvent(msgspec.Struct, gc=False, eq=False):
    """One write. `type` is ADDED, MODIFIED or DELETED; `cached` is the new state or, of a delete, the last one with
    the delete's revision; `previous` is what was there before."""

    type: str
    cached: Cached
    previous: Cached | None
    memo: dict[Any, Any] | None = None  # for whoever encodes the event in another way: once for all watchers
    _line: bytes | None = None

    @property
    def key(self) -> str:
        return self.cached.key

    @property
    def revision(self) -> int:
        return self.cached.revision

    @property
    def size(self) -> int:
        return len(self.cached.data) + 200

    @property
    def line(self) -> bytes:
        """The event as Kubernetes sends it on a watch, with its newline. Made once, shared by all watchers."""
        line = self._line
        if line is None:
            line = self._line = watch_line(self.type, self.cached.data)
        return line


def watch_line(type_: str, data: bytes) -> bytes:
    """`{"type":"ADDED","object":…}` and a newline."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), data)
