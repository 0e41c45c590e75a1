"""Sets of CPUs: as the kernel writes them ("0-2,5"), how this machine's lie, and which of them to take. Pure but for
`topology`, which reads /sys.

Whole sockets first, then whole cores, then single threads of cores that are broken already: a container that owns CPUs
shall share no core's caches with others if that can be had. As kubelet's cm/cpumanager/cpu_assignment.go (packed).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Cpus = frozenset[int]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a CPU is; a core's number counts within its socket."""

    socket: int
    core: int


def parse(text: str) -> Cpus:
    """The set that `text` lists. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if high < low:
            raise ValueError(f"{part!r} is no range of CPUs")
        found.update(range(low, high + 1))
    return frozenset(found)


def text(cpus: Iterable[int]) -> str:
    """The shortest list of `cpus`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def topology(cpus: Iterable[int], sys: str = "/sys/devices/system/cpu") -> dict[int, Place]:
    """Where each of `cpus` is; what the kernel does not tell is a core of its own."""
    found = {}
    for cpu in cpus:
        socket, core = _number(f"{sys}/cpu{cpu}/topology/physical_package_id", 0), cpu
        found[cpu] = Place(socket, _number(f"{sys}/cpu{cpu}/topology/core_id", core))
    return found


def _number(path: str, default: int) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return max(int(file.read()), 0)
    except (OSError, ValueError):
        return default


def take(count: int, free: Cpus, places: Mapping[int, Place]) -> Cpus:
    """`count` of the `free` CPUs. Raises ValueError if there are not as many."""
    if count > len(free):
        raise ValueError(f"requested={count}, available={len(free)}")
    taken: set[int] = set()
    for group in (_whole(free, places, lambda p: p.socket), _whole(free, places, lambda p: p)):
        for cpus in group:
            if not taken & cpus and len(taken) + len(cpus) <= count:
                taken |= cpus
    rest = free - taken
    left: dict[Place, int] = defaultdict(int)
    for cpu in rest:
        left[places[cpu]] += 1
    order = sorted(rest, key=lambda cpu: (left[places[cpu]], places[cpu], cpu))
    return frozenset(taken | set(order[: count - len(taken)]))


def _whole(free: Cpus, places: Mapping[int, Place], key: object) -> list[Cpus]:
    """The groups (by `key` of their place) of which every CPU is free."""
    groups: dict[object, set[int]] = defaultdict(set)
    for cpu, place in places.items():
        groups[key(place)].add(cpu)  # type: ignore[operator]
    return [frozenset(cpus) for _, cpus in sorted(groups.items()) if cpus <= free]
