"""Process 1 of a corner: starts the node's services, starts them again when they die, buries orphans.

What systemd does on a real node, as far as a lab needs it. A service is a fork of this process (everything is imported
already) or an executed program. It reports its services' states in a file that the supervisor reads; it decides
nothing else. Restarts: at once the first time, then with a delay that doubles up to 5 s until one ran for 10 s.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import setproctitle

from controlplane import clock

_STEADY_S, _LONGEST_DELAY_S, _STOP_S = 10.0, 5.0, 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon of a node. `run(ready)` is called in a fork and runs until SIGTERM; or `command` is executed.
    `after` names services that must be ready first."""

    name: str
    run: Callable[[Callable[[], None]], None] | None = None
    command: Sequence[str] = ()
    after: Sequence[str] = ()


@dataclass(slots=True)
class _Unit:
    service: Service
    pid: int = 0
    state: str = "waiting"  # waiting, starting, running, restarting, stopped
    started_at: float = 0.0  # the loop's clock
    restarts: int = 0
    delay_s: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


def dead_children() -> Iterator[tuple[int, int]]:
    """(pid, wait status) of every child that has ended and was not waited for yet."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


class Init:
    """Runs `services` until SIGTERM; `report` is the file that says how they are."""

    def __init__(self, services: Sequence[Service], report: Path, log: Path, on_ready: Callable[[str], None]) -> None:
        self._units = {s.name: _Unit(s) for s in services}
        self._report, self._log, self._on_ready = report, log, on_ready
        self._stopping = asyncio.Event()
        self._buried = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._bury)
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        starting = [asyncio.ensure_future(self._start_in_order(unit)) for unit in self._units.values()]
        await self._stopping.wait()
        for task in starting:
            task.cancel()
        await self._stop()

    async def _start_in_order(self, unit: _Unit) -> None:
        for name in unit.service.after:
            await self._units[name].ready.wait()
        self._start(unit)

    def _start(self, unit: _Unit) -> None:
        if self._stopping.is_set():
            return
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _service(unit.service, self._log, writing)
        os.close(writing)
        unit.pid, unit.state, unit.started_at = pid, "starting", loop.time()
        print(f"{clock.rfc3339_micro()} started service={unit.service.name} pid={pid}", flush=True)
        loop.add_reader(reading, self._ready, unit, pid, reading)
        self._write()

    def _ready(self, unit: _Unit, pid: int, reading: int) -> None:
        asyncio.get_running_loop().remove_reader(reading)
        told = os.read(reading, 1)
        os.close(reading)
        if told and unit.pid == pid:
            unit.state = "running"
            unit.ready.set()
            self._on_ready(unit.service.name)
            self._write()

    def _bury(self) -> None:
        """Take the exit status of every dead child: services to restart, and orphans that nobody else waits for."""
        for pid, status in dead_children():
            for unit in self._units.values():
                if unit.pid == pid:
                    self._died(unit, os.waitstatus_to_exitcode(status))
            self._buried.set()

    def _died(self, unit: _Unit, code: int) -> None:
        loop = asyncio.get_running_loop()
        print(f"{clock.rfc3339_micro()} ended service={unit.service.name} pid={unit.pid} code={code}", flush=True)
        unit.pid = 0
        if self._stopping.is_set():
            unit.state = "stopped"
            return
        steady = loop.time() - unit.started_at >= _STEADY_S
        unit.delay_s = 0.0 if steady or not unit.restarts else min(max(0.1, unit.delay_s * 2), _LONGEST_DELAY_S)
        unit.restarts += 1
        unit.state = "restarting"
        self._write()
        self._timers.add(loop.call_later(unit.delay_s, self._start, unit))

    async def _stop(self) -> None:
        """SIGTERM to all, in the reverse order of starting; what is left after a while dies with this process."""
        for timer in self._timers:
            timer.cancel()
        for unit in reversed(self._units.values()):
            if unit.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(unit.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while any(unit.pid for unit in self._units.values()):
                    self._buried.clear()
                    await self._buried.wait()

    def _write(self) -> None:
        states = {
            name: {"pid": unit.pid, "state": unit.state, "restarts": unit.restarts}
            for name, unit in self._units.items()
        }
        temporary = self._report.with_suffix(".new")
        temporary.write_text(json.dumps(states))
        temporary.rename(self._report)


def _service(service: Service, log: Path, tell: int) -> None:
    """In the forked child: a log of its own, a clean slate of signals, then the daemon. Never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        out = os.open(log / f"{service.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(out, 1)
        os.dup2(out, 2)
        clock.install()  # a fork shares the parent's random state: draw anew
        if service.command:
            os.write(tell, b"r")  # an executed program has no way to tell; its clients wait for its socket
            os.closerange(3, 4096)
            os.execv(service.command[0], list(service.command))
        os.closerange(3, tell)
        os.closerange(tell + 1, 4096)
        _rename(service.name)
        assert service.run is not None
        service.run(lambda: os.close(tell) if os.write(tell, b"r") else None)
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _rename(name: str) -> None:
    """Show the service's name in ps and top."""
    setproctitle.setproctitle(f"wherry-{name}")
