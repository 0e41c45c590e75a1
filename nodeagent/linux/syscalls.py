"""System calls that Python does not offer, by number through libc's `syscall(2)`, with one funnel for errors.

`call("move_mount", ...)` raises `KernelError`, which says the operation, the path and the kernel's reason. Lean on
purpose (os, ctypes, errno): the zygote imports it. Numbers are data, so that a program of system calls (program.py)
can be built on one side and executed on the other. It does not wrap what `os` has.
"""

import ctypes
import errno
import os

MACHINE = os.uname().machine

_X86_64 = {
    "read": 0, "write": 1, "close": 3, "rt_sigaction": 13, "rt_sigprocmask": 14, "ioctl": 16, "sendmsg": 46,
    "execve": 59, "chdir": 80, "fchdir": 81, "umask": 95, "setsid": 112, "setgroups": 116, "setresuid": 117,
    "setresgid": 119, "setfsuid": 122, "setfsgid": 123,
    "capset": 126, "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166,
    "sethostname": 170, "exit_group": 231, "keyctl": 250, "openat": 257, "mkdirat": 258, "mknodat": 259,
    "fchownat": 260, "linkat": 265, "symlinkat": 266, "fchmodat": 268, "unshare": 272, "dup3": 292,
    "prlimit64": 302, "setns": 308, "seccomp": 317, "bpf": 321, "pidfd_send_signal": 424, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "pidfd_open": 434, "clone3": 435,
    "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip
_AARCH64 = {
    "dup3": 24, "ioctl": 29, "mknodat": 33, "mkdirat": 34, "symlinkat": 36, "linkat": 37, "umount2": 39, "mount": 40,
    "pivot_root": 41, "chdir": 49, "fchdir": 50, "fchmodat": 53, "fchownat": 54, "openat": 56, "close": 57,
    "read": 63, "write": 64, "capset": 91, "exit_group": 94, "unshare": 97, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "setresuid": 147, "setresgid": 149, "setfsuid": 151,
    "setfsgid": 152, "setsid": 157, "setgroups": 159, "sethostname": 161,
    "umask": 166, "prctl": 167, "sendmsg": 211, "keyctl": 219, "execve": 221, "prlimit64": 261, "setns": 268,
    "seccomp": 277, "bpf": 280, "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437,
    "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip
NUMBERS: dict[str, int] = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(MACHINE, {})
"""System call numbers of this machine, by name; empty on one that we do not know."""

libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc.syscall
_syscall.restype = ctypes.c_long


_numbers = ctypes.CDLL(None, use_errno=True).syscall
_numbers.restype = ctypes.c_long
_numbers.argtypes = [ctypes.c_long] * 7


class KernelError(OSError):
    """A system call failed: `operation` on `path` (or what else it was about), with the kernel's errno."""

    def __init__(self, number: int, operation: str, path: str = "") -> None:
        super().__init__(number, os.strerror(number), path or None)
        self.operation = operation
        self.path = path

    def __str__(self) -> str:
        return f"{self.operation} {self.path}: {self.strerror}" if self.path else f"{self.operation}: {self.strerror}"


def raw(number: int, *args: int | bytes | None) -> int:
    """The call's result, or `-errno`: the kernel's own convention, for those who handle errors themselves."""
    result: int = _syscall(
        ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in args]
    )
    return -ctypes.get_errno() if result == -1 else result


def numbers_only(number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """As `raw`, for arguments that are all numbers (addresses, too): a third of the time."""
    result: int = _numbers(number, a, b, c, d, e, f)
    return -ctypes.get_errno() if result == -1 else result


def call(name: str, *args: int | bytes | None, path: str = "") -> int:
    """The result of system call `name`. `path` is what the error should name. Raises KernelError."""
    number = NUMBERS.get(name)
    if number is None:
        raise KernelError(errno.ENOSYS, name, path)
    result = raw(number, *args)
    if result < 0:
        raise KernelError(-result, name, path)
    return result
