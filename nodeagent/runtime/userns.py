"""A pod's user namespace (`hostUsers: false`): made by the shim, entered by the first code of each process of the pod.

The shim stays in the node's user namespace, and so keeps the power to prepare file trees; but the pod's network, IPC
and UTS namespaces belong to the pod's users: its root may bind port 80 and set its own sysctls. They are therefore made
by a helper that is in the new user namespace already, whose mapping only somebody outside may write.

Lean: a shim imports it, when its pod asks for one.
"""

import os
import struct

from nodeagent.linux.syscalls import NUMBERS, KernelError, numbers_only

CLONE_NEWUSER = 0x10000000
_KINDS = (("net", 0x40000000), ("ipc", 0x8000000), ("uts", 0x4000000))


def enter(flags: int, first: int, length: int) -> int:
    """Make a user namespace whose ids 0 to `length` - 1 are the node's from `first` on, and with it the namespaces of
    the CLONE_* `flags`, which this process enters. A descriptor of the user namespace. Raises OSError."""
    (told, tell), (held, release) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _help(flags, tell, held, release)
    os.close(tell)
    os.close(held)
    try:
        answer = os.read(told, 8)
        code = struct.unpack("q", answer)[0] if len(answer) == 8 else -5
        if code < 0:
            raise KernelError(-code, "unshare", "the pod's user namespace")
        for name in ("uid_map", "gid_map"):
            _write(f"/proc/{pid}/{name}", f"0 {first} {length}\n")
        for name, flag in _KINDS:
            if flags & flag:
                _join(f"/proc/{pid}/ns/{name}", flag)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(told)
        os.close(release)
        os.waitid(os.P_PID, pid, os.WEXITED)


def _help(flags: int, tell: int, held: int, release: int) -> None:
    """The helper's whole life: make the namespaces, and hold them until its parent has them."""
    try:
        os.close(release)
        result = numbers_only(NUMBERS["unshare"], CLONE_NEWUSER | flags)
        os.write(tell, struct.pack("q", result))
        os.read(held, 1)
    finally:
        os._exit(0)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise KernelError(error.errno or 5, "write", f"{path} ({text.strip()})") from error
    finally:
        os.close(fd)


def _join(path: str, flag: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result = numbers_only(NUMBERS["setns"], fd, flag)
    finally:
        os.close(fd)
    if result < 0:
        raise KernelError(-result, "setns", path)
