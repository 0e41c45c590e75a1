"""The functions that Kubernetes adds to CEL (kubernetes.io/docs/reference/using-api/cel): lists, sets, regular
expressions, URLs, quantities, IP addresses and networks, formats, versions.

One CelExtension whose overloads are Python functions; errors that they raise are the expression's. Two-variable
comprehensions are not there, because the CEL library does not offer them yet.
"""

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.api import quantity
from controlplane.api.cel import authorizer, values
from controlplane.api.cel.values import CIDR, FORMAT, IP, OPTIONAL, QUANTITY, SEMVER, kind_of
from controlplane.api.schema import regex
from controlplane.api.schema.formats import FORMATS

Entry = tuple[str, str, Sequence[str], bool, Callable[..., Any]]
"""Name, type of the result, types of the parameters, whether it is a member function, and what it does."""


def extension(cel: Any) -> Any:
    """The CelExtension with all of them; `cel` is the module of the library."""
    kinds = {
        "bool": cel.Type.BOOL, "int": cel.Type.INT, "double": cel.Type.DOUBLE, "string": cel.Type.STRING,
        "bytes": cel.Type.BYTES, "list": cel.Type.LIST, "map": cel.Type.MAP, "dyn": cel.Type.DYN,
        "timestamp": cel.Type.TIMESTAMP, "duration": cel.Type.DURATION,
    }  # fmt: skip
    by_name: dict[str, list[Any]] = {}
    for name, returns, parameters, member, function in _entries():
        made = by_name.setdefault(name, [])
        given = [kinds[parameter] for parameter in parameters]
        identity = f"kubernetes_{name.replace('.', '_')}_{len(made)}"
        made.append(cel.Overload(identity, kinds[returns], given, member, function))
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, made) for name, made in by_name.items()])


def _entries() -> list[Entry]:
    return [
        *_LISTS,
        *_SETS,
        *_REGEX,
        *_URLS,
        *_QUANTITIES,
        *_NETWORKS,
        *_SEMVERS,
        *_FORMATS,
        *_times(),
        *authorizer.ENTRIES,
    ]


def _holds(check: Callable[[str], Any]) -> Callable[[str], bool]:
    """Whether something can be parsed."""

    def holds(text: str, *more: Any) -> bool:
        try:
            check(text, *more)
        except ValueError:
            return False
        return True

    return holds


# --- lists and sets ---------------------------------------------------------------------------------------------------


def _is_sorted(items: list[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(items))


def _some(items: list[Any], name: str) -> list[Any]:
    if not items:
        raise ValueError(f"{name} called on empty list")
    return items


def _index(items: list[Any], wanted: Any) -> int:
    return next((at for at, each in enumerate(items) if _equal(each, wanted)), -1)


def _last_index(items: list[Any], wanted: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if _equal(items[at], wanted)), -1)


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _contains(one: list[Any], other: list[Any]) -> bool:
    return all(any(_equal(each, wanted) for each in one) for wanted in other)


_LISTS: list[Entry] = [
    ("isSorted", "bool", ("list",), True, _is_sorted),
    ("sum", "dyn", ("list",), True, lambda items: sum(items[1:], items[0]) if items else 0),
    ("min", "dyn", ("list",), True, lambda items: min(_some(items, "min"))),
    ("max", "dyn", ("list",), True, lambda items: max(_some(items, "max"))),
    ("indexOf", "int", ("list", "dyn"), True, _index),
    ("lastIndexOf", "int", ("list", "dyn"), True, _last_index),
]
_SETS: list[Entry] = [
    ("sets.contains", "bool", ("list", "list"), False, _contains),
    ("sets.equivalent", "bool", ("list", "list"), False, lambda a, b: _contains(a, b) and _contains(b, a)),
    ("sets.intersects", "bool", ("list", "list"), False, lambda a, b: any(_equal(x, y) for x in a for y in b)),
]
_REGEX: list[Entry] = [
    ("jsonpatch.escapeKey", "string", ("string",), False, lambda text: text.replace("~", "~0").replace("/", "~1")),
    ("find", "string", ("string", "string"), True, lambda text, pattern: (regex.find_all(pattern, text, 1) or [""])[0]),
    ("findAll", "list", ("string", "string"), True, lambda text, pattern: regex.find_all(pattern, text, -1)),
    ("findAll", "list", ("string", "string", "int"), True, lambda text, pattern, n: regex.find_all(pattern, text, n)),
]

