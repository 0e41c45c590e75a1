"""What a cgroup may be told, and the one way to write it.

Every controller is a file in v1/ or v2/ with a pure function `settings(limits) -> [(file, value)]`, so that what is
written is decided without a kernel; `apply` writes it to a directory, which in tests is an ordinary one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from nodeagent.linux.syscalls import KernelError

Setting = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """0 or empty: leave the kernel's default. Bytes, microseconds, CFS shares (1024 = one CPU)."""

    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    memory_limit_bytes: int = 0
    pids_limit: int = 0
    cpuset_cpus: str = ""
    hugepages: tuple[tuple[str, int], ...] = ()  # (size, e.g. 2MB; the most bytes)


def write(path: str, value: str) -> None:
    """Write `value` to a cgroup file in one write. Raises KernelError naming the file.

    os.open and os.write, because a buffered file that fails in close() loses the errno.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or 0, f"write {value!r} to", path) from error


def read(path: str) -> str:
    """The file's text, stripped. Raises OSError."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def apply(directory: str, settings: Iterable[Setting]) -> None:
    """Write every setting below `directory`. Raises KernelError."""
    for name, value in settings:
        write(f"{directory}/{name}", value)
