"""What the cluster costs while nobody uses it: memory of every process, and CPU over ten seconds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from figures import Figure
from harness import Lab, cpu_s, memory_mb

SETTLE_S, WINDOW_S = 8.0, 10.0


def figures() -> Iterator[Figure]:
    with Lab() as lab:
        time.sleep(SETTLE_S)
        before = {pid: cpu_s(pid) for pid in lab.pids()}
        begun = time.perf_counter()
        time.sleep(WINDOW_S)
        used = {pid: cpu_s(pid) - since for pid, since in before.items()}
        span = time.perf_counter() - begun
        what = lab.pids()
        memory = {pid: memory_mb(pid) for pid in what}
    parts: dict[str, float] = defaultdict(float)
    cpu: dict[str, float] = defaultdict(float)
    for pid, name in what.items():
        parts[name] += memory[pid]["Pss"]
        cpu[name] += used.get(pid, 0.0) / span * 100
    total = sum(parts.values())
    yield Figure("idle memory, three nodes, PSS", total, "MB", aim=400, note=_largest(parts, "MB"))
    rss = sum(m["Rss"] for m in memory.values())
    yield Figure("idle memory, sum of RSS", rss, "MB", note=f"{len(what)} processes; counts shared pages once for each")
    control = sum(parts[name] for name in ("apiserver", "controllers", "scheduler"))
    yield Figure("idle memory, control plane, PSS", control, "MB", aim=150, peer=498, source="sum of Kubernetes' RSS")
    yield Figure("idle CPU, three nodes", sum(cpu.values()), "% core", note=_largest(cpu, "%"))


def _largest(parts: dict[str, float], unit: str) -> str:
    top = sorted(parts.items(), key=lambda p: -p[1])[:8]
    return ", ".join(f"{name} {value:.1f}" for name, value in top) + f" {unit}"
