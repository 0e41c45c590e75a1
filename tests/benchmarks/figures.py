"""One measured number, what it should be, and how it is shown.

`aim` and `peer` are in the same unit as `value`; smaller is better unless `more` is set. `peer` names its source in
`source`. A figure without an aim is a fact beside the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

# The machine that gave these numbers is of the kind that we measure on: 2 cores, shared.
KUBERNETES = "Kubernetes 1.36.2 + etcd 3.6.13, same kind of machine, constants"


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float | None  # None: not measured, `note` says why
    unit: str
    aim: float | None = None
    peer: float | None = None
    source: str = ""
    note: str = ""
    more: bool = False  # more is better

    @property
    def ratio(self) -> float | None:
        return self.value / self.peer if self.value is not None and self.peer else None

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "skipped"
        if self.aim is None:
            return ""
        return "ok" if (self.value >= self.aim if self.more else self.value <= self.aim) else "MISSED"

    def dump(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "verdict": self.verdict}


def skipped(name: str, why: str) -> Figure:
    return Figure(name, None, "", note=why)


def table(figures: Iterable[Figure]) -> str:
    rows = [("figure", "measured", "aim", "peer", "ratio", "verdict", "")]
    for f in figures:
        limit = "≥ " if f.more else "≤ "
        rows.append((
            f.name, _text(f.value, f.unit), limit + _text(f.aim, f.unit) if f.aim is not None else "",
            _text(f.peer, f.unit), f"{f.ratio:.2f}" if f.ratio is not None else "", f.verdict, f.note,
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5].ljust(widths[5])]
        lines.append("  ".join([*cells, row[6]]).rstrip())
    return "\n".join(lines)


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def quantile(values: Iterable[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


median = statistics.median
