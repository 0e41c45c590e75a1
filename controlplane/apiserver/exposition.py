"""Prometheus' text format, as little of it as a server needs: counters, gauges and histograms with labels.

Not the prometheus-client package: that costs 14 MB and 35 ms at start, and its counters several times what a request
here costs in Python; the tests read what this writes with it.
"""

import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


class Histogram:
    """How many values fell under each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def family(name: str, kind: str, about: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """Lines of a metric: `kind` is counter or gauge. Nothing if there are no samples."""
    first = True
    for labels, value in samples:
        if first:
            yield from _head(name, kind, about)
            first = False
        yield f"{name}{_braced(_pairs(labels))} {_number(value)}"


def histograms(name: str, about: str, samples: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    """Lines of a histogram with labels."""
    first = True
    for labels, found in samples:
        if first:
            yield from _head(name, "histogram", about)
            first = False
        pairs, running = _pairs(labels), 0
        for bound, count in zip((*map(_number, found.bounds), "+Inf"), found.counts, strict=True):
            running += count
            le = f'le="{bound}"'
            yield f"{name}_bucket{_braced((*pairs, le))} {running}"
        yield f"{name}_sum{_braced(pairs)} {found.total:.9g}"
        yield f"{name}_count{_braced(pairs)} {running}"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _pairs(labels: Labels) -> tuple[str, ...]:
    return tuple(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _braced(pairs: Sequence[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def process() -> Iterator[str]:
    """process_*: what every Prometheus client says of its process, from /proc/self."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        fds = len(os.listdir("/proc/self/fd"))
        limits = Path("/proc/self/limits").read_text().splitlines()
    except (OSError, StopIteration):
        return
    ticks = os.sysconf("SC_CLK_TCK")
    started = int(booted.split()[1]) + int(fields[19]) / ticks
    most = next((line.split()[3] for line in limits if line.startswith("Max open files")), "unlimited")
    values = [
        ("cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", time.process_time()),
        ("resident_memory_bytes", "gauge", "Resident memory size in bytes.",
         int(fields[21]) * os.sysconf("SC_PAGE_SIZE")),
        ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", int(fields[20])),
        ("start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started),
        ("open_fds", "gauge", "Number of open file descriptors.", fds),
        *([("max_fds", "gauge", "Maximum number of open file descriptors.", int(most))] if most.isdigit() else []),
    ]  # fmt: skip
    for name, kind, about, value in values:
        yield from family(f"process_{name}", kind, about, [({}, value)])
