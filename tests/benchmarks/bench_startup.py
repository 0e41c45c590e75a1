"""How long a user waits: `wherry up` until three nodes are Ready, and the API server alone until it says so."""

from __future__ import annotations

from collections.abc import Iterator

from figures import KUBERNETES, Figure, median
from harness import ApiServer, Lab


def figures() -> Iterator[Figure]:
    times = []
    for _ in range(3):
        with Lab() as lab:
            times.append(lab.up_s)
    yield Figure("wherry up → three Ready nodes", median(times), "s", aim=3.0, note="fresh data, median of 3")
    times, cpu = [], []
    for _ in range(5):
        with ApiServer() as server:
            times.append(server.ready_s)
            cpu.append(server.cpu_s())
    note = f"empty store, own process, median of 5; CPU {median(cpu):.2f} s"
    yield Figure("API server start → ready", median(times), "s", aim=0.5, peer=3.1, source=KUBERNETES, note=note)
