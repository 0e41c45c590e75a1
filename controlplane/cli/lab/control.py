"""The other end of the supervisor's socket: send a command, follow its steps, return its answer."""

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from controlplane.cli.lab.spec import Lab


class CommandFailed(Exception):
    """The supervisor's own words."""


class Gone(CommandFailed):
    """The supervisor went away instead of answering."""


class NotRunning(Exception):
    """No supervisor answers on this machine."""


class NotAllowed(Exception):
    """Only root may talk to the supervisor."""


def connect(lab: Lab) -> socket.socket:
    """Raises NotRunning, NotAllowed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(lab.control_socket))
    except OSError as error:
        connection.close()
        raise (NotAllowed if isinstance(error, PermissionError) else NotRunning) from None
    return connection


def stop(lab: Lab, on_step: Callable[[dict[str, Any]], None], purge: bool, patience_s: float = 10.0) -> None:
    """`down`, and then wait until the supervisor's process is gone as well. Raises NotRunning, NotAllowed,
    CommandFailed."""
    connection = connect(lab)
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process = os.pidfd_open(struct.unpack("3i", peer)[0])
    try:
        try:
            _send(connection, {"do": "down", "purge": purge})
            follow(connection, on_step)
        except Gone:
            if select.select([process], [], [], patience_s)[0]:
                raise NotRunning from None  # killed while we asked: the caller cleans up after it
            raise
        if not select.select([process], [], [], patience_s)[0]:
            raise CommandFailed("the lab's supervisor does not end: see lab.log in its data directory")
    finally:
        os.close(process)


def follow(connection: socket.socket, on_step: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Read messages until the answer. Raises CommandFailed; Gone when the supervisor goes away."""
    with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
        for line in lines:
            message = json.loads(line)
            if "done" in message:
                done: dict[str, Any] = message["done"]
                return done
            if "error" in message:
                raise CommandFailed(message["error"])
            on_step(message)
    raise Gone("the lab's supervisor ended without an answer: see lab.log in its data directory")


def ask(
    lab: Lab, do: str, on_step: Callable[[dict[str, Any]], None] = lambda _: None, **arguments: Any
) -> dict[str, Any]:
    """Send one command and wait for its answer. Raises NotRunning, CommandFailed."""
    connection = connect(lab)
    _send(connection, {"do": do, **arguments})
    return follow(connection, on_step)


def _send(connection: socket.socket, command: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):  # `follow` finds out
        connection.sendall(json.dumps(command).encode() + b"\n")
