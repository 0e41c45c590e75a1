"""Capabilities by name, and which of them a container gets. Numbers from linux/capability.h."""

from __future__ import annotations

from collections.abc import Iterable

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Names without `CAP_`, in the order of their numbers."""

DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What containerd and Docker give a container that asks for nothing."""


def mask(names: Iterable[str]) -> int:
    """The bits of `names` (with or without `CAP_`). Raises ValueError for one that does not exist."""
    bits = 0
    for name in names:
        plain = name.upper().removeprefix("CAP_")
        if plain not in NAMES:
            raise ValueError(f"unknown capability {name!r}")
        bits |= 1 << NAMES.index(plain)
    return bits


def names(bits: int) -> list[str]:
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def own() -> int:
    """The effective capabilities of this process: nobody can be given more."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def resolve(add: Iterable[str], drop: Iterable[str], default: int) -> int:
    """The default set with `add` and `drop` applied as Kubernetes means it: `ALL` first, then single names, and a
    name that is in both is dropped, unless ALL were dropped and it is added back. Raises ValueError."""
    added, dropped = {a.upper() for a in add}, {d.upper() for d in drop}
    bits = default
    if "ALL" in added:
        bits = mask(NAMES)
    if "ALL" in dropped:
        bits = 0
    bits |= mask(added - {"ALL"})
    return bits & ~mask(dropped - {"ALL"})
