"""Network namespaces by file descriptor: open one, be inside one for a moment.

`setns(2)` moves one thread. Everything here therefore belongs on a thread that does only network work, and leaves the
thread where it was even when the work in between fails.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nodeagent.linux.syscalls import call

CLONE_NEWNET = 0x40000000


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace `fd`. Raises KernelError (EPERM, EINVAL)."""
    call("setns", fd, CLONE_NEWNET)


def open_namespace(path: str) -> int:
    """A file descriptor for the namespace at `path` (/run/netns/x, /proc/<pid>/ns/net). Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def entered(fd: int) -> Iterator[None]:
    """Inside the namespace `fd` for the length of a `with`, on this thread only."""
    home = open_namespace("/proc/thread-self/ns/net")
    try:
        setns(fd)
        try:
            yield
        finally:
            setns(home)
    finally:
        os.close(home)
