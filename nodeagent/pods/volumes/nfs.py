"""NFS volumes, where this kernel has the client: one mount(2) a volume, without a helper program.

The kernel takes the options as text, the server's address among them; names are resolved here. A server that does not
answer is waited for as long as the kernel waits: callers run this on a thread.
"""

from __future__ import annotations

import errno
import os
import socket

from nodeagent.linux import syscalls
from nodeagent.pods.volumes.content import VolumeFailure

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _NOATIME = 1, 2, 4, 8, 1024
_FLAGS = {"ro": _RDONLY, "nosuid": _NOSUID, "nodev": _NODEV, "noexec": _NOEXEC, "noatime": _NOATIME}
_IGNORED = {"rw", "defaults", "_netdev", "nofail", "auto", "noauto"}


def mount(server: str, path: str, target: str, options: list[str], readonly: bool) -> None:
    """Mount `server`:`path` at `target`, which is made; nothing if something is mounted there. `options`: as in a
    PersistentVolume's mountOptions. Raises VolumeFailure."""
    os.makedirs(target, 0o750, exist_ok=True)
    if os.path.ismount(target):
        return
    if not available():
        raise VolumeFailure("mount failed: this node's kernel has no NFS client (no nfs4 in /proc/filesystems)")
    flags, data = compile_options(options, _address(server))
    source = f"[{server}]:{path}" if ":" in server else f"{server}:{path}"
    flags |= _RDONLY if readonly else 0
    try:
        syscalls.call(
            "mount", source.encode() + b"\0", target.encode() + b"\0", b"nfs4\0", flags, data.encode() + b"\0",
            path=f"{source} on {target}",
        )  # fmt: skip
    except OSError as error:
        word = " (does the server export it to this node?)" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise VolumeFailure(f"mount failed: {error}{word}") from error


def available() -> bool:
    """Whether the kernel knows NFS. A module that is not loaded yet does not show: the mount would load it."""
    try:
        with open("/proc/filesystems", encoding="ascii") as file:
            if any(line.split()[-1] == "nfs4" for line in file):
                return True
    except OSError:
        return False
    return os.path.exists(f"/lib/modules/{os.uname().release}/kernel/fs/nfs/nfsv4.ko") or os.path.exists(
        f"/lib/modules/{os.uname().release}/kernel/fs/nfs/nfsv4.ko.xz"
    )


def compile_options(options: list[str], address: str) -> tuple[int, str]:
    """(mount flags, option text for the kernel). Version 4.2 unless the options say another."""
    flags, rest = 0, []
    for option in options:
        name, _, value = option.partition("=")
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif name == "nfsvers":
            rest.append(f"vers={value}")
        elif option not in _IGNORED:
            rest.append(option)
    if not any(o.startswith("vers=") for o in rest):
        rest.insert(0, "vers=4.2")
    return flags, ",".join([*rest, f"addr={address}"])


def _address(server: str) -> str:
    try:
        return str(socket.getaddrinfo(server, 2049, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise VolumeFailure(f"mount failed: cannot resolve the NFS server {server!r}: {error.strerror}") from error
