"""What a daemon says to systemd: that it is ready, that it reloads, that it lives; and how its log lines look there.

    READY=1      once it serves (Type=notify)          RELOADING=1 … READY=1   around SIGHUP's work
    WATCHDOG=1   at half of WatchdogSec, from the event loop, and only while nobody who should know sees trouble

A loop that is stuck sends nothing, and neither does one whose daemon is not alive in its own judgement (`on_liveness`):
systemd then kills the process (WatchdogSec) and starts it again. Without systemd (no NOTIFY_SOCKET) all this is silent.
It is no client of systemd's D-Bus interface.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

Check = Callable[[], str]
"""Says what is wrong, in words for the log, or nothing."""

_checks: list[Check] = []


def on_liveness(check: Check) -> Callable[[], None]:
    """Ask `check` before every WATCHDOG=1. It must judge only what a restart of this process would mend (a thread that
    does not answer, a task that has ended), never another machine's health. Returns what takes it back."""
    _checks.append(check)
    return lambda: _checks.remove(check)


def troubles() -> list[str]:
    """What the checks say is wrong now; one that raises is wrong itself."""
    found = []
    for check in _checks:
        try:
            trouble = check()
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        if trouble:
            found.append(trouble)
    return found


def notify(message: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send `message` (e.g. `READY=1`) to systemd, when it asked for it (sd_notify(3)); nothing otherwise."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.connect("\0" + address[1:] if address.startswith("@") else address)
        s.send(message.encode())


def reloading() -> str:
    """The message that begins a reload; READY=1 ends it. systemd orders several by the time in it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_period_s(environ: Mapping[str, str] = os.environ) -> float:
    """How often systemd must hear of us: half of WATCHDOG_USEC (sd_watchdog_enabled(3)); 0 if it does not listen."""
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return 0.0
    return microseconds / 2_000_000 if pid == os.getpid() and microseconds > 0 else 0.0


async def watchdog(period_s: float) -> None:
    """Tell systemd every `period_s` seconds that this process is well, while it is. Until cancelled."""
    said: list[str] = []
    while True:
        found = troubles()
        if not found:
            notify("WATCHDOG=1")
        if found != said:
            said = found
            if found:
                log.error("not_alive trouble=%r; systemd will restart this process unless it passes", "; ".join(found))
                notify("STATUS=not alive: " + "; ".join(found))
            else:
                log.info("alive again")
                notify("STATUS=")
        await asyncio.sleep(period_s)


def journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `descriptor` is the stream that systemd connected to the journal (JOURNAL_STREAM, systemd.exec(5)): then
    lines want a level in front, and no time. False when somebody has redirected it since."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def priority(level: int) -> str:
    """The prefix that tells journald the level of a line (sd-daemon(3)), for a level of `logging`."""
    for least, number in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= least:
            return f"<{number}>"
    return "<7>"
