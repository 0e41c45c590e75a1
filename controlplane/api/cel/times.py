"""Go's durations as texts: "1h30m", "-1.5s"."""

import re
from datetime import timedelta

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def duration(text: str) -> timedelta:
    """Raises ValueError."""
    if text in ("0", "+0", "-0"):
        return timedelta()
    seconds, at = 0.0, 1 if text[:1] in ("-", "+") else 0
    if at == len(text):
        raise ValueError(f'time: invalid duration "{text}"')
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise ValueError(f'time: invalid duration "{text}"')
        seconds += float(found[1]) * _UNIT_SECONDS[found[2]]
        at = found.end()
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)
