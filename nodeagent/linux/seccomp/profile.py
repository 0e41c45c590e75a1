"""Localhost profiles: the JSON of the OCI runtime specification (and Docker's additions to it), read into rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nodeagent.linux import capabilities
from nodeagent.linux.seccomp.bpf import (
    ALLOW,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    TRACE,
    TRAP,
    Condition,
    Rules,
    errno_action,
)

_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_LOG": LOG, "SCMP_ACT_TRACE": TRACE, "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_KILL": KILL_THREAD, "SCMP_ACT_KILL_THREAD": KILL_THREAD, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
}  # fmt: skip
_GO_NAMES = {"x86_64": "amd64", "i386": "x86", "aarch64": "arm64"}
_ARCHES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_AARCH64": "aarch64"}


class Profile:
    """A profile file. Raises OSError, or ValueError naming what is wrong in it."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            try:
                self._document: dict[str, Any] = json.load(file)
            except ValueError as error:
                raise ValueError(f"seccomp profile {path}: {error}") from error
        if not isinstance(self._document, dict) or "defaultAction" not in self._document:
            raise ValueError(f"seccomp profile {path}: no defaultAction")
        self.default = _action(self._document["defaultAction"], self._document.get("defaultErrnoRet"))

    def architectures(self, native: str) -> list[str]:
        """Which of our architectures it is about; the machine's own always."""
        document = self._document
        names = list(document.get("architectures") or [])
        for entry in document.get("archMap") or []:
            if _ARCHES.get(entry.get("architecture")) == native:
                names += entry.get("subArchitectures") or []
        return list(dict.fromkeys([native, *(_ARCHES[n] for n in names if n in _ARCHES)]))

    def rules(self, arch: str, numbers: Mapping[str, int], bounding: int) -> Rules:
        """Its rules for one architecture and bounding set. Names the architecture does not have are skipped."""
        found: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
        caps = {f"CAP_{name}" for name in capabilities.names(bounding)}
        for entry in self._document.get("syscalls") or []:
            if not _applies(entry, arch, caps):
                continue
            action = _action(entry["action"], entry.get("errnoRet"))
            conditions = tuple(
                Condition(
                    int(a["index"]), str(a["op"]).removeprefix("SCMP_CMP_"), int(a["value"]), int(a.get("valueTwo", 0))
                )
                for a in entry.get("args") or []
            )
            for name in entry.get("names") or [entry.get("name")]:
                if name in numbers:
                    found.setdefault(numbers[name], []).append((conditions, action))
        # What has conditions is asked first: an unconditional rule would end the search.
        return {number: sorted(rules, key=lambda r: not r[0]) for number, rules in found.items()}


def _action(name: str, errno_ret: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return errno_action(1 if errno_ret is None else int(errno_ret))
    if name not in _ACTIONS:
        raise ValueError(f"seccomp: unknown action {name!r}")
    return _ACTIONS[name]


def _applies(entry: Mapping[str, Any], arch: str, caps: set[str]) -> bool:
    """Docker's `includes` and `excludes`. Every kernel that we run on is newer than any `minKernel`."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    name = _GO_NAMES[arch]
    if includes.get("arches") and name not in includes["arches"]:
        return False
    if includes.get("caps") and not set(includes["caps"]) <= caps:
        return False
    if name in (excludes.get("arches") or ()):
        return False
    return not set(excludes.get("caps") or ()) & caps