# --- URLs -------------------------------------------------------------------------------------------------------------

_URLS: list[Entry] = [
    ("url", "dyn", ("string",), False, values.parse_url),
    ("isURL", "bool", ("string",), False, _holds(values.parse_url)),
    ("getScheme", "string", ("dyn",), True, lambda url: values.url_parts(url).scheme),
    ("getHost", "string", ("dyn",), True, values.url_host),
    ("getHostname", "string", ("dyn",), True, lambda url: values.url_parts(url).hostname or ""),
    ("getPort", "string", ("dyn",), True, lambda url: str(values.url_parts(url).port or "")),
    ("getEscapedPath", "string", ("dyn",), True, lambda url: values.url_parts(url).path),
    ("getQuery", "map", ("dyn",), True, values.url_query),
]

# --- what can be compared ---------------------------------------------------------------------------------------------


def _compare(one: Any, other: Any) -> int:
    if kind_of(one) == SEMVER:
        return values.compare_semver(one, other)
    left, right = values.quantity_of(one).nano, values.quantity_of(other).nano
    return (left > right) - (left < right)


def _amount(value: Any) -> int:
    return value * quantity.NANO if isinstance(value, int) else values.quantity_of(value).nano


def _is_whole(value: Any) -> bool:
    nano = values.quantity_of(value).nano
    return nano % quantity.NANO == 0 and -(1 << 63) <= nano // quantity.NANO < 1 << 63


def _whole(value: Any) -> int:
    if not _is_whole(value):
        raise ValueError("cannot convert value to integer")
    return values.quantity_of(value).nano // quantity.NANO


def _sign(value: Any) -> int:
    nano = values.quantity_of(value).nano
    return (nano > 0) - (nano < 0)


_QUANTITIES: list[Entry] = [
    ("quantity", "dyn", ("string",), False, values.parse_quantity),
    ("isQuantity", "bool", ("string",), False, _holds(quantity.parse)),
    ("isInteger", "bool", ("dyn",), True, _is_whole),
    ("asInteger", "int", ("dyn",), True, _whole),
    ("asApproximateFloat", "double", ("dyn",), True, lambda q: values.quantity_of(q).nano / quantity.NANO),
    ("sign", "int", ("dyn",), True, _sign),
    ("add", "dyn", ("dyn", "dyn"), True, lambda a, b: values.make_quantity(quantity.Quantity(_amount(a) + _amount(b)))),
    ("sub", "dyn", ("dyn", "dyn"), True, lambda a, b: values.make_quantity(quantity.Quantity(_amount(a) - _amount(b)))),
    ("isLessThan", "bool", ("dyn", "dyn"), True, lambda a, b: _compare(a, b) < 0),
    ("isGreaterThan", "bool", ("dyn", "dyn"), True, lambda a, b: _compare(a, b) > 0),
    ("compareTo", "int", ("dyn", "dyn"), True, _compare),
]
_SEMVERS: list[Entry] = [
    ("semver", "dyn", ("string",), False, values.parse_semver),
    ("semver", "dyn", ("string", "bool"), False, values.parse_semver),
    ("isSemver", "bool", ("string",), False, _holds(values.parse_semver)),
    ("isSemver", "bool", ("string", "bool"), False, _holds(values.parse_semver)),
    ("major", "int", ("dyn",), True, lambda version: values.semver_numbers(version)[0]),
    ("minor", "int", ("dyn",), True, lambda version: values.semver_numbers(version)[1]),
    ("patch", "int", ("dyn",), True, lambda version: values.semver_numbers(version)[2]),
]

