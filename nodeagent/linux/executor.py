"""Runs a program of system calls (layout.py): in this process, or as the first code of a new one.

`spawn()` makes the new process by `clone3(CLONE_VM | CLONE_VFORK)` and lets some 200 bytes of machine code run the rows
in it, until the last one, `execve`, replaces it. The child borrows our memory, as vfork's does: no page table is
copied, no page faults in twice, and the caller learns everything from the program's memory when it goes on. That is
worth a factor of two over forking even a lean Python. Where we have no machine code, a forked child runs the rows in
Python: slower, with the same results; tests hold the two to each other.

Lean: the zygote imports it. It knows nothing of containers.
"""

import ctypes
import mmap
import os
import struct

from nodeagent.linux.layout import (
    ANY,
    BASE,
    CLONE_ARGS,
    CLONE_ARGS_SIZE,
    END,
    EXIT_FAILED,
    FAILED,
    HEADER_SIZE,
    INPUTS,
    MAGIC,
    PIDFD,
    RESULT,
    ROW,
    ROW_SIZE,
    ROWS,
)
from nodeagent.linux.syscalls import MACHINE, NUMBERS, KernelError, libc, numbers_only

CLONE_VM, CLONE_VFORK, CLONE_PIDFD, CLONE_CLEAR_SIGHAND = 0x100, 0x4000, 0x1000, 0x1_0000_0000
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_SHARED, _MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_FIXED_NOREPLACE = 1, 2, 0x20, 0x100000
_MAP_FAILED = ctypes.c_void_p(-1).value

# A memoryview without a ctypes array, whose type would have to be made for every size.
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype, _view.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_PyBUF_WRITE = 0x200

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

# long run(char *program): clone3; the parent returns its result, the child runs the rows and never returns.
# It never pushes, for the stack is the parent's. tests/unit/nodeagent/linux holds the listing and assembles it.
_X86_64_CODE = bytes.fromhex(
    "4889fa488d7a20be58000000b8b30100000f054885c07401c34889d34c8b63084c3b63100f839a000000418b4c240449"
    "8b7c2408f6c1017403488b3f498b742410f6c1027403488b36498b542418f6c1047403488b124d8b542420f6c1087403"
    "4d8b124d8b442428f6c11074034d8b004d8b4c2430f6c12074034d8b09418b04240f0549894424404885c0792ef7d849"
    "8d742438b9040000000fb71681faffff0000741739c274134883c602ffc975e94c896318bf7e000000eb0b4983c448e9"
    "5cffffff31ffb8e70000000f05"
)


class Loaded:
    """A program in our memory, at the only address it can be at: one at a time. Use as a context manager."""

    def __init__(self, fd: int) -> None:
        """Map the program that the descriptor `fd` (a memfd) holds. Raises KernelError, or ValueError for rubbish."""
        self.size = os.fstat(fd).st_size
        if self.size < HEADER_SIZE:
            raise ValueError(f"program: {self.size} bytes is less than a header")
        flags = _MAP_SHARED | _MAP_FIXED_NOREPLACE
        address = libc.mmap(BASE, self.size, _PROT_READ | _PROT_WRITE, flags, fd, 0)
        if address == _MAP_FAILED or address != BASE:
            raise KernelError(ctypes.get_errno(), "mmap", f"program at {BASE:#x}")
        self.memory = _view(BASE, self.size, _PyBUF_WRITE)
        if self._word(0) != MAGIC:
            self.close()
            raise ValueError("program: bad magic")

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        libc.munmap(BASE, self.size)

    def _word(self, offset: int) -> int:
        word: int = struct.unpack_from("<q", self.memory, offset)[0]
        return word

    def give(self, inputs: "list[int]") -> None:
        """Fill in the program's inputs (descriptor numbers), from the first."""
        for index, value in enumerate(inputs):
            struct.pack_into("<q", self.memory, INPUTS + 8 * index, value)

    def failure(self) -> "tuple[int, int] | None":
        """(index of the row that failed, errno), or None."""
        row = self._word(FAILED)
        if not row:
            return None
        return (row - self._word(ROWS)) // ROW_SIZE, -self._word(row - BASE + RESULT)

    def result(self, index: int) -> int:
        """What row `index` returned: not negative, or -errno."""
        return self._word(self._word(ROWS) - BASE + index * ROW_SIZE + RESULT)

    def run(self) -> bool:
        """Run the rows in this process. False when one failed (see `failure`)."""
        memory, end = self.memory, self._word(END) - BASE
        row = self._word(ROWS) - BASE
        while row < end:
            number, mask, *rest = struct.unpack_from(ROW, memory, row)
            arguments = rest[:6]
            for i in range(6):
                if mask >> i & 1:
                    arguments[i] = self._word(arguments[i] - BASE)
            result = numbers_only(number, *arguments)
            struct.pack_into("<q", memory, row + RESULT, result)
            if result < 0 and ANY not in rest[6:10] and -result not in rest[6:10]:
                struct.pack_into("<q", memory, FAILED, row + BASE)
                return False
            row += ROW_SIZE
        return True

    def spawn(self, flags: int, cgroup: int = -1, *, native: bool = True) -> "tuple[int, int]":
        """(pid, pidfd) of a new process running the rows, made with the CLONE_* `flags` (and CLONE_INTO_CGROUP when
        `cgroup` is a descriptor). Returns when the process has called execve or is gone: see `failure`.
        Raises KernelError when there is no process."""
        native = native and _run is not None
        flags |= CLONE_VFORK | CLONE_PIDFD | (CLONE_VM if native else 0) | CLONE_CLEAR_SIGHAND
        if cgroup >= 0:
            flags |= 0x2_0000_0000  # CLONE_INTO_CGROUP
        sigchld = 17
        pidfd_at = BASE + PIDFD
        struct.pack_into(
            "<11Q", self.memory, CLONE_ARGS, flags, pidfd_at, 0, 0, sigchld, 0, 0, 0, 0, 0, max(cgroup, 0)
        )  # fmt: skip
        if native:
            assert _run is not None
            pid = _run(BASE)
        else:
            pid = numbers_only(NUMBERS["clone3"], BASE + CLONE_ARGS, CLONE_ARGS_SIZE)
            if pid == 0:
                status = EXIT_FAILED
                try:
                    status = 0 if self.run() else EXIT_FAILED
                finally:
                    os._exit(status)
        if pid < 0:
            raise KernelError(-pid, "clone3")
        return pid, self._word(PIDFD) & 0xFFFFFFFF


def _install() -> "ctypes._FuncPointer | None":
    """The machine code as a function, in a page that is never writable and executable at once."""
    if MACHINE != "x86_64":
        return None
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS
    page = libc.mmap(None, mmap.PAGESIZE, _PROT_READ | _PROT_WRITE, flags, -1, 0)
    if page == _MAP_FAILED:
        return None
    ctypes.memmove(page, _X86_64_CODE, len(_X86_64_CODE))
    if libc.mprotect(page, mmap.PAGESIZE, _PROT_READ | _PROT_EXEC) != 0:
        libc.munmap(page, mmap.PAGESIZE)  # a kernel that forbids this (SELinux execmem) still gets the slow way
        return None
    # PYFUNCTYPE keeps the interpreter's lock: the child must not find its state half given away.
    return ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(page)


_run = _install()
