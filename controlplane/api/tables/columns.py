"""What tables are made of: a column, ages and durations as people read them, selectors as text."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from controlplane.api.selectors import from_selector

Object = dict[str, Any]
Cell = Callable[[Object, float], Any]


class Column(NamedTuple):
    """A heading, and how to take its cell from an object (given the present, in seconds since the epoch)."""

    name: str
    cell: Cell
    type: str = "string"
    wide: bool = False
    description: str = ""


def seconds_since(text: str | None, now: float) -> float | None:
    """Seconds from an RFC 3339 time until `now`; None if there is no such time."""
    if not text:
        return None
    try:
        return now - datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def duration(seconds: float | None) -> str:
    """A duration in its two largest units, as kubectl prints ages: 45s, 3m10s, 5h, 2d4h, 1y30d."""
    if seconds is None:
        return "<unknown>"
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    if minutes < 10:
        return _pair(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _pair(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _pair(large: int, unit: str, small: int, smaller: str) -> str:
    return f"{large}{unit}{small}{smaller}" if small else f"{large}{unit}"


def since(text: str | None, now: float) -> str:
    """An RFC 3339 time as an age."""
    return duration(seconds_since(text, now))


def name_of(obj: Object, now: float) -> str:
    """The Name column."""
    text: str = obj["metadata"].get("name", "")
    return text


def age_of(obj: Object, now: float) -> str:
    """The Age column."""
    return since(obj["metadata"].get("creationTimestamp"), now)


def at(*path: str, default: Any = "<none>") -> Cell:
    """A cell that shows the value at a path of field names."""

    def cell(obj: Object, now: float) -> Any:
        value: Any = obj
        for field in path:
            value = value.get(field) if isinstance(value, Mapping) else None
            if value is None:
                return default
        return value

    return cell


def number(*path: str) -> Cell:
    """A cell that shows the integer at a path, 0 if there is none."""
    return at(*path, default=0)


def joined(values: Iterable[str], empty: str = "<none>", limit: int = 0) -> str:
    """Texts with commas between them; with `limit`, the first few and how many more there are."""
    found = list(values)
    if not found:
        return empty
    if limit and len(found) > limit:
        return ",".join(found[:limit]) + f" + {len(found) - limit} more..."
    return ",".join(found)


def pairs(labels: Mapping[str, str] | None, empty: str = "<none>") -> str:
    """Labels as text: "a=b,c=d"."""
    return joined((f"{key}={value}" for key, value in sorted((labels or {}).items())), empty)


def selector(*path: str) -> Cell:
    """A cell that shows the metav1.LabelSelector at a path."""
    look = at(*path, default=None)

    def cell(obj: Object, now: float) -> str:
        found = look(obj, now)
        if found is None:
            return "<none>"
        try:
            return str(from_selector(found)) or "<none>"
        except ValueError:
            return "<error>"

    return cell


def template_containers(field: str) -> Cell:
    """A cell that shows one field ("name", "image") of the containers of a workload's template."""

    def cell(obj: Object, now: float) -> str:
        containers = obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or ()
        return joined((each.get(field, "") for each in containers), "")

    return cell


NAME = Column(
    "Name",
    name_of,
    description="Name must be unique within a namespace. Is required when creating resources, although some resources "
    "may allow a client to request the generation of an appropriate name automatically.",
)
AGE = Column(
    "Age",
    age_of,
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)
CREATED = Column(
    "Created At",
    lambda obj, now: obj["metadata"].get("creationTimestamp"),
    "date",
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)
"""What Kubernetes shows of kinds that have no columns of their own; kubectl prints the date as it is."""
GENERIC = (NAME, CREATED)
CONTAINERS = Column("Containers", template_containers("name"), wide=True)
IMAGES = Column("Images", template_containers("image"), wide=True)
