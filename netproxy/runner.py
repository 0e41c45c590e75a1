"""When to write the rules: at once if it is quiet, rarely enough if it is not, and again if it failed.

    request()  ──> runs now, or `min_interval_s` after the last run began to count, whichever is later
    failure    ──> again after a delay that doubles up to `max_retry_s`
    silence    ──> `idle()` every `idle_interval_s` (the backend looks whether its rules are still there)

Everything requested while a run is on is one run. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from netproxy.backend import BackendError

log = logging.getLogger(__name__)


class BoundedFrequencyRunner:
    """Calls `work` when asked to, with the bounds above. Run `run()` as a task."""

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        idle: Callable[[], Awaitable[None]],
        *,
        min_interval_s: float,
        idle_interval_s: float,
        first_retry_s: float = 0.1,
        max_retry_s: float = 30.0,
    ) -> None:
        self._work, self._idle = work, idle
        self._min, self._idle_interval = min_interval_s, idle_interval_s
        self._first_retry, self._max_retry = first_retry_s, max_retry_s
        self._wanted = asyncio.Event()

    def request(self) -> None:
        """There is something to do. Cheap, and callable from any callback."""
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        last = float("-inf")
        retry = self._first_retry
        while True:
            try:
                async with asyncio.timeout(self._idle_interval):
                    await self._wanted.wait()
            except TimeoutError:
                await self._try(self._idle)
                continue
            pause = last + self._min - loop.time()
            # Even with nothing to wait for: one turn of the loop lets the rest of a burst in.
            await asyncio.sleep(max(0.0, pause))
            self._wanted.clear()
            last = loop.time()
            if await self._try(self._work):
                retry = self._first_retry
            else:
                await asyncio.sleep(retry)
                retry = min(retry * 2, self._max_retry)
                self._wanted.set()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except BackendError as error:
            log.warning("sync failed error=%r", str(error))
            return False
        except Exception:
            log.exception("sync failed")
            return False
        return True
