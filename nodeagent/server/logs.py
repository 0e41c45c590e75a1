"""Reading container logs: the lines that somebody asked for, from files in the CRI's format.

`logfiles.py` gives the bytes, through rotations; `loglines.py` makes what is shown of them. Following looks for growth
a few times a second, only while somebody follows, and ends with the container, as in Kubernetes: the next instance is
another log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from nodeagent.server.logfiles import LogFiles
from nodeagent.server.loglines import LogLines, LogOptions

_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.3
_WATCH_S = 1.0


async def read(path: str, options: LogOptions, ended: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    """The log as users see it, in chunks. `ended`: whether nothing more will be written. A missing file is an empty
    log."""
    left = options.limit_bytes
    lines = LogLines(options)
    files = LogFiles(path)
    watching = asyncio.ensure_future(_watch(files)) if options.follow else None
    try:
        if options.tail is not None:
            files.seek_tail(options.tail)
        pause, was_ended = _SHORTEST_LOOK_S, False
        while True:
            successor = files.successor  # known before the read, so that nothing can be written after it
            if block := files.read():
                pause = _SHORTEST_LOOK_S
                text = lines.format(block)
                if left is not None:
                    text = text[:left]
                    left -= len(text)
                if text:
                    yield text
                if left == 0:
                    return
                await asyncio.sleep(0)  # a large log must not hold up the pods
            elif successor:
                files.advance()
                lines.new_file()
            elif not options.follow or was_ended:
                return
            else:
                was_ended = await ended()  # then one more look: it may have written its last line after ours
                files.look()
                if not was_ended and not files.successor:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_LOOK_S)
    finally:
        if watching is not None:
            watching.cancel()
        files.close()


async def _watch(files: LogFiles) -> None:
    """Notice rotations while the reader waits for its client."""
    while True:
        await asyncio.sleep(_WATCH_S)
        files.look()
