"""Shims, and the zygote, that somebody has stopped (SIGSTOP, a debugger that went away): they are continued.

Such a process is not dead, so no connection ends; but nobody reaps, reads logs or answers, and a container whose pipe
is full stands still. Looking at /proc every few seconds costs less than asking every shim whether it is well. It does
not help one that waits in the kernel (a dead NFS server), nor one that a tracer holds: those are the node's to mend.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

PERIOD_S = 5.0
_STOPPED = b"T"


async def keep_awake(pids: Callable[[], Iterable[int]], period_s: float = PERIOD_S) -> None:
    """Until cancelled: continue whichever of `pids()` is stopped. They must be pids of living connections' peers, so
    that none of them is somebody else's by now."""
    while True:
        await asyncio.sleep(period_s)
        for pid in pids():
            if _state(pid) == _STOPPED:
                log.warning("stopped process continued pid=%d", pid)
                try:
                    os.kill(pid, signal.SIGCONT)
                except OSError as error:
                    log.warning("cannot continue pid=%d error=%s", pid, error.strerror)


def _state(pid: int) -> bytes:
    """The kernel's letter for the process's state; empty if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 256).rpartition(b") ")[2][:1]
    except OSError:
        return b""
    finally:
        os.close(fd)
