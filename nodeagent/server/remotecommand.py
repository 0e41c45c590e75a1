"""exec and attach, whatever carries them: a process's streams and a client's, joined until one of the two has ended.

`remote_websocket.py` and `remote_spdy.py` are the carriers. Two coroutines pump, each waiting for the other side to
take what it sent: memory stays the same however much flows. Statuses are kubelet's own
(k8s.io/kubelet/pkg/cri/streaming/remotecommand).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nodeagent.runtime.interface import ExecSession, RuntimeFailure

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
CHUNK = 64 * 1024
_EXIT_WITHIN_S = 2.0  # from the end of an attached container's output to the news of its exit
LINGER_S = 10.0
"""How long an ended session waits for its client to hang up first. Closing at once with its bytes unread would reset
the connection, and the exit code might be lost on the way."""


@dataclass(frozen=True, slots=True)
class Options:
    """Which streams the client asked for. `stderr` is never with `tty`."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class ClientLeft(Exception):
    """The client's connection is over."""


class Remote(Protocol):
    """The client's side of a session."""

    async def send(self, channel: int, data: bytes) -> None:
        """Output for the client; returns when the connection took it. Raises OSError, ClientLeft."""

    async def feed(self, session: ExecSession) -> None:
        """Bring the client's input, end of input and window sizes to the process, until the client leaves. When the
        process does not want them any more, they are still read."""

    async def finish(self, status: dict[str, Any]) -> None:
        """Tell how it ended. Raises OSError, ClientLeft."""


async def serve(
    remote: Remote, begin: Callable[[], Awaitable[ExecSession]], options: Options, doing: str, command: Sequence[str]
) -> None:
    """The whole session. `doing` is how a failure to begin is called; `command` empty means attach, whose end is a
    success whatever the container's exit code (it is in the pod's status)."""
    try:
        session = await begin()
    except RuntimeFailure as failure:
        nobody = asyncio.ensure_future(remote.feed(_Nobody()))
        await _end(remote, internal_error(f"{doing}: {failure}"), nobody)
        return
    incoming = asyncio.ensure_future(remote.feed(session))
    outgoing = asyncio.ensure_future(_outcome(remote, session, options, attached=not command))
    try:
        await asyncio.wait((incoming, outgoing), return_when=asyncio.FIRST_COMPLETED)
        if outgoing.done():
            try:
                code = outgoing.result()
                status = exit_status(code, command) if command else SUCCESS
            except RuntimeFailure as failure:
                status = internal_error(f"{doing}: {failure}")
            await session.close()
            await _end(remote, status, incoming)
    except (OSError, ClientLeft):
        pass
    finally:
        for task in (incoming, outgoing):
            task.cancel()
        await asyncio.gather(incoming, outgoing, return_exceptions=True)
        with contextlib.suppress(RuntimeFailure, OSError):
            await session.close()


async def _end(remote: Remote, status: dict[str, Any], incoming: asyncio.Future[None]) -> None:
    """Say how it ended; what the client still sends is read, and lost, until it hangs up."""
    try:
        await remote.finish(status)
        await asyncio.wait([incoming], timeout=LINGER_S)
    except (OSError, ClientLeft):
        pass
    finally:
        incoming.cancel()
        await asyncio.gather(incoming, return_exceptions=True)


class _Nobody:
    """An `ExecSession` of no process, for what a client sends to one that never was."""

    async def read(self) -> tuple[int, bytes] | None:
        return None

    async def write(self, data: bytes) -> None:
        raise RuntimeFailure("exec: there is no process")

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    async def wait(self) -> int:
        return 0

    async def close(self) -> None: ...


async def _outcome(remote: Remote, session: ExecSession, options: Options, *, attached: bool) -> int:
    """Bring output from the process to the client until there is no more; then the process's exit code. Raises
    RuntimeFailure for an attached client whose output ended though the container has not: the runtime does not let a
    container wait for a client that does not keep up."""
    wanted = {STDOUT: options.stdout, STDERR: options.stderr}
    while (chunk := await session.read()) is not None:
        channel, data = chunk
        if wanted.get(channel):
            for start in range(0, len(data), CHUNK):
                await remote.send(channel, data[start : start + CHUNK])
    if not attached:
        return await session.wait()
    try:
        async with asyncio.timeout(_EXIT_WITHIN_S):
            return await session.wait()
    except TimeoutError:
        raise RuntimeFailure("detached, because the client did not keep up with the container's output") from None


async def resize(session: ExecSession, message: bytes) -> None:
    """Apply a client's {"Width": …, "Height": …}; nonsense is ignored, as kubelet does."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RuntimeFailure, OSError):
        size = json.loads(message)
        width, height = int(size["Width"]), int(size["Height"])
        if 0 < width < 0x10000 and 0 < height < 0x10000:
            await session.resize(width, height)


SUCCESS: dict[str, Any] = {"metadata": {}, "status": "Success"}


def exit_status(code: int, command: Sequence[str]) -> dict[str, Any]:
    """The Status that ends an exec, which kubectl turns into its own exit code."""
    if code == 0:
        return SUCCESS
    words = " ".join(command)
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command [{words}], exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def internal_error(message: str) -> dict[str, Any]:
    """As apimachinery's NewInternalError."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def render(status: dict[str, Any], version: int) -> bytes:
    """What goes down the error channel: the Status from version 4 on, before that a failure's bare message."""
    if version >= 4:
        return json.dumps(status).encode()
    return b"" if status["status"] == "Success" else str(status["message"]).encode()
