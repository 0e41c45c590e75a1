"""cgroup v1 `cpuset`: which CPUs. A new directory is empty and takes no task until cpus and mems are filled in."""

import os

from nodeagent.linux.cgroups.limits import Limits, Setting, read, write


def settings(limits: Limits) -> list[Setting]:
    return [("cpuset.cpus", limits.cpuset_cpus)] if limits.cpuset_cpus else []


def inherit(directory: str) -> None:
    """Give a new directory its parent's cpus and mems. Raises KernelError, OSError."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{directory}/{name}"):
            write(f"{directory}/{name}", read(f"{os.path.dirname(directory)}/{name}"))
