"""What every daemon of ours does alike: configuration, logging, readiness, signals, the event loop.

A daemon is a dataclass `Config` (a docstring a field, units in the name) and a coroutine `serve(config, ready)` that
runs until it is cancelled and calls `ready()` once when it serves. `run()` does the rest:

    flags (--node-name n1)  >  environment (WHERRY_NODE_NAME=n1)  >  file (--config f.yaml, key node_name)  >  default

`ready()` tells systemd, whose watchdog is fed from then on (systemd.py). SIGTERM and SIGINT cancel `serve`; SIGHUP
reads the settings again (those registered with `on_setting` take effect, of others it says that they need a restart)
and calls the reloaders registered with `on_reload`. It is not a supervisor: restarting is systemd's or the lab's work.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from controlplane import clock, systemd

C = TypeVar("C")
Serve = Callable[[C, Callable[[], None]], Awaitable[None]]

_reloaders: list[Callable[[], object]] = []
_settings: dict[str, Callable[[Any], None]] = {}
log = logging.getLogger(__name__)


class ConfigError(Exception):
    """A flag, variable or file entry that cannot be used; the message names it."""


def on_reload(callback: Callable[[], object]) -> None:
    """Call `callback` on SIGHUP (`systemctl reload`), e.g. to read certificates again."""
    _reloaders.append(callback)


def on_setting(name: str, callback: Callable[[Any], None]) -> None:
    """Call `callback` with the new value when SIGHUP finds the setting `name` changed."""
    _settings[name] = callback


def load_config(cls: type[C], argv: Sequence[str], environ: dict[str, str] | None = None) -> C:
    """An instance of the dataclass `cls` from flags, environment and file. Raises ConfigError for a bad value;
    exits 2 with usage for an unknown flag, as argparse does."""
    env = os.environ if environ is None else environ
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    parser = argparse.ArgumentParser(prog=cls.__module__, description=(cls.__doc__ or "").strip())
    parser.add_argument("--config", help="YAML file with these settings (key: flag name with underscores)")
    for name in fields:
        parser.add_argument("--" + name.replace("_", "-"), default=None, metavar=name.rsplit("_", 1)[-1].upper())
    given = vars(parser.parse_args(argv))
    path = given.pop("config")
    values: dict[str, Any] = {}
    if path:
        import yaml  # only with a file: most lab daemons start without one

        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file) or {}
        for key, value in document.items():
            if key not in fields:
                raise ConfigError(f"{path}: unknown setting {key!r}")
            values[key] = value
    for name in fields:
        variable = "WHERRY_" + name.upper()
        if variable in env:
            values[name] = env[variable]
        if given[name] is not None:
            values[name] = given[name]
    missing = [
        n
        for n, f in fields.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError("missing setting: " + ", ".join("--" + n.replace("_", "-") for n in missing))
    return cls(**{name: _convert(name, hints[name], value) for name, value in values.items()})


def _convert(name: str, hint: Any, value: Any) -> Any:
    """`value` (text from a flag, or YAML) as the type `hint`: str, int, float, bool, list[str] or `X | None`."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None or value == "":
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    try:
        if typing.get_origin(hint) is list:
            return [v for v in value.split(",") if v] if isinstance(value, str) else list(value)
        if hint is bool and isinstance(value, str):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        return hint(value)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"--{name.replace('_', '-')}: {value!r} is not {hint!r}") from None


class _KeyValue(logging.Formatter):
    """`2026-01-31T12:00:00.123456Z info nodeagent.pods msg`: one line a record; fields are `key=value` in the text."""

    def format(self, record: logging.LogRecord) -> str:
        when = clock.rfc3339_micro(record.created)
        return f"{when} {record.levelname.lower()} {record.name} {_message(self, record)}"


class _Journal(logging.Formatter):
    """`<6>nodeagent.pods msg`: the journal has its own time, and keeps the level if it is told. A line is an entry."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = systemd.priority(record.levelno)
        return "\n".join(prefix + line for line in f"{record.name} {_message(self, record)}".split("\n"))


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    return text + "\n" + formatter.formatException(record.exc_info) if record.exc_info else text


def setup_logging(level: str = "info") -> None:
    """Log to standard error, one line an operation. `level`: debug, info, warning or error. Raises ConfigError."""
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"--log-level: {level!r} is none of debug, info, warning, error")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Journal() if _journal() else _KeyValue())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _journal() -> bool:
    try:
        return systemd.journal(sys.stderr.fileno())
    except (OSError, ValueError):  # a test's standard error has no descriptor
        return False


def reload() -> None:
    """What SIGHUP does: every reloader, each by itself, so that one unreadable certificate does not keep the others
    from being read. What failed keeps working with what it has, and says so."""
    systemd.notify(systemd.reloading())
    failed = 0
    for reloader in _reloaders:
        try:
            reloader()
        except Exception as error:
            failed += 1
            log.error("reload_failed what=%s error=%r", getattr(reloader, "__qualname__", reloader), str(error))
    log.info("reloaded parts=%d failed=%d", len(_reloaders), failed)
    systemd.notify(f"READY=1\nSTATUS={f'{failed} parts could not be reloaded, see the log' if failed else ''}")


def allow_many_files() -> None:
    """As many open files as this process may have at all: each connection and each watched thing is one, and a shell's
    usual soft limit of 1,024 is soon reached."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(serve: Serve[C], config: C, ready: Callable[[], None] | None = None) -> None:
    """Run `serve(config, ready)` on a fresh event loop until SIGTERM or SIGINT cancels it, then return."""

    allow_many_files()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        feeding: list[asyncio.Task[None]] = []

        def tell_ready() -> None:
            systemd.notify("READY=1")
            period_s = systemd.watchdog_period_s()
            if period_s and not feeding:
                feeding.append(loop.create_task(systemd.watchdog(period_s), name="watchdog"))
            if ready:
                ready()

        task = asyncio.ensure_future(serve(config, tell_ready))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, reload)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            for feeder in feeding:
                feeder.cancel()
        systemd.notify("STOPPING=1")

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())


def _read_settings_again(cls: type[C], arguments: Sequence[str], used: C) -> Callable[[], None]:
    """A reloader that compares the settings with those in use, lets who can take a new value, and names the others."""
    current = {f.name: getattr(used, f.name) for f in dataclasses.fields(cls)}  # type: ignore[arg-type]

    def again() -> None:
        fresh = load_config(cls, arguments)
        for name, old in current.items():
            new = getattr(fresh, name)
            if new == old:
                continue
            if name in _settings:
                _settings[name](new)
                current[name] = new
                log.info("setting_changed name=%s value=%r", name, new)
            else:
                log.warning("setting_needs_restart name=%s in_use=%r", name, old)

    return again


def main(cls: type[C], serve: Serve[C], argv: Sequence[str] | None = None) -> int:
    """Entry point of a daemon's `__main__`: configuration errors become one line on standard error and exit code 2."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        config = load_config(cls, arguments)
        setup_logging(getattr(config, "log_level", "info"))
    except (ConfigError, OSError) as error:
        return _refuse(cls, error)
    on_setting("log_level", setup_logging)
    on_reload(_read_settings_again(cls, arguments, config))
    try:
        run(serve, config)
    except ConfigError as error:  # what only the daemon itself can judge
        return _refuse(cls, error)
    return 0


def _refuse(cls: type[Any], error: Exception) -> int:
    prefix = systemd.priority(logging.ERROR) if _journal() else ""
    print(f"{prefix}{cls.__module__}: {error}", file=sys.stderr)
    return 2
