"""A container's log on disk, in the CRI's format: `2026-01-31T12:00:00.123456789Z stdout F the line`.

The shim feeds it what it reads from the container's pipes, so logs neither need nor notice the agent. Every chunk read
gets one timestamp and becomes one write: the cost of a line is that of `bytes.replace`. A line over 16 KiB is cut into
parts tagged `P`, the last one `F`; what the container leaves without a newline when it ends is a part, too (both as
containerd does). A full disk loses lines, never blocks the container. Rotation renames the file and calls `reopen`.

Lean: the shim imports it. Reading logs is the agent's server's work.
"""

import os
import time

MAX_LINE = 16384


def stamp(nanoseconds: int) -> str:
    """`nanoseconds` since the epoch as RFC 3339 in UTC with nine decimals."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    t = time.gmtime(seconds)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}.{rest:09d}Z"


class Stream:
    """One of a container's outputs as log lines: bytes in, formatted bytes out; keeps an unfinished line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open = b""

    def feed(self, chunk: bytes, now: str) -> bytes:
        """What to append to the log for `chunk`, read at time `now`."""
        full = f"{now} {self.name} F ".encode()
        part = f"{now} {self.name} P ".encode()
        text, newline, rest = chunk.rpartition(b"\n")
        out = b""
        if newline:
            text = self._open + text
            if len(text) > MAX_LINE and max(map(len, text.split(b"\n"))) > MAX_LINE:
                out = b"".join(
                    self._cut(line, part) + full + line[_whole(line) :] + b"\n" for line in text.split(b"\n")
                )
            else:
                out = full + text.replace(b"\n", b"\n" + full) + b"\n"
            self._open = rest
        else:
            self._open += rest
        if len(self._open) > MAX_LINE:
            out += self._cut(self._open, part)
            self._open = self._open[_whole(self._open) :]
        return out

    def finish(self, now: str) -> bytes:
        """What to append when the stream has ended."""
        last, self._open = self._open, b""
        return f"{now} {self.name} P ".encode() + last + b"\n" if last else b""

    @staticmethod
    def _cut(line: bytes, part: bytes) -> bytes:
        return b"".join(part + line[i : i + MAX_LINE] + b"\n" for i in range(0, _whole(line), MAX_LINE))


def _whole(line: bytes) -> int:
    """How much of `line` goes into parts of MAX_LINE, leaving at least one byte for the last."""
    return (len(line) - 1) // MAX_LINE * MAX_LINE if line else 0


class Log:
    """The file, in a directory that is there. Without a path it swallows everything."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost = 0  # bytes that could not be written
        self._fd = self._open()

    def _open(self) -> int:
        if not self.path:
            return -1
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def reopen(self) -> None:
        """Write to a new file at the same path from now on. Raises OSError, and then keeps the old file."""
        old, self._fd = self._fd, self._open()
        if old >= 0:
            os.close(old)

    def write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        while data:
            try:
                written = os.write(self._fd, data)
            except OSError:  # ENOSPC, EDQUOT, EIO: the container must not stop for its log
                self.lost += len(data)
                return
            data = data[written:]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
