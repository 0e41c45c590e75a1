"""The first process of a PID namespace that a pod's containers share (shareProcessNamespace): it only reaps.

It is a fork of the shim and stays one, so it costs no file and little memory. Lean: the shim imports it, when needed.
"""

import _signal  # type: ignore[import-not-found]
import ctypes
import os
import struct

from nodeagent.linux.executor import CLONE_CLEAR_SIGHAND
from nodeagent.linux.syscalls import NUMBERS, KernelError, raw

CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1


def start() -> int:
    """The pid of a new process that is number 1 of a new PID namespace. Raises KernelError."""
    arguments = struct.pack("<11Q", CLONE_NEWPID | CLONE_CLEAR_SIGHAND, 0, 0, 0, int(_signal.SIGCHLD), *[0] * 6)
    memory = ctypes.create_string_buffer(arguments)
    pid = raw(NUMBERS["clone3"], ctypes.addressof(memory), len(arguments))
    if pid < 0:
        raise KernelError(-pid, "clone3", "the pod's first process")
    if pid == 0:
        try:
            _reap()
        finally:
            os._exit(1)
    return pid


def _reap() -> None:
    """Wait for children for ever. As number 1 of its namespace only SIGKILL from outside ends this process."""
    raw(NUMBERS["prctl"], _PR_SET_PDEATHSIG, int(_signal.SIGKILL), 0, 0, 0)
    os.closerange(3, 1024)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGCHLD})
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        _signal.sigwait({_signal.SIGCHLD})
