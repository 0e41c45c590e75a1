"""Cron schedules: five fields, lists, ranges, steps, names, and @hourly and its like, in a time zone. Pure.

`Schedule.after(moment)` is the next time that fits. If both day fields are restricted, either may fit (as in cron(8)).
Times that a change to summer time skips are left out; those that it repeats happen once.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_MONTHS = {
    n: i + 1 for i, n in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
}
_DAYS = {n: i for i, n in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_YEARS = 5
"""A schedule that does not fit for so long never fits (30 February)."""


class Schedule:
    """A parsed schedule."""

    def __init__(self, text: str, zone: str = "") -> None:
        """`zone`: an IANA name; "" is UTC. Raises ValueError."""
        fields = _MACROS.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise ValueError(f"expected exactly 5 fields, found {len(fields)}: {text!r}")
        names: tuple[dict[str, int], ...] = ({}, {}, {}, _MONTHS, _DAYS)
        sets = [_field(f, *b, n) for f, b, n in zip(fields, _BOUNDS, names, strict=True)]
        self._minutes, self._hours, self._days, self._months = sets[:4]
        self._weekdays = {d % 7 for d in sets[4]}
        self._either_day = not fields[2].startswith(("*", "?")) and not fields[4].startswith(("*", "?"))
        self._zone: tzinfo = UTC
        if zone and zone != "UTC":
            try:
                self._zone = ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"unknown time zone {zone}") from error

    def after(self, moment: float) -> float | None:
        """The first time after `moment` (seconds since the epoch) that fits; None if there is none."""
        local = datetime.fromtimestamp(moment, self._zone).replace(second=0, microsecond=0, tzinfo=None)
        local += timedelta(minutes=1)
        last = local.year + _YEARS
        while local.year <= last:
            if local.month not in self._months or not self._fits_day(local):
                days = 1 if local.month in self._months else 32 - local.day
                local = (local + timedelta(days=days)).replace(hour=0, minute=0)
                if days > 1:
                    local = local.replace(day=1)
            elif local.hour not in self._hours:
                local = local.replace(minute=0) + timedelta(hours=1)
            elif local.minute not in self._minutes:
                local += timedelta(minutes=1)
            else:
                found = local.replace(tzinfo=self._zone).timestamp()
                exists = datetime.fromtimestamp(found, self._zone).replace(tzinfo=None) == local
                if exists and found > moment:
                    return found
                local += timedelta(minutes=1)
        return None

    def _fits_day(self, day: datetime) -> bool:
        by_date, by_weekday = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return by_date or by_weekday if self._either_day else by_date and by_weekday


def _field(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        try:
            every = int(step) if slash else 1
            if span in ("*", "?"):
                first, last = low, high
            else:
                a, dash, b = span.partition("-")
                first = names[a] if a in names else int(a)
                last = (names[b] if b in names else int(b)) if dash else (high if slash else first)
        except ValueError as error:
            raise ValueError(f"failed to parse {part!r} in a schedule") from error
        if every < 1 or not low <= first <= last <= high:
            raise ValueError(f"{part!r} is not within {low}-{high} in a schedule")
        found.update(range(first, last + 1, every))
    return found
