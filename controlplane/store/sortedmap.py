"""A map sorted by key, with snapshots that cost almost nothing.

Mechanism: keys and values live in chunks of a few hundred, in order. Finding a place is two bisections; inserting
moves one chunk's worth of pointers. A snapshot takes references to the chunks it needs and marks them shared; the
next change of a shared chunk replaces it by a copy. So a snapshot stays as it was for as long as somebody holds it,
and what it costs is one copied chunk for each chunk that is changed meanwhile.

It is a B+tree of two levels: with a million entries the upper level has a few thousand, which is still cheap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Generic, TypeVar

V = TypeVar("V")

_CHUNK = 256  # entries after a split; a chunk has at most twice that


class _Chunk(Generic[V]):
    __slots__ = ("keys", "shared", "values")

    def __init__(self, keys: list[str], values: list[V]) -> None:
        self.keys = keys
        self.values = values
        self.shared = False


class Snapshot(Generic[V]):
    """The entries between two keys as they were at one moment. Never changes."""

    __slots__ = ("_chunks", "_end", "_lasts", "_start", "length")

    def __init__(self, chunks: list[_Chunk[V]], start: int, end: int) -> None:
        self._chunks = chunks
        self._start = start  # first entry, counted in the first chunk
        self._end = end  # behind the last entry, counted in the last chunk
        self._lasts = [chunk.keys[-1] for chunk in chunks]
        self.length = sum(len(chunk.keys) for chunk in chunks) - start
        if chunks:
            self.length -= len(chunks[-1].keys) - end

    def values(self) -> list[V]:
        """All values in order of their keys."""
        return self._slice(0, self._start, self.length)

    def page(self, start_after: str, limit: int) -> tuple[list[V], int]:
        """The first `limit` values (0: all) whose keys are greater than `start_after`, and how many follow them."""
        at = bisect_right(self._lasts, start_after)
        if at == len(self._chunks):
            return [], 0
        first = bisect_right(self._chunks[at].keys, start_after)
        if at == 0:
            first = max(first, self._start)
        before = sum(len(chunk.keys) for chunk in self._chunks[:at]) + first - self._start
        left = self.length - before
        count = min(limit, left) if limit else left
        return self._slice(at, first, count), left - count

    def _slice(self, at: int, first: int, count: int) -> list[V]:
        out: list[V] = []
        while count > 0:
            part = self._chunks[at].values[first : first + count]
            out += part
            count -= len(part)
            at += 1
            first = 0
        return out


class SortedMap(Generic[V]):
    """See the module. Keys are compared as text, by code point, which is also the order of their UTF-8."""

    def __init__(self, entries: Iterable[tuple[str, V]] = ()) -> None:
        """`entries` must be sorted by key and without doubles."""
        pairs = list(entries)
        self._chunks: list[_Chunk[V]] = [
            _Chunk([k for k, _ in part], [v for _, v in part])
            for part in (pairs[i : i + _CHUNK] for i in range(0, len(pairs), _CHUNK))
        ]
        self._lasts = [chunk.keys[-1] for chunk in self._chunks]

    def _own(self, at: int) -> _Chunk[V]:
        """The chunk at `at`, copied first if a snapshot holds it."""
        chunk = self._chunks[at]
        if chunk.shared:
            chunk = self._chunks[at] = _Chunk(chunk.keys.copy(), chunk.values.copy())
        return chunk

    def get(self, key: str) -> V | None:
        at = bisect_left(self._lasts, key)
        if at == len(self._chunks):
            return None
        chunk = self._chunks[at]
        i = bisect_left(chunk.keys, key)
        return chunk.values[i] if chunk.keys[i] == key else None

    def put(self, key: str, value: V) -> None:
        """Insert or replace."""
        if not self._chunks:
            self._chunks.append(_Chunk([key], [value]))
            self._lasts.append(key)
            return
        at = min(bisect_left(self._lasts, key), len(self._chunks) - 1)
        chunk = self._own(at)
        i = bisect_left(chunk.keys, key)
        if i < len(chunk.keys) and chunk.keys[i] == key:
            chunk.values[i] = value
            return
        chunk.keys.insert(i, key)
        chunk.values.insert(i, value)
        if len(chunk.keys) > 2 * _CHUNK:
            # Names made one after the other arrive at the end: leave the left chunk full there, not half empty.
            cut = 2 * _CHUNK if i == 2 * _CHUNK else _CHUNK
            right = _Chunk(chunk.keys[cut:], chunk.values[cut:])
            del chunk.keys[cut:], chunk.values[cut:]
            self._chunks.insert(at + 1, right)
            self._lasts.insert(at + 1, right.keys[-1])
        self._lasts[at] = chunk.keys[-1]

    def remove(self, key: str) -> None:
        """Raises KeyError if it is not there."""
        at = bisect_left(self._lasts, key)
        if at == len(self._chunks):
            raise KeyError(key)
        i = bisect_left(self._chunks[at].keys, key)
        if self._chunks[at].keys[i] != key:
            raise KeyError(key)
        chunk = self._own(at)
        del chunk.keys[i], chunk.values[i]
        if chunk.keys:
            self._lasts[at] = chunk.keys[-1]
            if len(chunk.keys) < _CHUNK // 4:
                self._merge(at)
        else:
            del self._chunks[at], self._lasts[at]

    def _merge(self, at: int) -> None:
        """Append a thin chunk to its left neighbour if both fit, so that many deletes do not leave many thin chunks."""
        if at == 0 or len(self._chunks[at - 1].keys) + len(self._chunks[at].keys) > _CHUNK:
            return
        left, right = self._own(at - 1), self._chunks[at]
        left.keys += right.keys
        left.values += right.values
        del self._chunks[at], self._lasts[at]
        self._lasts[at - 1] = left.keys[-1]

    def range(self, start: str, end: str | None) -> list[V]:
        """Values with start <= key < end (None: to the last), in order. For reading at once: no chunk is marked."""
        at = bisect_left(self._lasts, start)
        if at == len(self._lasts):
            return []
        keys = self._chunks[at].keys
        if end is not None and keys[bisect_left(keys, start)] >= end:
            return []  # what a write asks of each admission plugin: that there is nothing to obey
        return self._cut(start, end).values()

    def count(self, start: str, end: str | None) -> int:
        """How many entries there are with start <= key < end, without looking at them."""
        return self._cut(start, end).length

    def snapshot(self, start: str, end: str | None) -> Snapshot[V]:
        """The same entries, to be read later, unchanged."""
        snapshot = self._cut(start, end)
        for chunk in snapshot._chunks:
            chunk.shared = True
        return snapshot

    def _cut(self, start: str, end: str | None) -> Snapshot[V]:
        first = bisect_left(self._lasts, start)
        last = len(self._chunks) if end is None else min(bisect_left(self._lasts, end) + 1, len(self._chunks))
        chunks = self._chunks[first:last]
        if not chunks:
            return Snapshot([], 0, 0)
        stop = len(chunks[-1].keys) if end is None else bisect_left(chunks[-1].keys, end)
        return Snapshot(chunks, bisect_left(chunks[0].keys, start), stop)
