"""A cgroup subtree for each node, in every hierarchy that the host has (v1, v2 or both side by side).

The node's first process joins it and then makes a cgroup namespace, so that inside the subtree looks like the whole:
`mount()` mounts each hierarchy afresh, and what lies above cannot be seen.
"""

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nodeagent.linux.syscalls import call

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RELATIME = 2, 4, 8, 1 << 21
_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy: where, `cgroup` or `cgroup2`, and the v1 mount options that select it."""

    path: Path
    kind: str
    options: str


_GENERIC = {"rw", "ro", "relatime", "nosuid", "nodev", "noexec", "nsdelegate", "memory_recursiveprot", "xattr"}


def hierarchies(mountinfo: str | None = None) -> list[Hierarchy]:
    """The host's hierarchies, from /proc/self/mountinfo (proc(5)); the first mount of each."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    found: dict[tuple[str, str], Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            chosen = ",".join(o for o in options.split(",") if o not in _GENERIC and not o.startswith("release_agent="))
            found.setdefault((kind, chosen), Hierarchy(Path(left.split()[4]), kind, chosen))
    return list(found.values())


def join(name: str) -> None:
    """Put this process into cgroup `name` (e.g. `wherry-lab/node-1`) of every hierarchy, made where missing."""
    for hierarchy in hierarchies():
        place = hierarchy.path
        for part in name.split("/"):
            parent, place = place, place / part
            place.mkdir(exist_ok=True)
            if hierarchy.kind == "cgroup2":
                delegate(parent)
            elif "cpuset" in hierarchy.options.split(","):
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    if not (place / setting).read_text().strip():
                        (place / setting).write_text((parent / setting).read_text())
        # "0" is the writer itself: on v1, writing a number instead would wait for an RCU grace period each time.
        (place / ("cgroup.procs" if hierarchy.kind == "cgroup2" else "tasks")).write_text("0")


def delegate(place: Path) -> None:
    """Make every controller of a v2 cgroup available to its children, as far as the kernel allows."""
    for controller in (place / "cgroup.controllers").read_text().split():
        with suppress(OSError):  # e.g. `cpu` with realtime processes: the others still matter
            (place / "cgroup.subtree_control").write_text(f"+{controller}")


def mount(found: list[Hierarchy]) -> None:
    """Mount `found` (the host's list) in this mount and cgroup namespace, where the host has them."""
    top = Path("/sys/fs/cgroup")
    if not any(h.path == top for h in found):
        call("mount", b"tmpfs", bytes(top), b"tmpfs", _FLAGS, b"mode=755", path=str(top))
    for hierarchy in sorted(found, key=lambda h: len(h.path.parts)):
        if hierarchy.path != top:
            hierarchy.path.mkdir(exist_ok=True)
        options = hierarchy.options.replace("name=", "none,name=") if hierarchy.kind == "cgroup" else ""
        call(
            "mount", hierarchy.kind.encode(), bytes(hierarchy.path), hierarchy.kind.encode(), _FLAGS,
            options.encode() or None, path=str(hierarchy.path),
        )  # fmt: skip


def settle(found: list[Hierarchy], leaf: str) -> None:
    """Inside the corner: move into child cgroup `leaf`, so that on v2 the root may hand controllers to pods."""
    for hierarchy in found:
        place = hierarchy.path / leaf
        place.mkdir(exist_ok=True)
        if "cpuset" in hierarchy.options.split(","):
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (place / setting).write_text((hierarchy.path / setting).read_text())
        (place / ("cgroup.procs" if hierarchy.kind == "cgroup2" else "tasks")).write_text("0")
        if hierarchy.kind == "cgroup2":
            delegate(hierarchy.path)


def kill(name: str, patience_s: float = 5.0) -> None:
    """Kill whatever is still in cgroup `name` or below it, and wait until it is gone (at most `patience_s` each)."""
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(hierarchy.path / name):
            with suppress(OSError):
                for pid in map(int, (Path(directory) / "cgroup.procs").read_text().split()):
                    _kill(pid, patience_s)


def _kill(pid: int, patience_s: float) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], patience_s)
        finally:
            os.close(process)


def remove(name: str) -> list[Path]:
    """Remove cgroup `name` and all below it from every hierarchy; returns what would not go (still in use)."""
    left = []
    for hierarchy in hierarchies():
        top = hierarchy.path / name
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                left.append(Path(directory))
    return left
