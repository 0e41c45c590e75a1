"""When a node is under pressure: thresholds such as `memory.available<100Mi` or `nodefs.inodesFree<5%`. Pure.

A hard threshold acts at once, a soft one after it has held for its grace period. The condition that follows (and the
taint that a controller makes of it) stays for a while after the pressure has gone, so that it does not flap.
Syntax, signals and defaults: kubelet's pkg/kubelet/eviction (and kubernetes.io/docs, "Node-pressure Eviction").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.api import quantity

MEMORY, DISK, PIDS = "MemoryPressure", "DiskPressure", "PIDPressure"

SIGNALS: dict[str, tuple[str, str]] = {
    # signal: the node's condition, and the resource by the name that users read
    "memory.available": (MEMORY, "memory"),
    "nodefs.available": (DISK, "ephemeral-storage"),
    "nodefs.inodesFree": (DISK, "inodes"),
    "imagefs.available": (DISK, "ephemeral-storage"),
    "imagefs.inodesFree": (DISK, "inodes"),
    "pid.available": (PIDS, "pids"),
}
DEFAULT_HARD = (
    "memory.available<100Mi",
    "nodefs.available<10%",
    "nodefs.inodesFree<5%",
    "imagefs.available<15%",
    "imagefs.inodesFree<5%",
)


@dataclass(frozen=True, slots=True)
class Observation:
    """What is left of something, and how much there is at all. Bytes, inodes or process ids."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """`value`: a quantity as text, or a percentage of the capacity. `grace_s`: 0 for a hard threshold."""

    signal: str
    value: str
    grace_s: float = 0.0
    minimum_reclaim: str = "0"

    @property
    def condition(self) -> str:
        return SIGNALS[self.signal][0]

    @property
    def resource(self) -> str:
        return SIGNALS[self.signal][1]

    def amount(self, capacity: int) -> int:
        return amount(self.value, capacity)

    def met(self, seen: Observation, *, reclaim: bool = False) -> bool:
        """Whether less is left than may be; with `reclaim`, whether less is left than eviction should get back to."""
        wanted = self.amount(seen.capacity)
        if reclaim:
            wanted += amount(self.minimum_reclaim, seen.capacity)
        return seen.capacity > 0 and seen.available < wanted


def amount(text: str, capacity: int) -> int:
    """`100Mi` or `10%` (of `capacity`) as a number."""
    if text.endswith("%"):
        return int(capacity * float(text[:-1]) / 100)
    return quantity.of(text).value()


def parse(
    hard: Iterable[str], soft: Iterable[str] = (), grace: Iterable[str] = (), reclaim: Iterable[str] = ()
) -> list[Threshold]:
    """Thresholds from `signal<value` and from `signal=value` for grace periods (`1m30s`) and minimum reclaims. Raises
    ValueError with words for the user."""
    graces = {signal: seconds(value) for signal, value in _pairs(grace, "=")}
    reclaims = dict(_pairs(reclaim, "="))
    found = [Threshold(s, _checked(s, v), 0.0, reclaims.get(s, "0")) for s, v in _pairs(hard, "<")]
    for signal, value in _pairs(soft, "<"):
        if signal not in graces:
            raise ValueError(f"soft eviction threshold {signal} has no grace period (eviction_soft_grace_period)")
        found.append(Threshold(signal, _checked(signal, value), graces[signal], reclaims.get(signal, "0")))
    return [t for t in found if t.value not in ("0", "0%")]


def seconds(text: str) -> float:
    """A Go duration such as `1m30s`, `500ms` or `2h`. Raises ValueError."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    total, number, rest = 0.0, "", text.strip()
    if not rest:
        raise ValueError("empty duration")
    while rest:
        length = next((i for i, c in enumerate(rest) if not (c.isdigit() or c == ".")), len(rest))
        number, rest = rest[:length], rest[length:]
        unit = next((u for u in ("ms", "h", "m", "s") if rest.startswith(u)), "")
        if not number or not unit:
            raise ValueError(f"{text!r} is not a duration such as 1m30s")
        total += float(number) * units[unit]
        rest = rest[len(unit) :]
    return total


def _pairs(entries: Iterable[str], sign: str) -> list[tuple[str, str]]:
    pairs = []
    for entry in entries:
        signal, found, value = entry.partition(sign)
        if not found or signal not in SIGNALS or not value:
            raise ValueError(f"{entry!r} is not signal{sign}value; signals: {', '.join(SIGNALS)}")
        pairs.append((signal, value))
    return pairs


def _checked(signal: str, value: str) -> str:
    try:
        if amount(value, 100) < 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"{signal}<{value}: not a quantity or a percentage") from None
    return value


@dataclass(slots=True)
class Watch:
    """Follows thresholds over time. Times are the event loop's, in seconds."""

    thresholds: Sequence[Threshold]
    transition_s: float
    _since: dict[Threshold, float]
    _last: dict[str, float]

    @classmethod
    def of(cls, thresholds: Sequence[Threshold], transition_s: float) -> Watch:
        return cls(thresholds, transition_s, {}, {})

    def look(self, seen: Mapping[str, Observation], now: float) -> list[Threshold]:
        """The thresholds that call for eviction now."""
        acting = []
        for threshold in self.thresholds:
            observation = seen.get(threshold.signal)
            began = self._since.get(threshold)
            if observation is None or not threshold.met(observation, reclaim=began is not None):
                self._since.pop(threshold, None)
                continue
            began = self._since.setdefault(threshold, now)
            self._last[threshold.condition] = now
            if now - began >= threshold.grace_s:
                acting.append(threshold)
        return acting

    def conditions(self, now: float) -> frozenset[str]:
        """The node's conditions that hold: under pressure now, or less than the transition period ago."""
        return frozenset(c for c, last in self._last.items() if now == last or now - last < self.transition_s)
