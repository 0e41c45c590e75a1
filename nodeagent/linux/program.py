"""Builds programs of system calls: what a container's first process does before it is the container.

The agent *compiles* a container into a list of steps, as values that can be read, tested and described; the shim's
child only executes them (executor.py). Arguments are numbers, text (becomes a pointer to it), `Result` of an earlier
step, `Input` number n that the shim fills in, or a `Block` of memory with pointers in it. It does not check whether a
program makes sense; the kernel will.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nodeagent.linux.layout import BASE, HEADER_SIZE, INPUT_COUNT, INPUTS, MAGIC, RESULT, ROW, ROW_SIZE, ROWS
from nodeagent.linux.syscalls import NUMBERS, KernelError


@dataclass(frozen=True, slots=True)
class Result:
    """What step number `step` returned."""

    step: int


@dataclass(frozen=True, slots=True)
class Input:
    """A number that the executor's caller knows: a descriptor it passes, say."""

    index: int


@dataclass(frozen=True, slots=True)
class Block:
    """Words of memory: numbers, pointers to text or to other blocks. `None` is a null pointer."""

    words: Sequence[int | str | bytes | Block | None]


_WORD = 0xFFFF_FFFF_FFFF_FFFF
_pack_row = struct.Struct(ROW).pack_into

Argument = int | str | bytes | Result | Input | Block | None


@dataclass(frozen=True, slots=True)
class Step:
    """One system call. `forgive`: errnos that are no failure. `about`: what an error should name."""

    name: str
    arguments: Sequence[Argument]
    forgive: Sequence[int] = ()
    about: str = ""

    def describe(self) -> str:
        """One line for logs and tests, near to what strace would print."""
        shown = ", ".join(_show(a) for a in self.arguments)
        return f"{self.name}({shown})" + (f"  # {self.about}" if self.about else "")


def _show(argument: Argument) -> str:
    if isinstance(argument, Result):
        return f"#{argument.step}"
    if isinstance(argument, Input):
        return f"${argument.index}"
    if isinstance(argument, Block):
        return "[" + ", ".join(_show(w) for w in argument.words) + "]"
    if isinstance(argument, bytes):
        return repr(argument) if len(argument) <= 32 else f"<{len(argument)} bytes>"
    if isinstance(argument, int) and not -256 < argument < 4096:
        return hex(argument)
    return repr(argument)


class Program:
    """A growing list of steps. `add` returns the step's number, for `Result`."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, name: str, *arguments: Argument, forgive: Sequence[int] = (), about: str = "") -> Result:
        """Append one system call and return the handle on its result."""
        self.steps.append(Step(name, arguments, forgive, about))
        return Result(len(self.steps) - 1)

    def describe(self) -> str:
        return "\n".join(f"#{i} {step.describe()}" for i, step in enumerate(self.steps))

    def link(self) -> bytes:
        """The program as executor.py wants it. Raises KernelError (ENOSYS) on a machine we have no numbers for."""
        return _Linker(self.steps).image()

    def memfd(self, name: str = "program") -> int:
        """A descriptor of the linked program, for the executor's process to map. The caller closes it."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.write(fd, self.link())
        except BaseException:
            os.close(fd)
            raise
        return fd

    def results(self, memfd: int, name: str) -> list[int]:
        """What the steps called `name` returned, read from a program that has run: not negative, or -errno."""
        found = []
        for index, step in enumerate(self.steps):
            if step.name == name:
                word = os.pread(memfd, 8, HEADER_SIZE + index * ROW_SIZE + RESULT)
                found.append(int.from_bytes(word, "little", signed=True))
        return found

    def error(self, failure: tuple[int, int]) -> KernelError:
        """The failed step (index, errno) as an exception that names it."""
        step = self.steps[failure[0]]
        return KernelError(failure[1], step.name, step.about)


class _Linker:
    """Lays out steps and their data at BASE. Equal text is stored once."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._rows_at = BASE + HEADER_SIZE
        self._data_at = self._rows_at + len(steps) * ROW_SIZE
        self._data = bytearray()
        self._texts: dict[bytes, int] = {}

    def image(self) -> bytes:
        rows = bytearray(len(self._steps) * ROW_SIZE)
        values: list[int] = []
        for index, step in enumerate(self._steps):
            number = NUMBERS.get(step.name)
            if number is None:
                raise KernelError(errno.ENOSYS, step.name, step.about)
            mask = 0
            values.clear()
            for i, argument in enumerate(step.arguments):
                if type(argument) is int:
                    values.append(argument & _WORD)
                    continue
                if type(argument) is Result or type(argument) is Input:
                    mask |= 1 << i
                values.append(self._value(argument))
            values += (0, 0, 0, 0, 0, 0)
            forgive = (*step.forgive, 0, 0, 0, 0)[:4] if step.forgive else (0, 0, 0, 0)
            _pack_row(rows, index * ROW_SIZE, number, mask, *values[:6], *forgive, 0)
        header = bytearray(HEADER_SIZE)
        struct.pack_into("<Q", header, 0, MAGIC)
        struct.pack_into("<QQ", header, ROWS, self._rows_at, self._data_at)
        return bytes(header + rows + self._data)

    def _value(self, argument: Argument) -> int:
        if argument is None:
            return 0
        if isinstance(argument, int):
            return argument & _WORD
        if isinstance(argument, str):
            return self._text(argument.encode("utf-8", "surrogateescape") + b"\0")
        if isinstance(argument, bytes):
            return self._text(argument)
        if isinstance(argument, Result):
            return self._rows_at + argument.step * ROW_SIZE + RESULT
        if isinstance(argument, Input):
            if not 0 <= argument.index < INPUT_COUNT:
                raise ValueError(f"program: no input {argument.index}")
            return BASE + INPUTS + 8 * argument.index
        words = [self._value(word) for word in argument.words]
        return self._place(struct.pack(f"<{len(words)}Q", *words))

    def _text(self, data: bytes) -> int:
        found = self._texts.get(data)
        if found is None:
            found = self._texts[data] = self._place(data)
        return found

    def _place(self, data: bytes) -> int:
        self._data += bytes(-len(self._data) % 8)
        at = self._data_at + len(self._data)
        self._data += data
        return at


def strings(texts: Iterable[str]) -> Block:
    """A null-terminated array of pointers to `texts`, as execve wants its arguments and environment."""
    return Block([*texts, None])
