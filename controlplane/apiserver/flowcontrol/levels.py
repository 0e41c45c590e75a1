"""A priority level: so many seats, and queues in which its flows wait for one.

Each flow (a user, say) is dealt a small hand of the level's queues by its hash and joins the shortest, so that a few
busy flows cannot fill every queue that another may use (shuffle sharding). Queues are served in turn. A level whose
seats are taken may borrow from levels that do not use theirs, as far as both sides' percentages allow.

Everything runs in one event loop: nothing here locks. A free seat costs two attribute writes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.api import status

Object = dict[str, Any]
_REFUSED = "too many requests, please try again later"


@dataclass(slots=True)
class Level:
    """`nominal`: its own seats; `lendable`, `borrowable`: how many of them others may use, how many of others' it may.
    `queues`: how many; 0 means that who finds no seat is refused at once."""

    name: str
    exempt: bool
    nominal: int
    lendable: int
    borrowable: int
    queues: int
    hand: int
    longest: int
    in_use: int = 0
    waiting: int = 0
    dispatched: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    _lines: list[deque[asyncio.Future[None]]] = field(default_factory=list)
    _next: int = 0

    def __post_init__(self) -> None:
        self._lines = [deque() for _ in range(self.queues)]

    async def enter(self, flow: str, others: Mapping[str, Level]) -> None:
        """Take a seat, waiting for one if need be; `leave` gives it back. Raises StatusError 429."""
        if self.exempt or (not self.waiting and (self.in_use < self.nominal or self._may_borrow(others))):
            self.in_use += 1
            self.dispatched += 1
            return
        if not self.queues:
            raise self._refuse("concurrency-limit")
        line = min((self._lines[i] for i in deal(flow, self.queues, self.hand)), key=len)
        if len(line) >= self.longest:
            raise self._refuse("queue-full")
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(seat)
        self.waiting += 1
        try:
            await seat  # `leave` hands its seat over
        except asyncio.CancelledError:
            if seat.done() and not seat.cancelled():
                self.leave(others)  # it was given to us in the very moment in which we went
            else:
                line.remove(seat)
                self.waiting -= 1
            raise
        self.dispatched += 1

    def leave(self, others: Mapping[str, Level]) -> None:
        """Give the seat back, to the next in line if the level still has a right to it."""
        if self.waiting and (self.in_use <= self.nominal or self._may_borrow(others, one_less=1)):
            self._call_next()
            return
        self.in_use -= 1
        if not self.exempt:
            for other in others.values():  # what we lent or borrowed may be somebody's turn
                if other.waiting and (other.in_use < other.nominal or other._may_borrow(others)):
                    other.in_use += 1
                    other._call_next()
                    return

    def _call_next(self) -> None:
        for _ in range(self.queues):
            line = self._lines[self._next]
            self._next = (self._next + 1) % self.queues
            if line:
                self.waiting -= 1
                line.popleft().set_result(None)
                return

    def _may_borrow(self, others: Mapping[str, Level], one_less: int = 0) -> bool:
        if self.in_use - one_less - self.nominal >= self.borrowable:
            return False
        spare = sum(min(o.lendable, o.nominal - o.in_use) for o in others.values() if o.in_use < o.nominal)
        lent = sum(o.in_use - o.nominal for o in others.values() if o.in_use > o.nominal and not o.exempt)
        return spare - lent + one_less > 0

    def _refuse(self, reason: str) -> status.StatusError:
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return status.too_many_requests(_REFUSED, retry_after=1)


def deal(flow: str, queues: int, hand: int) -> Sequence[int]:
    """`hand` different queues out of `queues`, the same for a flow every time."""
    number = int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=16).digest(), "big")
    dealt: list[int] = []
    left = list(range(queues))
    for size in range(queues, max(queues - hand, 0), -1):
        number, index = divmod(number, size)
        dealt.append(left.pop(index))
    return dealt


def levels(objects: Sequence[Object], seats: int) -> dict[str, Level]:
    """The levels of these PriorityLevelConfigurations: they share `seats` by their nominalConcurrencyShares."""
    specs = {obj["metadata"]["name"]: obj.get("spec") or {} for obj in objects}
    shares = {name: _shares(spec) for name, spec in specs.items()}
    total = sum(shares.values()) or 1
    made = {}
    for name, spec in specs.items():
        exempt = spec.get("type") == "Exempt"
        part: Object = spec.get("exempt" if exempt else "limited") or {}
        nominal = math.ceil(seats * shares[name] / total)
        limit = part.get("borrowingLimitPercent")
        response = (part.get("limitResponse") or {}) if not exempt else {}
        queuing = response.get("queuing") or {} if response.get("type") == "Queue" else {}
        queues = int(queuing.get("queues") or 64) if response.get("type") == "Queue" else 0
        made[name] = Level(
            name, exempt, nominal,
            lendable=nominal * int(part.get("lendablePercent") or 0) // 100,
            borrowable=seats if limit is None else math.ceil(nominal * int(limit) / 100),
            queues=queues,
            hand=min(int(queuing.get("handSize") or 8), queues),
            longest=int(queuing.get("queueLengthLimit") or 50),
        )  # fmt: skip
    return made


def _shares(spec: Object) -> int:
    if spec.get("type") == "Exempt":
        return int((spec.get("exempt") or {}).get("nominalConcurrencyShares") or 0)
    value = (spec.get("limited") or {}).get("nominalConcurrencyShares")
    return 30 if value is None else int(value)
