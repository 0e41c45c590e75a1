"""Seccomp filters, run by a little interpreter of classic BPF over every system call there is."""

import json
import struct
from pathlib import Path

import pytest

from nodeagent.linux import capabilities, seccomp
from nodeagent.linux.seccomp import default, numbers
from nodeagent.linux.seccomp.bpf import ALLOW, AUDIT_ARCH, Condition, compile_filter, errno_action
from nodeagent.linux.syscalls import MACHINE

EPERM, ENOSYS = errno_action(1), errno_action(38)
DEFAULT_CAPS = capabilities.mask(capabilities.DEFAULT)


def run(program: bytes, arch: int, number: int, *args: int) -> int:
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *[*args, 0, 0, 0, 0, 0, 0][:6])
    code = [struct.unpack_from("<HBBI", program, i) for i in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x06:
            return int(k)
        elif op == 0x05:
            at += k
        elif op == 0x54:
            accumulator &= k
        else:
            met = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
            at += yes if met else no


def filter_for(name: str, caps: int) -> bytes:
    table = {"x86_64": numbers.X86_64, "i386": numbers.I386, "aarch64": numbers.AARCH64}[name]
    return compile_filter({AUDIT_ARCH[name]: default.rules(table, caps)}, EPERM, ENOSYS)


@pytest.mark.parametrize("arch", ["x86_64", "i386", "aarch64"])
def test_every_call_gets_the_verdict_of_its_rules(arch: str) -> None:
    table = {"x86_64": numbers.X86_64, "i386": numbers.I386, "aarch64": numbers.AARCH64}[arch]
    program = filter_for(arch, DEFAULT_CAPS)
    conditional = {"personality", "socket", "clone", "clone3"}
    for name, number in table.items():
        if name not in conditional:
            refused = name in default.NEVER or (
                name in default.NEEDS and not set(default.NEEDS[name]) & set(capabilities.DEFAULT)
            )
            assert run(program, AUDIT_ARCH[arch], number) == (EPERM if refused else ALLOW), name
    assert run(program, AUDIT_ARCH[arch], max(table.values()) + 1) == ENOSYS
    assert run(program, 0x1234, 0) == 0x80000000


def test_arguments_decide() -> None:
    program, arch, table = filter_for("x86_64", DEFAULT_CAPS), AUDIT_ARCH["x86_64"], numbers.X86_64
    assert run(program, arch, table["clone"], 0x1200011) == ALLOW
    assert run(program, arch, table["clone"], 0x10000000) == EPERM  # CLONE_NEWUSER
    assert run(program, arch, table["clone3"]) == ENOSYS
    assert run(program, arch, table["socket"], 2) == ALLOW and run(program, arch, table["socket"], 40) == EPERM
    assert run(program, arch, table["personality"], 0x20008) == ALLOW
    assert run(program, arch, table["personality"], 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE
    assert run(program, arch, table["read"] | 0x40000000) == EPERM  # x32


def test_capabilities_open_what_they_are_for() -> None:
    arch, table = AUDIT_ARCH["x86_64"], numbers.X86_64
    admin = filter_for("x86_64", DEFAULT_CAPS | capabilities.mask(["SYS_ADMIN"]))
    assert {run(admin, arch, table[n]) for n in ("mount", "setns", "bpf", "clone3", "unshare")} == {ALLOW}
    assert run(admin, arch, table["reboot"]) == EPERM and run(admin, arch, table["keyctl"]) == EPERM


@pytest.mark.parametrize(
    ("op", "value", "two", "met", "unmet"),
    [
        ("EQ", 1 << 33, 0, [1 << 33], [0, 1, 1 << 32, (1 << 33) + 1]),
        ("NE", 5, 0, [4, 5 | 1 << 32], [5]),
        ("GT", 1 << 32, 0, [(1 << 32) + 1, 1 << 34], [1 << 32, 7]),
        ("GE", 1 << 32, 0, [1 << 32, 1 << 34], [(1 << 32) - 1]),
        ("LT", 1 << 32, 0, [0, (1 << 32) - 1], [1 << 32, 1 << 40]),
        ("LE", 1 << 32, 0, [0, 1 << 32], [(1 << 32) + 1, 1 << 40]),
        ("MASKED_EQ", 0xF0000000F0, 0x1000000020, [0x1000000020, 0x100000002F], [0x20, 0x1000000030]),
    ],
)
def test_comparisons_are_of_64_bits(op: str, value: int, two: int, met: list[int], unmet: list[int]) -> None:
    program = compile_filter({7: {3: [((Condition(1, op, value, two),), ALLOW)]}}, EPERM)
    assert {run(program, 7, 3, 0, v) for v in met} == {ALLOW}
    assert {run(program, 7, 3, 0, v) for v in unmet} == {EPERM}


def test_several_conditions_and_rules() -> None:
    rules = {3: [((Condition(0, "EQ", 1), Condition(1, "EQ", 2)), ALLOW), ((Condition(0, "EQ", 9),), errno_action(9))]}
    program = compile_filter({7: rules}, EPERM)
    verdicts = [run(program, 7, 3, *a) for a in ((1, 2), (1, 3), (9, 0), (2, 2))]
    assert verdicts == [ALLOW, EPERM, errno_action(9), EPERM]


def test_localhost_profile(tmp_path: Path) -> None:
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 13,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read", "unknown_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["reboot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_BOOT"]}},
            {"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(document))
    program = seccomp.program(f"Localhost:{path}", DEFAULT_CAPS)
    arch = AUDIT_ARCH[MACHINE]
    table = {"x86_64": numbers.X86_64, "aarch64": numbers.AARCH64}[MACHINE]
    assert run(program, arch, table["read"]) == ALLOW and run(program, arch, table["write"]) == 0x80000000
    assert run(program, arch, table["socket"], 1) == ALLOW
    assert run(program, arch, table["socket"], 2) == errno_action(13) == run(program, arch, table["reboot"])
    with pytest.raises(ValueError, match="unknown seccomp profile"):
        seccomp.program("Localhost:relative.json", 0)
    path.write_text("{")
    with pytest.raises(ValueError, match="seccomp profile"):
        seccomp.program(f"Localhost:{path}", 0)


def test_filters_are_short() -> None:
    assert len(seccomp.program("RuntimeDefault", DEFAULT_CAPS)) // 8 < 600


def test_capability_sets() -> None:
    base = capabilities.mask(capabilities.DEFAULT)
    assert base == 0xA80425FB
    assert capabilities.resolve(["NET_ADMIN"], ["CHOWN"], base) == (base | 1 << 12) & ~1
    assert capabilities.resolve(["CAP_CHOWN"], ["all"], base) == 1
    assert capabilities.resolve(["ALL"], ["SYS_ADMIN"], base) == capabilities.mask(capabilities.NAMES) & ~(1 << 21)
    with pytest.raises(ValueError, match="unknown capability"):
        capabilities.resolve(["NONSENSE"], [], base)
