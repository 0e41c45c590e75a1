"""A container's cgroups, whichever hierarchies the machine has: `Cgroups` makes, limits, kills and removes them.

v1 and v2 differ in files (v1/, v2/: a controller a file) and in how a process gets in: on v1 it writes itself to each
`tasks` file before it is the container, on v2 it is cloned into the directory. A v2 hierarchy that stands beside v1
without controllers is used for what it can: tracking (`cgroup.kill`, events).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from nodeagent.linux.cgroups import v1, v2
from nodeagent.linux.cgroups.detect import Layout, detect
from nodeagent.linux.cgroups.limits import Limits, apply, read, write
from nodeagent.linux.cgroups.usage import Usage, usage
from nodeagent.linux.cgroups.v1 import cpu as v1_cpu
from nodeagent.linux.cgroups.v1 import cpuset as v1_cpuset
from nodeagent.linux.cgroups.v1 import devices as v1_devices
from nodeagent.linux.cgroups.v1 import hugetlb as v1_hugetlb
from nodeagent.linux.cgroups.v1 import memory as v1_memory
from nodeagent.linux.cgroups.v1 import pids as v1_pids
from nodeagent.linux.cgroups.v2 import cpu as v2_cpu
from nodeagent.linux.cgroups.v2 import cpuset as v2_cpuset
from nodeagent.linux.cgroups.v2 import devices as v2_devices
from nodeagent.linux.cgroups.v2 import hugetlb as v2_hugetlb
from nodeagent.linux.cgroups.v2 import memory as v2_memory
from nodeagent.linux.cgroups.v2 import pids as v2_pids

__all__ = ["Cgroups", "Layout", "Limits", "Usage", "detect", "v1", "v2"]

_V1 = {"memory": v1_memory, "cpu": v1_cpu, "pids": v1_pids, "cpuset": v1_cpuset, "hugetlb": v1_hugetlb}
_V2 = {"memory": v2_memory, "cpu": v2_cpu, "pids": v2_pids, "cpuset": v2_cpuset, "hugetlb": v2_hugetlb}
_ALWAYS = ("memory", "cpu", "pids")  # v1: what every container has a directory in; cpuacct, too, where no v2 counts
_DEVICES = "wherry-devices"  # v1: one shared directory, for its rules are the same for every confined container


class Cgroups:
    """All methods take `path`, relative to this node's directory (e.g. `kubepods/burstable/pod1/<id>`), and raise
    KernelError or OSError."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._devices_made = False
        self._always = _ALWAYS if layout.v2 else (*_ALWAYS, "cpuacct")
        used = [layout.v1[c] for c in (*_ALWAYS, "cpuacct", "cpuset", "hugetlb") if c in layout.v1]
        self._tops = list(dict.fromkeys([*used, *([layout.v2] if layout.v2 else [])]))

    def create(self, path: str, limits: Limits) -> None:
        """Make the directories, parents too, and set `limits` on the last. Fine if they are there."""
        if self.layout.v2:
            directory = self._make_v2(path)
            if self.layout.unified:
                self._apply_v2(directory, limits)
        for controller in self._v1_for(limits):
            directory = self._make_v1(controller, path)
            module = _V1.get(controller)
            if module:
                apply(directory, module.settings(limits))

    def update(self, path: str, limits: Limits) -> None:
        """Change the limits of what exists."""
        if self.layout.unified:
            self._apply_v2(f"{self.layout.v2}/{path}", limits)
        for controller in self._v1_for(limits):
            directory, module = f"{self.layout.v1[controller]}/{path}", _V1.get(controller)
            if module and os.path.isdir(directory):
                apply(directory, module.settings(limits))

    def join_files(self, path: str, limits: Limits, *, confine_devices: bool) -> list[str]:
        """The files (v1) to which a process writes `0` to enter. On v2 it is cloned into `clone_into(path)`."""
        files = [f"{self.layout.v1[c]}/{path}/tasks" for c in self._v1_for(limits)]
        if confine_devices and "devices" in self.layout.v1:
            files.append(f"{self._confined_devices()}/tasks")
        return files

    def clone_into(self, path: str) -> str:
        """The directory for CLONE_INTO_CGROUP, or "" without a v2 hierarchy."""
        return f"{self.layout.v2}/{path}" if self.layout.v2 else ""

    def confine_devices_v2(self, path: str) -> None:
        """On pure v2: let processes of `path` open only the harmless device nodes."""
        if self.layout.unified:
            v2_devices.attach(f"{self.layout.v2}/{path}")

    def oom_file(self, path: str) -> str:
        """Where `oom_kill` is counted, or "" if nothing counts."""
        if "memory" in self.layout.v1:
            return f"{self.layout.v1['memory']}/{path}/{v1_memory.OOM_FILE}"
        return f"{self.layout.v2}/{path}/{v2_memory.OOM_FILE}" if "memory" in self.layout.v2_controllers else ""

    def kill_file(self, path: str) -> str:
        """The file to which `1` kills all, or "" (kernels before 5.14, or no v2)."""
        file = f"{self.layout.v2}/{path}/cgroup.kill"
        return file if self.layout.v2 and os.path.exists(file) else ""

    def usage(self, path: str) -> Usage | None:
        """What `path` and those below it have used; None if it is gone."""
        return usage(self.layout, path)

    def processes(self, path: str) -> set[int]:
        """The pids in `path` and below."""
        found: set[int] = set()
        for directory in self._directories(path):
            for below, _, _ in os.walk(directory):
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in read(f"{below}/cgroup.procs").split())
        return found

    def kill(self, path: str) -> None:
        """SIGKILL to everything in `path` and below. With `cgroup.kill` nothing escapes; without it, no new process
        may be made from now on (pids.max), so that a second look finds whom the first one missed."""
        file = self.kill_file(path)
        if file:
            with contextlib.suppress(OSError):
                write(file, "1")
        if "pids" in self.layout.v1:
            with contextlib.suppress(OSError):
                write(f"{self.layout.v1['pids']}/{path}/pids.max", "0")
        for _ in range(3):
            for pid in self.processes(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError, KeyError):  # a frozen v1 task does not die until thawed
            write(f"{self.layout.v1['freezer']}/{path}/freezer.state", "THAWED")

    def remove(self, path: str) -> bool:
        """Remove the directories of `path` and below. False if a process is still dying there: try again later."""
        removed = [_remove(directory) for directory in self._directories(path)]  # all of them, whatever one says
        return all(removed)

    def children(self, path: str) -> set[str]:
        """The names of the cgroups right below `path`, in whichever hierarchy."""
        found: set[str] = set()
        for directory in self._directories(path):
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
        return found

    def remove_shared(self) -> None:
        """Remove what all containers share, if no process is in it: it is made again when needed."""
        if "devices" in self.layout.v1:
            with contextlib.suppress(OSError):
                os.rmdir(f"{self.layout.v1['devices']}/{_DEVICES}")

    def _directories(self, path: str) -> list[str]:
        if not path.strip("/"):
            raise ValueError("cgroup path is empty: that would be the whole node")
        return [f"{top}/{path}" for top in self._tops]

    def _v1_for(self, limits: Limits) -> list[str]:
        wanted = [
            *self._always,
            *(["cpuset"] if limits.cpuset_cpus else []),
            *(["hugetlb"] if limits.hugepages else []),
        ]
        seen: dict[str, str] = {}  # cpu and cpuacct are often one hierarchy: one entry is enough to join
        for controller in wanted:
            directory = self.layout.v1.get(controller)
            if directory and (directory not in seen.values() or controller in _V1):
                seen[controller] = directory
        return list(seen)

    def _make_v1(self, controller: str, path: str) -> str:
        directory = f"{self.layout.v1[controller]}/{path}"
        try:
            os.mkdir(directory, 0o755)  # nearly always its parent is there
        except FileExistsError:
            return directory
        except FileNotFoundError:
            pass
        else:
            if controller == "cpuset":
                v1_cpuset.inherit(directory)
            return directory
        missing = []
        level = directory
        while not os.path.isdir(level):  # a service manager makes the node's cgroup only where it controls something
            missing.append(level)
            level = os.path.dirname(level)
        for level in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(level, 0o755)
                if controller == "cpuset":
                    v1_cpuset.inherit(level)
        return directory

    def _make_v2(self, path: str) -> str:
        """Make `path` level by level; each level must hand its controllers down before the next can use them."""
        directory = self.layout.v2
        wanted = " ".join(f"+{c}" for c in sorted(self.layout.v2_controllers & _V2.keys()))
        os.makedirs(directory, mode=0o755, exist_ok=True)
        for part in path.strip("/").split("/"):
            if wanted and not self._handed_down(directory):
                write(f"{directory}/cgroup.subtree_control", wanted)
            directory += "/" + part
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o755)
        return directory

    def _handed_down(self, directory: str) -> bool:
        return (self.layout.v2_controllers & _V2.keys()) <= set(read(f"{directory}/cgroup.subtree_control").split())

    def _apply_v2(self, directory: str, limits: Limits) -> None:
        for controller, module in _V2.items():
            if controller in self.layout.v2_controllers:
                apply(directory, module.settings(limits))

    def _confined_devices(self) -> str:
        directory = f"{self.layout.v1['devices']}/{_DEVICES}"
        if not self._devices_made or not os.path.isdir(directory):  # whoever cleans up may take it while it is empty
            with contextlib.suppress(FileExistsError):
                os.makedirs(directory, mode=0o755)
            apply(directory, v1_devices.settings())
            self._devices_made = True
        return directory


def _remove(directory: str) -> bool:
    """Remove a cgroup and those below it; False while one is busy. Nearly always there is one, and one call does it."""
    try:
        os.rmdir(directory)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    removed = [_remove(path) for path in below]
    if not removed or not all(removed):
        return False
    try:
        os.rmdir(directory)
    except OSError:
        return False
    return True
