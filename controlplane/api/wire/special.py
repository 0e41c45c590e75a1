"""Messages that are something else in JSON: a quantity is text, a time is text, free JSON is itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from controlplane.api.wire.reader import Malformed, fields, signed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _parts(data: bytes, at: int, end: int, wires: dict[int, int]) -> dict[int, Any]:
    """Fields by number: numbers, or bytes. `wires` says which wire type each must have."""
    found: dict[int, Any] = {}
    for number, wire, first, last in fields(data, at, end):
        expected = wires.get(number)
        if expected is None:
            continue
        if wire != expected:
            raise Malformed(f"wrong wire type {wire}")
        found[number] = first if wire == 0 else data[first:last]
    return found


def _quantity(data: bytes, at: int, end: int, depth: int) -> str:
    if end - at > 2 and data[at] == 0x0A and data[at + 1] == end - at - 2 < 128:  # nothing but its one short text
        return data[at + 2 : end].decode()
    return _parts(data, at, end, {1: 2}).get(1, b"").decode() or "0"


def _int_or_string(data: bytes, at: int, end: int, depth: int) -> int | str:
    parts = _parts(data, at, end, {1: 0, 2: 0, 3: 2})
    if parts.get(1, 0) == 1:
        text: str = parts.get(3, b"").decode()
        return text
    return signed(parts.get(2, 0))


def _moment(data: bytes, at: int, end: int) -> datetime | None:
    parts = _parts(data, at, end, {1: 0, 2: 0})
    seconds, nanos = signed(parts.get(1, 0)), parts.get(2, 0)
    if not seconds and not nanos:
        return None  # Go's zero time, sent for a creationTimestamp that is not set
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _time(data: bytes, at: int, end: int, depth: int) -> str | None:
    moment = _moment(data, at, end)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _micro_time(data: bytes, at: int, end: int, depth: int) -> str | None:
    moment = _moment(data, at, end)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def _json(data: bytes, at: int, end: int, depth: int) -> Any:
    raw = _parts(data, at, end, {1: 2}).get(1, b"")
    return msgspec.json.decode(raw) if raw else None


def _items(data: bytes, at: int, end: int, depth: int) -> list[str]:
    found = []
    for number, wire, first, last in fields(data, at, end):
        if number == 1:
            if wire != 2:
                raise Malformed(f"wrong wire type {wire}")
            found.append(data[first:last].decode())
    return found


VALUES: dict[str, Callable[[bytes, int, int, int], Any]] = {
    "machinery.api.resource.Quantity": _quantity,
    "machinery.util.intstr.IntOrString": _int_or_string,
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.FieldsV1": _json,
    "machinery.runtime.RawExtension": _json,
    "apiextensions.v1.JSON": _json,
    "meta.v1.Verbs": _items,
    "authentication.v1.ExtraValue": _items,
    "authentication.v1.AttestationValue": _items,
    "authorization.v1.ExtraValue": _items,
    "certificates.v1.ExtraValue": _items,
}
"""Message -> what reads it, in bytes from one place to another."""
