"""A container's log as files: the current one, and those that follow it while somebody reads.

A rotation renames the file and makes the runtime open a new one at the same path. Who follows keeps the old file open
until its end, and opens each new one when it appears, long before reading it: a slow client must not miss a file that
is renamed, compressed and removed meanwhile. The end of an old file is certain once its successor exists, because the
runtime writes to one or the other.
"""

from __future__ import annotations

import os
from collections import deque

BLOCK = 256 * 1024
_LONGEST_CHAIN = 8
"""Files that a follower may lag behind. An open file keeps its disk space though it is removed; a client that has
stopped reading must not fill the disk. It loses the oldest of what it has not read."""


class LogFiles:
    """Begins with the file that is at `path`, or will be."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fds: deque[int] = deque()
        self._latest: tuple[int, int] | None = None
        self.look()

    def look(self) -> None:
        """See whether there is a new file at the path."""
        try:
            found = os.stat(self._path)
        except OSError:
            return
        if (found.st_dev, found.st_ino) == self._latest:
            return
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        opened = os.fstat(fd)
        self._latest = opened.st_dev, opened.st_ino
        self._fds.append(fd)
        if len(self._fds) > _LONGEST_CHAIN:
            os.close(self._fds[1])
            del self._fds[1]

    def read(self) -> bytes:
        """The next bytes of the current file; empty when there are none (now)."""
        if not self._fds:
            return b""
        fd = self._fds[0]
        data = os.read(fd, BLOCK)
        if not data and os.fstat(fd).st_size < os.lseek(fd, 0, os.SEEK_CUR):
            os.lseek(fd, 0, os.SEEK_SET)  # cut by somebody: begin again
            data = os.read(fd, BLOCK)
        return data

    def advance(self) -> bool:
        """Go on to the next file, if there is one. Only right after a `read` that returned nothing, without an await in
        between that could have let a file appear."""
        if len(self._fds) < 2:
            return False
        os.close(self._fds.popleft())
        return True

    @property
    def successor(self) -> bool:
        """Whether a newer file is known."""
        return len(self._fds) > 1

    def seek_tail(self, lines: int) -> None:
        """Begin at the last `lines` lines of the current file."""
        if self._fds:
            os.lseek(self._fds[0], tail_offset(self._fds[0], lines), os.SEEK_SET)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())


def tail_offset(fd: int, lines: int) -> int:
    """Where the last `lines` lines of a file begin, found from its end: it costs what it returns."""
    end = os.lseek(fd, 0, os.SEEK_END)
    if lines == 0:
        return end
    position, missing = end, lines + 1  # the file's last byte ends its last line
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(fd, position - start, start)
        if position == end and not block.endswith(b"\n"):
            missing -= 1
        count = block.count(b"\n")
        if count >= missing:
            index = len(block)
            for _ in range(missing):
                index = block.rindex(b"\n", 0, index)
            return start + index + 1
        missing -= count
        position = start
    return 0
