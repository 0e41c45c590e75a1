"""Seccomp filters for containers: `program(profile, bounding)` is BPF to install, compiled once and kept."""

from __future__ import annotations

import functools
import os

from nodeagent.linux.seccomp import default, numbers
from nodeagent.linux.seccomp.bpf import AUDIT_ARCH, compile_filter, errno_action
from nodeagent.linux.seccomp.profile import Profile
from nodeagent.linux.syscalls import MACHINE

SET_MODE_FILTER = 1
_TABLES = {"x86_64": numbers.X86_64, "i386": numbers.I386, "aarch64": numbers.AARCH64}
_EPERM, _ENOSYS = errno_action(1), errno_action(38)


def program(profile: str, bounding: int) -> bytes:
    """The filter for `profile` (RuntimeDefault, Unconfined, Localhost:<path>) and a container with this bounding set;
    empty for none. Raises ValueError or OSError for a profile that cannot be used."""
    if profile in ("", "Unconfined"):
        return b""
    if profile == "RuntimeDefault":
        return _runtime_default(bounding)
    kind, _, path = profile.partition(":")
    if kind != "Localhost" or not path.startswith("/"):
        raise ValueError(f"unknown seccomp profile {profile!r}")
    return _localhost(path, os.stat(path).st_mtime_ns, bounding)


@functools.lru_cache(maxsize=16)
def _runtime_default(bounding: int) -> bytes:
    arches = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",)}[MACHINE]
    rules = {AUDIT_ARCH[arch]: default.rules(_TABLES[arch], bounding) for arch in arches}
    return compile_filter(rules, _EPERM, _ENOSYS)


@functools.lru_cache(maxsize=64)
def _localhost(path: str, _changed: int, bounding: int) -> bytes:
    profile = Profile(path)
    rules = {}
    for arch in profile.architectures(MACHINE):
        table = _TABLES[arch]
        rules[AUDIT_ARCH[arch]] = found = profile.rules(arch, table, bounding)
        found.setdefault(max(table.values()), [((), profile.default)])  # known up to here; what is newer is ENOSYS
    return compile_filter(rules, profile.default, _ENOSYS if profile.default >> 16 == 5 else None)
