"""Devices on cgroup v2: a BPF program on the container's directory decides which nodes may be opened.

The program is assembled here from the same rules as v1's and loaded once per agent; attaching it is one system call.
Layout of the context (struct bpf_cgroup_dev_ctx): u32 access << 16 | type, u32 major, u32 minor.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from nodeagent.linux.cgroups.v1.devices import DEFAULT_RULES
from nodeagent.linux.syscalls import KernelError, call

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_BLOCK, _CHAR = 1, 2
_ACCESS = {"m": 1, "r": 2, "w": 4}


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, offset, value)


def assemble(rules: Iterable[str] = DEFAULT_RULES) -> bytes:
    """The BPF program that returns 1 for an access that one of `rules` allows and 0 for any other."""
    load_word, mov_reg, and_imm, rsh_imm, mov_imm = 0x61, 0xBF, 0x57, 0x77, 0xB7
    jne_imm, exit_ = 0x55, 0x95
    out = [
        _instruction(load_word, 2, 1, 0),  # r2 = type
        _instruction(and_imm, 2, value=0xFFFF),
        _instruction(load_word, 3, 1, 0),  # r3 = access
        _instruction(rsh_imm, 3, value=16),
        _instruction(load_word, 4, 1, 4),  # r4 = major
        _instruction(load_word, 5, 1, 8),  # r5 = minor
    ]
    for rule in rules:
        kind, numbers, access = rule.split()
        major, minor = numbers.split(":")
        tests = [(jne_imm, 2, _CHAR if kind == "c" else _BLOCK)]
        if major != "*":
            tests.append((jne_imm, 4, int(major)))
        if minor != "*":
            tests.append((jne_imm, 5, int(minor)))
        refused = ~sum(_ACCESS[a] for a in access) & 7
        length = len(tests) + 3 + 2  # the tests, the access test, the verdict
        block = [_instruction(code, reg, offset=length - i - 1, value=v) for i, (code, reg, v) in enumerate(tests)]
        block += [
            _instruction(mov_reg, 0, 3),
            _instruction(and_imm, 0, value=refused),
            _instruction(jne_imm, 0, offset=2, value=0),
            _instruction(mov_imm, 0, value=1),
            _instruction(exit_),
        ]
        out += block
    out += [_instruction(mov_imm, 0, value=0), _instruction(exit_)]
    return b"".join(out)


_loaded: dict[bytes, int] = {}


def load(program: bytes) -> int:
    """A descriptor of `program` in the kernel, kept for the life of this process. Raises KernelError."""
    if program not in _loaded:
        code, text = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"Apache-2.0")
        attributes = struct.pack(
            "<IIQQ28x", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(text)
        ) + bytes(72)
        _loaded[program] = call("bpf", _PROG_LOAD, attributes, len(attributes), path="device rules")
    return _loaded[program]


def attach(directory: str, rules: Iterable[str] = DEFAULT_RULES) -> None:
    """Confine the processes of the cgroup `directory`. Raises KernelError."""
    program = load(assemble(rules))
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or 0, "open", directory) from error
    try:
        attributes = struct.pack("<IIII", fd, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        call("bpf", _PROG_ATTACH, attributes, len(attributes), path=directory)
    finally:
        os.close(fd)
