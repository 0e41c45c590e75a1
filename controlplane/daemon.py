"""What every daemon of ours does alike: configuration, logging, readiness, signals, the event loop.

A daemon is a dataclass `Config` (a docstring a field, units in the name) and a coroutine `serve(config, ready)` that
runs until it is cancelled and calls `ready()` once when it serves. `run()` does the rest:

    flags (--node-name n1)  >  environment (WHERRY_NODE_NAME=n1)  >  file (--config f.yaml, key node_name)  >  default

`ready()` tells systemd (sd_notify READY=1, when NOTIFY_SOCKET is set). SIGTERM and SIGINT cancel `serve`; SIGHUP calls
the reloaders registered with `on_reload`. It is not a supervisor: restarting is systemd's or the lab's work.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from controlplane import clock

C = TypeVar("C")
Serve = Callable[[C, Callable[[], None]], Awaitable[None]]

_reloaders: list[Callable[[], None]] = []


class ConfigError(Exception):
    """A flag, variable or file entry that cannot be used; the message names it."""


def on_reload(callback: Callable[[], None]) -> None:
    """Call `callback` on SIGHUP (`systemctl reload`), e.g. to read certificates again."""
    _reloaders.append(callback)


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
        line = f"{clock.rfc3339_micro(record.created)} {record.levelname.lower()} {record.name} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def setup_logging(level: str = "info") -> None:
    """Log to standard error, one line an operation. `level`: debug, info, warning or error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_KeyValue())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def notify(message: str) -> None:
    """Send `message` (e.g. `READY=1`) to systemd, when it asked for it (sd_notify(3)); nothing otherwise."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.connect("\0" + address[1:] if address.startswith("@") else address)
        s.send(message.encode())


def run(serve: Serve[C], config: C, ready: Callable[[], None] | None = None) -> None:
    """Run `serve(config, ready)` on a fresh event loop until SIGTERM or SIGINT cancels it, then return."""

    def tell_ready() -> None:
        notify("READY=1")
        if ready:
            ready()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(serve(config, tell_ready))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, lambda: [r() for r in _reloaders])
        with contextlib.suppress(asyncio.CancelledError):
            await task
        notify("STOPPING=1")

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())


def main(cls: type[C], serve: Serve[C], argv: Sequence[str] | None = None) -> int:
    """Entry point of a daemon's `__main__`: configuration errors become one line on standard error and exit code 2."""
    try:
        config = load_config(cls, sys.argv[1:] if argv is None else argv)
    except (ConfigError, OSError) as error:
        print(f"{cls.__module__}: {error}", file=sys.stderr)
        return 2
    setup_logging(getattr(config, "log_level", "info"))
    try:
        run(serve, config)
    except ConfigError as error:  # what only the daemon itself can judge
        print(f"{cls.__module__}: {error}", file=sys.stderr)
        return 2
    return 0
