"""Destinations that leave: no new connections at once (weight 0), removed when the last old one is closed. Pure.

IPVS drops the packets of a connection whose destination is gone, so a pod that is taken out of a Service would lose the
clients it is still serving. A deadline bounds the wait: somebody may never close.
"""

from __future__ import annotations

from collections.abc import Iterable

from netproxy.ipvs.operations import Operation, RemoveDestination
from netproxy.ipvs.state import Key, State, Target
from netproxy.ipvs.wire import Destination


class Leaving:
    """Which destinations are leaving, and until when. Times are seconds of a clock that only goes forward."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._until: dict[Key, dict[Target, float]] = {}

    def __len__(self) -> int:
        return sum(len(targets) for targets in self._until.values())

    @property
    def keys(self) -> list[Key]:
        return list(self._until)

    def of(self, key: Key) -> Iterable[Target]:
        return self._until.get(key, ())

    def written(self, before: State, after: State, now: float) -> None:
        """The kernel was made from `before` into `after`, two states of the same virtual servers: what is in `before`
        only is leaving, unless its whole virtual server is gone or it is UDP."""
        for key in before.servers.keys() | after.servers.keys():
            old = self._until.pop(key, {})
            if key not in after.servers or key.protocol == "UDP":
                continue
            gone = before.destinations.get(key, {}).keys() - after.destinations.get(key, {}).keys()
            if gone:
                self._until[key] = {target: old.get(target, now + self._limit_s) for target in gone}

    def due(self, key: Key, found: Iterable[Destination], now: float) -> list[Operation]:
        """Those of `key` that can be removed, given how the kernel has them; they count as removed."""
        until = self._until.get(key, {})
        there = {d.target: d for d in found}
        done: list[Operation] = []
        for target in list(until):
            at = there.get(target)
            if at is not None and at.connections and now < until[target]:
                continue
            del until[target]
            if at is not None:
                done.append(RemoveDestination(key, target))
        if not until:
            self._until.pop(key, None)
        return done
