"""What the cache holds and hands out: an object as bytes, and an event about it. Shared by everybody, so: read only.

Bytes are what most requests need; the decoded dict is made when somebody asks and forgotten again after a while,
because it is about eight times as big as its JSON. Another encoding of the object (what it is, only its maker knows)
can be kept beside it, bounded in the same way. `labels` are kept: selectors ask for them again and again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from controlplane.store.interface import resplice

_decode_all = msgspec.json.Decoder().decode


class _Metadata(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct, gc=False):
    metadata: _Metadata


class _WithMetadata(msgspec.Struct, gc=False):
    metadata: dict[str, Any]


class _WithRawMetadata(msgspec.Struct, gc=False):
    metadata: msgspec.Raw


_decode_labels = msgspec.json.Decoder(_Labelled).decode
_decode_metadata = msgspec.json.Decoder(_WithMetadata).decode
_cut_metadata = msgspec.json.Decoder(_WithRawMetadata).decode
_NO_LABELS: dict[str, str] = {}


def decode(data: bytes) -> dict[str, Any]:
    """An object's dict. What stands between two tabs is not decoded but stays JSON, a msgspec.Raw.

    A tab cannot be inside a JSON string, so whoever writes an object can mark one value as of no use to most readers:
    metadata.managedFields, often the half of an object and more than half of its dicts.
    """
    start = data.find(b"\t")
    if start < 0:
        found: dict[str, Any] = _decode_all(data)
        return found
    end = data.index(b"\t", start + 1) + 1
    found = _decode_all(b"%b0%b" % (data[:start], data[end:]))
    found["metadata"]["managedFields"] = msgspec.Raw(data[start:end])
    return found


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


class Encoded:
    """Which objects have another encoding beside their JSON at the moment, oldest first; bounded like `Decoded`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._queue: deque[tuple[Cached, int]] = deque()
        self._bytes = 0

    def add(self, cached: Cached, size: int) -> None:
        self._queue.append((cached, size))
        self._bytes += size
        while self._bytes > self.limit_bytes and len(self._queue) > 1:
            oldest, size = self._queue.popleft()
            self._bytes -= size
            oldest._kept = None


decoded = Decoded(limit_bytes=4 << 20)
encoded = Encoded(limit_bytes=32 << 20)


class Cached(msgspec.Struct, gc=False, eq=False, weakref=False):
    """One object at one revision. `data` is its JSON with the resourceVersion in it."""

    key: str
    data: bytes
    revision: int
    create_revision: int
    _object: dict[str, Any] | None = None
    _labels: dict[str, str] | None = None
    _kept: tuple[str, bytes] | None = None

    @property
    def object(self) -> dict[str, Any]:
        """The decoded object, its managedFields as a msgspec.Raw if they were written so (`decode`). Shared and never
        to be changed; not to be kept for long either (it is a memory cost)."""
        obj = self._object
        if obj is None:
            obj = self._object = decode(self.data)
            decoded.add(self)
        return obj

    @property
    def labels(self) -> dict[str, str]:
        """metadata.labels, without decoding the rest."""
        labels = self._labels
        if labels is None:
            labels = self._labels = _decode_labels(self.data).metadata.labels or _NO_LABELS
        return labels

    @property
    def metadata(self) -> dict[str, Any]:
        """Only the metadata, without decoding the rest if it is not decoded anyway. Not to be changed."""
        if self._object is not None:
            found: dict[str, Any] = self._object["metadata"]
            if type(found.get("managedFields")) is not msgspec.Raw:
                return found
        return _decode_metadata(self.data).metadata

    @property
    def raw_metadata(self) -> memoryview:
        """The metadata's JSON, cut out of `data`."""
        return memoryview(_cut_metadata(self.data).metadata)

    def kept(self, form: str) -> bytes | None:
        """What `keep` was told, if it is still there."""
        kept = self._kept
        return kept[1] if kept is not None and kept[0] == form else None

    def keep(self, form: str, data: bytes) -> None:
        """Keep an encoding of this object, in place of another, for whoever asks next."""
        if self._kept is None:
            encoded.add(self, len(data))
        self._kept = form, data

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
