"""Expensive requests, one in each turn of the event loop.

A LIST of many objects is made in one piece and holds the loop for milliseconds. A hundred that arrive together would
hold it for a hundred times that, heartbeats and all. Here they pass one by one, a flow after the other, and what is
cheap goes on in between: a heartbeat waits for one of them, not for all.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turnstile:
    def __init__(self) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._turning = False

    async def turn(self, flow: str) -> None:
        """Wait for this request's turn; at once if nobody is before it."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._next)
            return
        mine: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(flow, deque()).append(mine)
        await mine

    def _next(self) -> None:
        """Let one more through: of the flow that has waited longest since its last turn."""
        while self._lines:
            flow, line = next(iter(self._lines.items()))
            del self._lines[flow]
            first = line.popleft()
            if line:
                self._lines[flow] = line  # to the end
            if not first.done():  # its client may have gone
                first.set_result(None)
                # Not in this turn of the loop, nor in the one in which `first` goes on: what is cheap comes between.
                asyncio.get_running_loop().call_later(0, self._next)
                return
        self._turning = False
