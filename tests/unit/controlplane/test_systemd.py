"""sd_notify, the watchdog and the journal's prefixes: what systemd hears of a daemon."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane import daemon, systemd


class Listener:
    """systemd's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(10)

    def hear(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    heard = Listener(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", heard.address)
    yield heard
    heard.close()


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(daemon, "_reloaders", [])
    monkeypatch.setattr(daemon, "_settings", {})
    monkeypatch.setattr(systemd, "_checks", [])


async def hear(listener: Listener) -> str:
    return await asyncio.get_running_loop().run_in_executor(None, listener.hear)


def test_nothing_is_said_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    assert systemd.watchdog_period_s() == 0


def test_abstract_addresses_work() -> None:
    listener = Listener(f"@wherry-test-{os.getpid()}")
    try:
        systemd.notify("READY=1", {"NOTIFY_SOCKET": listener.address})
        assert listener.hear() == "READY=1"
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("environ", "period_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0.0),  # meant for a parent of ours
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_period_is_half_of_what_systemd_waits(environ: dict[str, str], period_s: float) -> None:
    assert systemd.watchdog_period_s(environ) == period_s


async def test_watchdog_is_fed_only_while_alive(listener: Listener) -> None:
    trouble = ""
    forget = systemd.on_liveness(lambda: trouble)
    feeding = asyncio.create_task(systemd.watchdog(0.01))
    try:
        assert await hear(listener) == "WATCHDOG=1"
        trouble = "the writer is stuck"
        while (message := await hear(listener)) == "WATCHDOG=1":
            pass  # what was sent before
        assert message == "STATUS=not alive: the writer is stuck"
        trouble = ""
        assert await hear(listener) == "WATCHDOG=1"  # not one in between
        assert await hear(listener) == "STATUS="
    finally:
        feeding.cancel()
        forget()
    assert systemd.troubles() == []


def test_a_check_that_raises_is_trouble() -> None:
    def broken() -> str:
        raise LookupError("gone")

    systemd.on_liveness(broken)
    assert systemd.troubles() == ["LookupError: gone"]


@pytest.mark.parametrize(("level", "prefix"), [
    (logging.CRITICAL, "<2>"), (logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (10, "<7>"),
])  # fmt: skip
def test_levels_are_syslogs(level: int, prefix: str) -> None:
    assert systemd.priority(level) == prefix


def test_journal_is_recognised_by_device_and_inode() -> None:
    read, write = os.pipe()
    status = os.fstat(write)
    try:
        assert systemd.journal(write, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not systemd.journal(write, {"JOURNAL_STREAM": f"{status.st_dev}:1"})
        assert not systemd.journal(write, {})
    finally:
        os.close(read)
        os.close(write)
    assert not systemd.journal(write, {"JOURNAL_STREAM": "1:1"})


def test_every_line_of_a_record_has_its_level_in_the_journal() -> None:
    program = (
        "import os, logging\n"
        "from controlplane import daemon\n"
        "s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'\n"
        "daemon.setup_logging('info')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('x').exception('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    lines = done.stderr.splitlines()
    assert lines[0] == "<3>x failed"
    assert lines[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in lines)


@dataclass
class Settings:
    """Settings of a daemon for the test."""

    name: str = "a"
    log_level: str = "info"
    parts: list[str] = field(default_factory=list)


def test_reload_reads_settings_and_goes_on_after_a_failure(
    tmp_path: Path, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("log_level: info\n")
    levels: list[str] = []
    seen: list[str] = []

    async def serve(config: Settings, ready: Callable[[], None]) -> None:
        def unreadable() -> None:
            raise OSError("certificate is unreadable")

        daemon.on_setting("log_level", levels.append)
        daemon.on_reload(unreadable)
        daemon.on_reload(lambda: seen.append("second"))
        ready()
        file.write_text("log_level: debug\nname: b\n")
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(10):
            while not seen:  # noqa: ASYNC110 - a signal handler sets it
                await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        assert daemon.main(Settings, serve, ["--config", str(file)]) == 0
    finally:
        root.handlers[:], root.level = handlers, level
    assert levels == ["debug"]
    assert seen == ["second"]
    assert listener.hear() == "READY=1"
    assert listener.hear().startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert listener.hear() == "READY=1\nSTATUS=1 parts could not be reloaded, see the log"
    assert listener.hear() == "STOPPING=1"


def test_an_unknown_log_level_is_a_configuration_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(config: Settings, ready: Callable[[], None]) -> None: ...

    assert daemon.main(Settings, serve, ["--log-level", "loud"]) == 2
    assert "'loud' is none of debug, info, warning, error" in capsys.readouterr().err
