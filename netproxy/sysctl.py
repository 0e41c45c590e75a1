"""Settings under /proc/sys of the calling thread's network namespace."""

from __future__ import annotations

import os

from netproxy.backend import BackendError


def read(name: str) -> str:
    """A setting's value, e.g. of `net/ipv4/ip_forward`; empty if the kernel does not have it."""
    try:
        with open("/proc/sys/" + name, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(name: str, value: str) -> None:
    """Set it unless it is so already. Raises BackendError."""
    if read(name) == value:
        return
    try:
        fd = os.open("/proc/sys/" + name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise BackendError(f"sysctl {name}={value}: {error.strerror}") from error
