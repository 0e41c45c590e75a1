"""How long to wait before the next attempt: exponential, with jitter, reset by success. It does not wait itself."""

from controlplane.clock import chance


class Backoff:
    """`next()` gives seconds: `first`, doubled each time up to `longest`, each times 0.5 … 1.5."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._now = first

    def next(self) -> float:
        """Seconds to wait now."""
        seconds = self._now * (0.5 + chance.random())
        self._now = min(self._now * 2, self._longest)
        return seconds

    def reset(self) -> None:
        """After a success."""
        self._now = self._first
