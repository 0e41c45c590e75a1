"""Reading container logs: the lines that somebody asked for, from files in the CRI's format.

    2026-11-21T10:00:00.123456789Z stdout F a whole line
    2026-11-21T10:00:00.123456790Z stderr P a part, without its end

A tail is found from the end of the file backwards, so that it costs what it returns. Following looks for growth a few
times a second, only while somebody follows, and goes over to the new file after a rotation.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from controlplane import clock
from controlplane.api.status import bad_request
from nodeagent.server.http import Request

_BLOCK = 64 * 1024
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What `kubectl logs` can ask for. `since`: RFC 3339 text to compare with, empty for all. `tail` and `limit_bytes`
    None: no limit. `stream`: stdout, stderr or empty for both."""

    follow: bool = False
    tail: int | None = None
    since: str = ""
    timestamps: bool = False
    limit_bytes: int | None = None
    previous: bool = False
    stream: str = ""

    @classmethod
    def of(cls, request: Request) -> LogOptions:
        """From a request's parameters. Raises StatusError (400)."""
        try:
            tail = request.first("tailLines") or None
            limit = request.first("limitBytes") or None
            seconds = request.first("sinceSeconds")
            since = ""
            if seconds:
                since = clock.rfc3339_micro(clock.wall_time() - int(seconds))
            elif request.first("sinceTime"):
                since = clock.rfc3339_micro(clock.parse_rfc3339(request.first("sinceTime")))
            options = cls(
                request.flag("follow"), None if tail is None else int(tail), since, request.flag("timestamps"),
                None if limit is None else int(limit), request.flag("previous"),
                {"stdout": "stdout", "stderr": "stderr"}.get(request.first("stream").lower(), ""),
            )  # fmt: skip
        except ValueError as error:
            raise bad_request(f"invalid log options: {error}") from error
        if (options.tail or 0) < 0 or (options.limit_bytes is not None and options.limit_bytes < 1):
            raise bad_request("tailLines must not be negative and limitBytes must be positive")
        return options


async def read(path: str, options: LogOptions, ended: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    """The log as users see it, in chunks. `ended`: whether nothing more will be written. A missing file is an empty
    log."""
    left = options.limit_bytes
    formatter = _Formatter(options)
    fd = _open(path)
    try:
        if fd is not None and options.tail is not None:
            os.lseek(fd, tail_offset(fd, options.tail), os.SEEK_SET)
        rest = b""
        was_ended = False
        while True:
            block = os.read(fd, _BLOCK) if fd is not None else b""
            if block:
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                text = formatter.format(lines)
                if left is not None:
                    text = text[:left]
                    left -= len(text)
                if text:
                    yield text
                if left == 0:
                    return
                await asyncio.sleep(0)  # a large log must not hold up the pods
                continue
            if not options.follow or was_ended:
                return
            if await ended():
                was_ended = True  # one more look: it may have written its last line after ours
                continue
            if fd is None or _rotated(fd, path):
                fresh = _open(path)
                if fresh is not None:
                    if fd is not None:
                        os.close(fd)
                    fd, rest = fresh, b""
                    continue
            await asyncio.sleep(_LOOK_S)
    finally:
        if fd is not None:
            os.close(fd)


class _Formatter:
    """Turns lines of the file into what is shown."""

    def __init__(self, options: LogOptions) -> None:
        self._since = options.since.encode()
        self._timestamps = options.timestamps
        self._stream = options.stream.encode()
        self._continued = False

    def format(self, lines: list[bytes]) -> bytes:
        result: list[bytes] = []
        for line in lines:
            parts = line.split(b" ", 3)
            if len(parts) < 4:
                continue
            stamp, stream, tag, text = parts
            if (self._stream and stream != self._stream) or (self._since and _earlier(stamp, self._since)):
                continue
            if self._timestamps and not self._continued:
                result += (stamp, b" ")
            result.append(text)
            self._continued = tag.startswith(b"P")
            if not self._continued:
                result.append(b"\n")
        return b"".join(result)


def _earlier(stamp: bytes, since: bytes) -> bool:
    """Compare RFC 3339 times in UTC as text: the seconds first, then the fraction, which may have any length."""
    if stamp[:19] != since[:19]:
        return stamp[:19] < since[:19]
    return stamp[20:].rstrip(b"Z").ljust(9, b"0") < since[20:].rstrip(b"Z").ljust(9, b"0")


def tail_offset(fd: int, lines: int) -> int:
    """Where the last `lines` lines of a file begin, found from its end."""
    end = os.lseek(fd, 0, os.SEEK_END)
    if lines == 0:
        return end
    position, missing = end, lines + 1  # the file's last byte ends its last line
    while position > 0:
        start = max(0, position - _BLOCK)
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


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _rotated(fd: int, path: str) -> bool:
    """Whether `path` is another file by now (or the same one, cut)."""
    ours = os.fstat(fd)
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) != (now.st_dev, now.st_ino) or now.st_size < os.lseek(fd, 0, os.SEEK_CUR)
