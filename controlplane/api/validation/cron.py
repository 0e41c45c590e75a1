"""Whether a CronJob's schedule can be read: five fields, as github.com/robfig/cron's standard parser takes them."""

import re
import zoneinfo

_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11,
    "dec": 12,
}  # fmt: skip
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, _MONTHS), (0, 6, _DAYS),
)  # fmt: skip
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


def complaint(schedule: str) -> str:
    """What is wrong with a schedule; empty if nothing is."""
    if "TZ" in schedule:
        return "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    if schedule.startswith("@every "):
        length = schedule.removeprefix("@every ")
        fits = length and not _DURATION.sub("", length.removeprefix("-"))
        return "" if fits else f'failed to parse duration {schedule}: time: invalid duration "{length}"'
    if schedule.startswith("@"):
        return "" if schedule in _MACROS else f"unrecognized descriptor: {schedule}"
    parts = schedule.split()
    if len(parts) != 5:
        return f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]"
    for part, (low, high, called) in zip(parts, _FIELDS, strict=True):
        for expression in part.split(","):
            if trouble := _range(expression, low, high, called) if expression else "":
                return trouble
    return ""


def _range(expression: str, low: int, high: int, called: dict[str, int]) -> str:
    span, *steps = expression.split("/")
    ends = span.split("-")
    if ends[0] in ("*", "?"):
        first, last = low, high
    else:
        numbers = [_number(end, called) for end in ends]
        for end, number in zip(ends, numbers, strict=True):
            if number is None:
                return f'failed to parse int from {end}: strconv.Atoi: parsing "{end}": invalid syntax'
        if len(numbers) > 2:
            return f"too many hyphens: {expression}"
        first = numbers[0] or 0
        last = (numbers[-1] or 0) if len(numbers) == 2 or not steps else high
    if len(steps) > 1:
        return f"too many slashes: {expression}"
    step = _number(steps[0], {}) if steps else 1
    if step is None:
        return f'failed to parse int from {steps[0]}: strconv.Atoi: parsing "{steps[0]}": invalid syntax'
    if first < low:
        return f"beginning of range ({first}) below minimum ({low}): {expression}"
    if last > high:
        return f"end of range ({last}) above maximum ({high}): {expression}"
    if first > last:
        return f"beginning of range ({first}) beyond end of range ({last}): {expression}"
    return f"step of range should be a positive number: {expression}" if step == 0 else ""


def _number(text: str, called: dict[str, int]) -> int | None:
    found = called.get(text.lower())
    if found is not None:
        return found
    return int(text) if text.isascii() and text.isdecimal() else None


def zone_complaint(zone: str) -> str:
    """What is wrong with a time zone's name; empty if nothing is."""
    if not zone:
        return "timeZone must be nil or non-empty string"
    if zone.lower() == "local":
        return "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    if not _ZONE.fullmatch(zone):
        return f"unknown time zone {zone}"
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return f"unknown time zone {zone}"
    return ""