# --- networks ---------------------------------------------------------------------------------------------------------


def _contains_ip(network: Any, address: Any) -> bool:
    ip = values.ip_of(values.parse_ip(address) if isinstance(address, str) else address)
    net = values.network_of(network)
    return net.version == ip.version and ip in net


def _contains_cidr(network: Any, other: Any) -> bool:
    outer = values.network_of(network)
    inner = values.network_of(values.parse_cidr(other) if isinstance(other, str) else other)
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _family(value: Any) -> int:
    return values.ip_of(value).version


def _masked(value: Any) -> Any:
    return {CIDR: str(values.network_of(value))}


def _is_link_local_multicast(value: Any) -> bool:
    ip = values.ip_of(value)
    if ip.version == 4:
        return ip.packed[:3] == b"\xe0\x00\x00"
    return ip.packed[0] == 0xFF and ip.packed[1] & 0x0F == 0x02


def _is_global_unicast(value: Any) -> bool:
    ip = values.ip_of(value)
    broadcast = str(ip) == "255.255.255.255"
    return not (ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_link_local or broadcast)


def _text(value: Any) -> str:
    kind = kind_of(value)
    if kind in (IP, CIDR, SEMVER, values.URL):
        return str(value[kind])
    if kind == QUANTITY:
        return str(values.quantity_of(value))
    raise ValueError("no such overload")


_NETWORKS: list[Entry] = [
    ("ip", "dyn", ("string",), False, values.parse_ip),
    ("ip", "dyn", ("dyn",), True, lambda cidr: {IP: str(values.cidr_parts(cidr)[0])}),
    ("isIP", "bool", ("string",), False, _holds(values.parse_ip)),
    ("ip.isCanonical", "bool", ("string",), False, lambda text: values.parse_ip(text)[IP] == text),
    ("family", "int", ("dyn",), True, _family),
    ("isUnspecified", "bool", ("dyn",), True, lambda ip: values.ip_of(ip).is_unspecified),
    ("isLoopback", "bool", ("dyn",), True, lambda ip: values.ip_of(ip).is_loopback),
    ("isLinkLocalMulticast", "bool", ("dyn",), True, _is_link_local_multicast),
    ("isLinkLocalUnicast", "bool", ("dyn",), True, lambda ip: values.ip_of(ip).is_link_local),
    ("isGlobalUnicast", "bool", ("dyn",), True, _is_global_unicast),
    ("cidr", "dyn", ("string",), False, values.parse_cidr),
    ("isCIDR", "bool", ("string",), False, _holds(values.parse_cidr)),
    ("containsIP", "bool", ("dyn", "dyn"), True, _contains_ip),
    ("containsCIDR", "bool", ("dyn", "dyn"), True, _contains_cidr),
    ("masked", "dyn", ("dyn",), True, _masked),
    ("prefixLength", "int", ("dyn",), True, lambda cidr: values.cidr_parts(cidr)[1]),
    ("string", "string", ("map",), False, _text),
]

# --- formats ----------------------------------------------------------------------------------------------------------


