"""Network namespaces by file descriptor: open one, be inside one for a moment.

`setns(2)` moves one thread. Everything here therefore belongs on a thread that does only network work, and leaves the
thread where it was even when the work in between fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace `fd`. Raises OSError (EPERM, EINVAL)."""
    if _libc.setns(fd, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns(CLONE_NEWNET): {os.strerror(code)}")


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
