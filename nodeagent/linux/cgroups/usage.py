"""What a cgroup has used: its counters, read from whichever hierarchies the machine has. What is not there counts 0.

v1: cpuacct.usage (ns), memory.usage_in_bytes and memory.stat's total_* (the cgroup with those below), pids.current.
v2: cpu.stat's usage_usec, memory.current and memory.stat, pids.current, and the pressure files (PSI). A v2 hierarchy
beside v1 counts CPU and pressure without any controller: that spares every container a directory in cpuacct.
The working set is usage less inactive file pages: what the kernel could not take back at once (kubelet's definition).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeagent.linux.cgroups.detect import Layout
from nodeagent.linux.cgroups.limits import read

PSI = ("cpu", "memory", "io")


@dataclass(frozen=True, slots=True)
class Pressure:
    """One line of a pressure file: percentages of time stalled, and the total in microseconds."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total_us: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters since the cgroup was made (cpu_ns, faults), and what is held now (bytes, pids). `limit_bytes`: 0 for
    none. `psi`: (cpu | memory | io, some | full) → Pressure, on v2."""

    cpu_ns: int = 0
    memory_bytes: int = 0
    working_set_bytes: int = 0
    rss_bytes: int = 0
    limit_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    pids: int = 0
    psi: Mapping[tuple[str, str], Pressure] = field(default_factory=dict)


def usage(layout: Layout, path: str) -> Usage | None:
    """What the cgroup `path` (as in `Cgroups`) has used; None if it is gone."""
    if layout.unified:
        return _v2(f"{layout.v2}/{path}")
    return _v1(layout, path)


def _v2(directory: str) -> Usage | None:
    try:
        cpu = _table(f"{directory}/cpu.stat")
    except OSError:
        return None
    stat = _table_or_nothing(f"{directory}/memory.stat")
    used = _number(f"{directory}/memory.current")
    return Usage(
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        memory_bytes=used,
        working_set_bytes=max(used - stat.get("inactive_file", 0), 0),
        rss_bytes=stat.get("anon", 0),
        limit_bytes=_number(f"{directory}/memory.max"),
        page_faults=stat.get("pgfault", 0),
        major_page_faults=stat.get("pgmajfault", 0),
        pids=_number(f"{directory}/pids.current"),
        psi=_psi(directory),
    )


def _psi(directory: str) -> dict[tuple[str, str], Pressure]:
    found = {}
    for resource in PSI:
        with contextlib.suppress(OSError):
            lines = pressures(read(f"{directory}/{resource}.pressure"))
            found.update({(resource, kind): pressure for kind, pressure in lines.items()})
    return found


def _v1(layout: Layout, path: str) -> Usage | None:
    memory, cpu, pids = (f"{layout.v1.get(c, '')}/{path}" for c in ("memory", "cpuacct", "pids"))
    stat = _table_or_nothing(f"{memory}/memory.stat") if "memory" in layout.v1 else {}
    if layout.v2:
        cpu_ns = _table_or_nothing(f"{layout.v2}/{path}/cpu.stat").get("usage_usec", -1) * 1000
    else:
        cpu_ns = _number(f"{cpu}/cpuacct.usage", missing=-1) if "cpuacct" in layout.v1 else 0
    if cpu_ns < 0 or ("memory" in layout.v1 and not stat):
        return None
    used = _number(f"{memory}/memory.usage_in_bytes")
    limit = _number(f"{memory}/memory.limit_in_bytes")
    return Usage(
        cpu_ns=cpu_ns,
        memory_bytes=used,
        working_set_bytes=max(used - stat.get("total_inactive_file", 0), 0),
        rss_bytes=stat.get("total_rss", 0),
        limit_bytes=0 if limit >= _V1_NO_LIMIT else limit,
        page_faults=stat.get("total_pgfault", 0),
        major_page_faults=stat.get("total_pgmajfault", 0),
        pids=_number(f"{pids}/pids.current") if "pids" in layout.v1 else 0,
        psi=_psi(f"{layout.v2}/{path}") if layout.v2 else {},
    )


_V1_NO_LIMIT = 1 << 60  # v1 says "no limit" as the largest page-aligned number


def pressures(text: str) -> dict[str, Pressure]:
    """The lines of a pressure file (/proc/pressure/* has the same form), by `some` and `full`."""
    result = {}
    for line in text.splitlines():
        kind, *fields = line.split()
        values = dict(f.split("=", 1) for f in fields)
        avg10, avg60, avg300 = (float(values.get(f"avg{n}", 0)) for n in (10, 60, 300))
        result[kind] = Pressure(avg10, avg60, avg300, int(values.get("total", 0)))
    return result


def _table(path: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in read(path).splitlines())}


def _table_or_nothing(path: str) -> dict[str, int]:
    try:
        return _table(path)
    except OSError:
        return {}


def _number(path: str, missing: int = 0) -> int:
    """The file's number; 0 for `max`, `missing` without the file."""
    try:
        text = read(path)
    except OSError:
        return missing
    return int(text) if text.isdecimal() else 0