def _formats() -> list[Entry]:
    from controlplane.api import names

    checks: dict[str, Callable[[str], list[str]]] = {
        "dns1123Label": names.dns1123_label,
        "dns1123Subdomain": names.dns1123_subdomain,
        "dns1035Label": names.dns1035_label,
        "qualifiedName": names.qualified_name,
        "labelValue": names.label_value,
        "dns1123LabelPrefix": lambda text: names.dns1123_label(text.removesuffix("-") or "x"),
        "dns1123SubdomainPrefix": lambda text: names.dns1123_subdomain(text.removesuffix("-") or "x"),
        "dns1035LabelPrefix": lambda text: names.dns1035_label(text.removesuffix("-") or "x"),
        "uri": lambda text: [] if _holds(values.parse_url)(text) else ["invalid URI for request"],
        "uuid": lambda text: [] if FORMATS["uuid"](text) else ["does not match the UUID format"],
        "byte": lambda text: [] if FORMATS["byte"](text) else ["invalid base64"],
        "date": lambda text: [] if FORMATS["date"](text) else ["invalid date"],
        "datetime": lambda text: [] if FORMATS["datetime"](text) else ["invalid datetime"],
    }

    def validate(form: Any, text: str) -> Any:
        complaints = checks[values.of(form, FORMAT)](text)
        return {OPTIONAL: [complaints] if complaints else []}

    entries: list[Entry] = [
        ("validate", "dyn", ("dyn", "string"), True, validate),
        (
            "format.named",
            "dyn",
            ("string",),
            False,
            lambda name: {OPTIONAL: [{FORMAT: name}] if name in checks else []},
        ),
        ("hasValue", "bool", ("map",), True, lambda option: bool(values.of(option, OPTIONAL))),
        ("value", "dyn", ("map",), True, lambda option: values.of(option, OPTIONAL)[0]),
        ("orValue", "dyn", ("map", "dyn"), True, lambda option, other: (values.of(option, OPTIONAL) or [other])[0]),
    ]
    for name in checks:
        entries.append((f"format.{name}", "dyn", (), False, lambda name=name: {FORMAT: name}))
    return entries


_FORMATS = _formats()

# --- times written as texts -------------------------------------------------------------------------------------------


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text.upper())
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def _times() -> list[Entry]:
    """Fields with a format of times and durations are texts here: what CEL can do with times, they can do too."""
    from controlplane.api.cel.times import duration

    entries: list[Entry] = [
        ("getFullYear", "int", ("string",), True, lambda text: _moment(text).year),
        ("getMonth", "int", ("string",), True, lambda text: _moment(text).month - 1),
        ("getDate", "int", ("string",), True, lambda text: _moment(text).day),
        ("getDayOfMonth", "int", ("string",), True, lambda text: _moment(text).day - 1),
        ("getDayOfWeek", "int", ("string",), True, lambda text: _moment(text).isoweekday() % 7),
        ("getDayOfYear", "int", ("string",), True, lambda text: _moment(text).timetuple().tm_yday - 1),
        ("getHours", "int", ("string",), True, lambda text: _moment(text).hour),
        ("getMinutes", "int", ("string",), True, lambda text: _moment(text).minute),
        ("getSeconds", "int", ("string",), True, lambda text: _moment(text).second),
        ("_-_", "duration", ("string", "string"), False, lambda a, b: _moment(a) - _moment(b)),
        ("_-_", "duration", ("string", "timestamp"), False, lambda a, b: _moment(a) - b),
        ("_-_", "duration", ("timestamp", "string"), False, lambda a, b: a - _moment(b)),
        ("_-_", "timestamp", ("string", "duration"), False, lambda a, b: _moment(a) - b),
        ("_+_", "timestamp", ("string", "duration"), False, lambda a, b: _moment(a) + b),
    ]
    comparisons: dict[str, Callable[[Any, Any], bool]] = {
        "_<_": lambda a, b: a < b, "_<=_": lambda a, b: a <= b, "_>_": lambda a, b: a > b, "_>=_": lambda a, b: a >= b,
    }  # fmt: skip
    readers: tuple[tuple[str, Callable[[str], Any]], ...] = (("timestamp", _moment), ("duration", duration))
    for name, compare in comparisons.items():
        for kind, read in readers:
            left = _compared(compare, read, left=True)
            right = _compared(compare, read, left=False)
            entries.append((name, "bool", ("string", kind), False, left))
            entries.append((name, "bool", (kind, "string"), False, right))
    return entries


def _compared(
    compare: Callable[[Any, Any], bool], read: Callable[[str], Any], *, left: bool
) -> Callable[[Any, Any], bool]:
    def run(a: Any, b: Any) -> bool:
        return compare(read(a), _aware(b)) if left else compare(_aware(a), read(b))

    return run


def _aware(value: datetime | timedelta) -> datetime | timedelta:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
