"""A process that a shim has started, and where its output goes: a container's first, or an exec's.

A container's output is copied to its log and to whoever is attached; nobody who is slow to read can stall it. What the
cgroup knows of it (how to kill all of it, how many the kernel killed for want of memory) is read from files that the
agent named. It knows no epoll and no requests: those are shim.py's.

Lean: it is part of the shim.
"""

import _signal  # type: ignore[import-not-found]
import os
import time

from nodeagent.runtime.logs import Log, Stream, stamp
from nodeagent.runtime.wire import Connection

SIGKILL = 9
CHUNK = 65536


class Viewer:
    """Someone attached to a container, by the connection `owner`: the pipes (stdout, stderr) that get a copy."""

    def __init__(self, owner: Connection, out: "list[int]") -> None:
        self.owner = owner
        self.out = out


class Process:
    """`owner`: the connection that an exec belongs to, None for a container's first process."""

    def __init__(self, key: str, pid: int, pidfd: int, directory: str = "", owner: "Connection | None" = None) -> None:
        self.key = key
        self.pid = pid
        self.pidfd = pidfd
        self.directory = directory
        self.owner = owner
        self.oom_file = ""
        self.kill_file = ""
        self.log: Log | None = None
        self.outputs: dict[int, Stream] = {}
        self.stdin = -1
        self.stdin_once = False
        self.terminal = -1
        self.viewers: list[Viewer] = []

    def signal(self, number: int) -> bool:
        """Send a signal; SIGKILL to everything in its cgroup. False if it is gone."""
        try:
            _signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        if number == SIGKILL:
            self.kill_rest()
        return True

    def kill_rest(self) -> None:
        """Kill what it left behind where it was not alone in its PID namespace."""
        if self.kill_file:
            _write(self.kill_file, b"1")

    def copy(self, fd: int, last: bool = False) -> bool:
        """Copy what is there on output `fd` to the log and to viewers; with `last`, everything up to the end. True when
        this output has ended: `fd` is to be closed."""
        stream, log = self.outputs[fd], self.log
        while True:
            try:
                chunk = os.read(fd, CHUNK)
            except BlockingIOError:
                break
            except OSError:  # EIO: the terminal's last user is gone
                chunk = b""
            if not chunk:
                last = True
                break
            if log is not None:
                log.write(stream.feed(chunk, stamp(time.clock_gettime_ns(time.CLOCK_REALTIME))))
            for viewer in list(self.viewers):
                self._show(viewer, 0 if stream.name == "stdout" else 1, chunk)
            if not last and len(chunk) < CHUNK:
                return False
        if last:
            if log is not None:
                log.write(stream.finish(stamp(time.clock_gettime_ns(time.CLOCK_REALTIME))))
            del self.outputs[fd]
            if fd == self.terminal:
                self.terminal = -1
        return last

    def _show(self, viewer: Viewer, which: int, chunk: bytes) -> None:
        """A viewer that does not keep up (a pipe full) is let go, rather than stall the container."""
        try:
            written = os.write(viewer.out[which], chunk)
        except OSError:
            written = 0
        if written < len(chunk):
            self.detach(viewer)

    def detach(self, viewer: Viewer) -> None:
        self.viewers.remove(viewer)
        for fd in viewer.out:
            os.close(fd)
        if self.stdin_once:
            self.close_stdin()

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def close(self) -> None:
        """Let go of everything but the outputs, which `copy` has ended."""
        if self.log is not None:
            self.log.close()
        self.close_stdin()
        for viewer in list(self.viewers):
            self.detach(viewer)


def oom_kills(path: str) -> int:
    """How many processes the kernel has killed for want of memory, by memory.events (v2) or memory.oom_control."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        words = os.read(fd, 4096).split()
        return int(words[words.index(b"oom_kill") + 1])
    except (OSError, ValueError, IndexError):
        return 0
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    """Write to a cgroup file that may be gone."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, data)
    except OSError:
        pass
    finally:
        os.close(fd)
