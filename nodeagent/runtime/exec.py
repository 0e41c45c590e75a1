"""Sessions: a process's streams in the agent's hands, for exec and attach.

The agent's pipes *are* the process's standard streams (exec), so nothing is copied on the way and a slow reader slows
nobody else. The connection to the shim owns an exec's process: closing it, or dying, kills the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Sequence

from nodeagent.linux.program import Program
from nodeagent.runtime import plan
from nodeagent.runtime.interface import RuntimeFailure
from nodeagent.runtime.link import Link, Message
from nodeagent.runtime.state import Container

_CHUNK = 65536
_ATTACH_BUFFER = 1 << 20  # bytes of output that an attached reader may lag behind before it is let go


class Session:
    """`ExecSession` over descriptors. `outputs`: stream number → descriptor, ours from now on, as is `stdin`."""

    def __init__(
        self, link: Link, outputs: dict[int, int], stdin: int, *, terminal: bool,
        exited: asyncio.Future[int], end_of_input: Callable[[], Awaitable[object]] | None = None,
        ends_terminal: bool = True, takes_input: bool = True,
    ) -> None:  # fmt: skip
        self._link = link
        self._outputs = outputs
        self._stdin = stdin
        self._terminal = terminal
        self._exited = exited  # when the session closes first, the process has been killed
        self._waiting: set[asyncio.Future[None]] = set()
        self._end_of_input = end_of_input
        self._ends_terminal = ends_terminal
        self._takes_input = takes_input
        self._loop = asyncio.get_running_loop()
        for fd in {*outputs.values(), *([stdin] if stdin >= 0 else [])}:
            os.set_blocking(fd, False)

    @classmethod
    async def run(
        cls, container: Container, program: Program, request: Message, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> Session:
        """Start `program` in the container through a connection of its own. Raises RuntimeFailure."""
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def heard(message: Message) -> None:
            if "exit" in message and not exited.done():
                exited.set_result(message["exit"])

        link = _connect(container, heard, _killed(exited))
        mine: list[int] = []
        theirs: list[int] = [program.memfd("exec")]
        try:
            if tty:
                receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                mine.append(receiver.detach())
                null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
                theirs += [null, null, null, sender.detach()]
            else:
                if stdin:
                    source, feed = os.pipe2(os.O_CLOEXEC)
                else:
                    source, feed = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
                out, into = os.pipe2(os.O_CLOEXEC)
                err, errinto = os.pipe2(os.O_CLOEXEC)
                mine += [feed, out, err]
                theirs += [source, into, errinto]
            reply = await link.request(request, theirs)
            if "failed" in reply:
                denied = -errno.EACCES in program.results(theirs[0], "execve")
                raise RuntimeFailure(plan.explain(program, reply["failed"], denied, argv)[1])
            if tty:
                with socket.socket(fileno=mine.pop()) as receiver:
                    receiver.setblocking(False)
                    terminal = socket.recv_fds(receiver, 1, 1)[1][0]
                os.set_inheritable(terminal, False)
                return cls(link, {1: terminal}, terminal, terminal=True, exited=exited)
            feed, out, err = mine
            mine = []
            return cls(link, {1: out, 2: err}, feed, terminal=False, exited=exited)
        except BaseException:
            link.close()
            raise
        finally:
            for fd in {*mine, *theirs} - {-1}:
                os.close(fd)

    @classmethod
    async def attach(cls, container: Container) -> Session:
        """The streams of the container's first process. Raises RuntimeFailure."""
        loop = asyncio.get_running_loop()
        exited: asyncio.Future[int] = loop.create_future()

        def heard(message: Message) -> None:
            if message.get("ended") == container.file.id and not exited.done():
                exited.set_result(message["code"])

        link = _connect(container, heard, _killed(exited))
        out, into = os.pipe2(os.O_CLOEXEC)
        err, errinto = os.pipe2(os.O_CLOEXEC)
        try:
            for fd in (into, errinto):
                with contextlib.suppress(OSError):
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ATTACH_BUFFER)
            request = {"op": "attach", "id": container.file.id}
            await link.request({"op": "watch"})
            reply, passed = await link.request_fds(request, [into, errinto])
        except BaseException:
            for fd in (out, err):
                os.close(fd)
            link.close()
            raise
        finally:
            for fd in (into, errinto):
                os.close(fd)
        stdin = passed[0] if reply["stdin"] else -1
        if reply["terminal"]:
            for fd in passed[1:] if reply["stdin"] else []:
                os.close(fd)
            stdin = passed[0]

        async def end_of_input() -> None:
            await link.request({"op": "eof", "id": container.file.id})

        return cls(
            link, {1: out, 2: err}, stdin, terminal=reply["terminal"], exited=exited, end_of_input=end_of_input,
            # Who only visits a shell must not end it.
            ends_terminal=container.file.config.stdin_once, takes_input=reply["stdin"],
        )  # fmt: skip

    async def read(self) -> tuple[int, bytes] | None:
        while self._outputs:
            for stream, fd in list(self._outputs.items()):
                try:
                    chunk = os.read(fd, _CHUNK)
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno != errno.EIO:  # a terminal whose last user is gone
                        raise
                    chunk = b""
                if chunk:
                    self._outputs[stream] = self._outputs.pop(stream)  # the other one first, next time: none starves
                    return stream, chunk
                del self._outputs[stream]
                if fd != self._stdin:
                    os.close(fd)
            if self._outputs:
                await self._ready(list(self._outputs.values()), self._loop.add_reader, self._loop.remove_reader)
        return None

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._stdin < 0 or not self._takes_input:  # a terminal can be resized all the same
                raise RuntimeFailure("exec: standard input is closed")
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._ready([self._stdin], self._loop.add_writer, self._loop.remove_writer)
            except (BrokenPipeError, OSError) as error:
                raise RuntimeFailure("exec: the process no longer reads its input") from error

    async def close_stdin(self) -> None:
        if self._stdin < 0:
            return
        if self._terminal:
            if self._ends_terminal and self._takes_input:
                with contextlib.suppress(RuntimeFailure):
                    await self.write(b"\x04")  # a terminal's end of file is a character
            return
        os.close(self._stdin)
        self._stdin = -1
        if self._end_of_input:
            await self._end_of_input()

    async def resize(self, width: int, height: int) -> None:
        if self._terminal and self._stdin >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        return await asyncio.shield(self._exited)

    async def close(self) -> None:
        for fd in {*self._outputs.values(), self._stdin} - {-1}:
            for remove in (self._loop.remove_reader, self._loop.remove_writer):
                remove(fd)
            os.close(fd)
        self._outputs, self._stdin = {}, -1
        self._link.close()
        for future in list(self._waiting):
            _settle(future)
        _killed(self._exited)()

    async def _ready(self, fds: list[int], add: Callable[..., object], remove: Callable[[int], object]) -> None:
        """Until one of `fds` is ready."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        for fd in fds:
            add(fd, _settle, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            for fd in fds:
                remove(fd)


def _connect(container: Container, heard: Callable[[Message], None], lost: Callable[[], None]) -> Link:
    try:
        return Link(f"{container.sandbox.directory}/shim.sock", heard, lost)
    except OSError as error:
        raise RuntimeFailure(f"container {container.file.id}: its shim is gone") from error


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _killed(exited: asyncio.Future[int]) -> Callable[[], None]:
    """What to do when nobody will report the exit any more: the process has been killed with its connection."""
    return lambda: None if exited.done() else exited.set_result(137)
