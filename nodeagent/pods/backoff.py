"""Exponential back-off by key, with Kubernetes' rules for crashing containers and failing image pulls.

The first failure costs nothing; each following one waits 10 s, 20 s, ... up to 5 min, counted from when the failure
happened. Two maxima (10 min) without a failure forget the past (client-go's util/flowcontrol/backoff.go).
It reads no clock: every time is given.
"""

from __future__ import annotations


class Backoff:
    """Delays in seconds; times in seconds since the epoch."""

    __slots__ = ("_entries", "initial_s", "maximum_s")

    def __init__(self, initial_s: float = 10.0, maximum_s: float = 300.0) -> None:
        self.initial_s = initial_s
        self.maximum_s = maximum_s
        self._entries: dict[str, tuple[float, float]] = {}

    def until(self, key: str, failed_at: float) -> float:
        """When `key`, which failed at `failed_at`, may be tried again; 0 when at once."""
        entry = self._entries.get(key)
        if entry is None or failed_at - entry[1] > 2 * self.maximum_s:
            return 0.0
        return failed_at + entry[0]

    def delay(self, key: str) -> float:
        """The delay now in force for `key`, for messages."""
        entry = self._entries.get(key)
        return entry[0] if entry else 0.0

    def next(self, key: str, failed_at: float, now: float) -> None:
        """`key` is tried again after the failure at `failed_at`: double its delay, or start it."""
        entry = self._entries.get(key)
        if entry is None or failed_at - entry[1] > 2 * self.maximum_s:
            self._entries[key] = (self.initial_s, now)
        else:
            self._entries[key] = (min(entry[0] * 2, self.maximum_s), now)

    def recall(self, key: str, waited_s: float, since: float) -> None:
        """Go on from a delay that was in force at `since`, as an earlier agent left it; nothing if one is known."""
        if key not in self._entries:
            self._entries[key] = (min(max(waited_s, self.initial_s), self.maximum_s), since)

    def reset(self, key: str) -> None:
        self._entries.pop(key, None)

    def forget_old(self, now: float) -> None:
        """Drop keys that nothing failed for in two maxima."""
        for key in [k for k, (_, updated) in self._entries.items() if now - updated > 2 * self.maximum_s]:
            del self._entries[key]
