"""The other end of the supervisor's socket: send a command, follow its steps, return its answer."""

import json
import socket
from collections.abc import Callable
from typing import Any

from controlplane.cli.lab.spec import Lab


class CommandFailed(Exception):
    """The supervisor's own words."""


class NotRunning(Exception):
    """No supervisor answers on this machine."""


def connect(lab: Lab) -> socket.socket:
    """Raises NotRunning."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(lab.control_socket))
    except OSError:
        connection.close()
        raise NotRunning from None
    return connection


def follow(connection: socket.socket, on_step: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Read messages until the answer. Raises CommandFailed, also when the supervisor goes away."""
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            if "done" in message:
                done: dict[str, Any] = message["done"]
                return done
            if "error" in message:
                raise CommandFailed(message["error"])
            on_step(message)
    raise CommandFailed("the lab's supervisor ended without an answer: see lab.log in its data directory")


def ask(
    lab: Lab, do: str, on_step: Callable[[dict[str, Any]], None] = lambda _: None, **arguments: Any
) -> dict[str, Any]:
    """Send one command and wait for its answer. Raises NotRunning, CommandFailed."""
    connection = connect(lab)
    connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
    return follow(connection, on_step)
