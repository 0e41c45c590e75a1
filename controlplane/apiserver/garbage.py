"""When Python looks for reference cycles: the young often, the old once an hour.

Nearly everything that requests leave behind is freed at once by counting references. What remains for the collector is
little, but to find it in the old generation it looks at everything that lives long: 0.4 µs an object, so 0.02 s for an
idle server and more than a second, in which no heartbeat is answered, with ten thousand watches open. By itself Python
does so whenever a quarter has been added, which is all the time while clients come back after a restart.

What is there after the start stays: it is taken out of the collector's sight.
"""

import asyncio
import gc
import logging

log = logging.getLogger(__name__)
EVERY_S = 3600.0
_YOUNG, _MIDDLE = 2_000, 10  # objects more than were freed; collections of the young
_NEVER = 1 << 30


def hold() -> None:
    """Do not collect while the server starts: what is made then is kept anyway. A tenth of the start."""
    gc.disable()


def settle() -> None:
    """After the start, when all that will live as long as the process is there."""
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    gc.enable()


async def collect() -> None:
    """Look at the old generation once an hour, as long as the server lives."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(EVERY_S)
        begun = loop.time()
        found = gc.collect()
        log.info("garbage collected objects=%d ms=%.0f", found, (loop.time() - begun) * 1000)
