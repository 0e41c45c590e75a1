"""Compiles rules about system calls to classic BPF, the language of seccomp filters.

A filter runs at every system call of a container for its whole life, so it finds a call's verdict by bisection over
ranges of numbers with the same verdict: six or seven comparisons where a list of names would take hundreds.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALLOW, LOG, TRACE, TRAP, KILL_THREAD, KILL_PROCESS = 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x30000, 0, 0x80000000
AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_LD_ABS, _RET, _JA, _JEQ, _JGT, _JGE, _AND = 0x20, 0x06, 0x05, 0x15, 0x25, 0x35, 0x54
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data


def errno_action(number: int) -> int:
    return 0x50000 | number & 0xFFFF


@dataclass(frozen=True, slots=True)
class Condition:
    """Argument `index` compared, as an unsigned 64-bit number. MASKED_EQ: (argument & value) == value_two."""

    index: int
    op: str  # NE LT LE EQ GE GT MASKED_EQ
    value: int
    value_two: int = 0


Rule = tuple[Sequence[Condition], int]  # all conditions hold -> action
Rules = dict[int, Sequence[Rule]]  # number -> tried in order; then the default

Code = list[tuple[int, int, int, int]]  # (code, jump if true, jump if false, k), jumps relative


def compile_filter(architectures: Mapping[int, Rules], default: int, unknown: int | None = None) -> bytes:
    """The filter: per AUDIT_ARCH its rules, else `default`; numbers above all that have rules get `unknown` (default:
    the same). A call by any other architecture kills the process. Raises ValueError if it exceeds the kernel's limit
    of 4096 instructions."""
    code: Code = [(_LD_ABS, 0, 0, _ARCH)]
    for arch, rules in architectures.items():
        section = _section(rules, default, default if unknown is None else unknown, x32=arch == AUDIT_ARCH["x86_64"])
        code += [(_JEQ, 1, 0, arch), (_JA, 0, 0, len(section)), *section]
    code.append((_RET, 0, 0, KILL_PROCESS))
    if len(code) > 4096:
        raise ValueError(f"seccomp: {len(code)} instructions, more than the kernel's 4096")
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _section(rules: Rules, default: int, unknown: int, *, x32: bool) -> Code:
    top = max(rules, default=-1) + 1
    leaves: list[tuple[int, Code]] = []  # (first number, code), ascending; neighbours that do the same are merged
    for number in range(top):
        leaf = _leaf(rules.get(number, ()), default)
        if not leaves or leaves[-1][1] != leaf:
            leaves.append((number, leaf))
    leaves.append((top, [(_RET, 0, 0, unknown)]))
    if x32:
        leaves.append((_X32_BIT, [(_RET, 0, 0, default)]))
    return [(_LD_ABS, 0, 0, _NR), *_tree(leaves)]


def _tree(leaves: Sequence[tuple[int, Code]]) -> Code:
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    left, right = _tree(leaves[:middle]), _tree(leaves[middle:])
    if len(left) <= 255:
        return [(_JGE, len(left), 0, leaves[middle][0]), *left, *right]
    return [(_JGE, 0, 1, leaves[middle][0]), (_JA, 0, 0, len(left)), *left, *right]


def _leaf(rules: Sequence[Rule], default: int) -> Code:
    code: Code = [(_RET, 0, 0, default)]
    for conditions, action in reversed(rules):
        test: Code = [(_RET, 0, 0, action)]
        for condition in reversed(conditions):
            test = _test(condition, test)
        # every failed test falls to what follows `test`: `_test` jumps to its end
        code = [*test, *code] if conditions else test
    return code


def _test(condition: Condition, then: Code) -> Code:
    """`then` if the condition holds, else the instruction after all of it. Compared in two halves, high one first."""
    value = condition.value_two if condition.op == "MASKED_EQ" else condition.value
    low, high = value & 0xFFFFFFFF, value >> 32
    at = _ARGS + 8 * condition.index
    n = len(then)
    load_high, load_low = (_LD_ABS, 0, 0, at + 4), (_LD_ABS, 0, 0, at)
    match condition.op:
        case "EQ":
            head = [load_high, (_JEQ, 0, n + 2, high), load_low, (_JEQ, 0, n, low)]
        case "NE":
            head = [load_high, (_JEQ, 0, 2, high), load_low, (_JEQ, n, 0, low)]
        case "MASKED_EQ":
            mask_low, mask_high = condition.value & 0xFFFFFFFF, condition.value >> 32
            head = [
                load_high, (_AND, 0, 0, mask_high), (_JEQ, 0, n + 3, high),
                load_low, (_AND, 0, 0, mask_low), (_JEQ, 0, n, low),
            ]  # fmt: skip
        case "GE" | "GT":
            jump = _JGE if condition.op == "GE" else _JGT
            head = [load_high, (_JGT, 3, 0, high), (_JEQ, 0, n + 2, high), load_low, (jump, 0, n, low)]
        case "LE" | "LT":
            jump = _JGT if condition.op == "LE" else _JGE
            head = [load_high, (_JGT, n + 3, 0, high), (_JEQ, 0, 2, high), load_low, (jump, n, 0, low)]
        case _:
            raise ValueError(f"seccomp: unknown comparison {condition.op!r}")
    if n > 240:
        raise ValueError("seccomp: too many conditions in one rule")
    return [*head, *then]
