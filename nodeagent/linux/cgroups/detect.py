"""Where this node's cgroups are: which hierarchies are mounted, and which directory of each is ours.

A node need not be in the initial cgroup, nor in the initial cgroup namespace. The mount table says where a hierarchy's
directories appear and from which of them on; /proc/self/cgroup says in which we are. Pods get their directories
  - below our own directory in each v1 hierarchy, where processes and subdirectories may sit side by side;
  - below the mount's top in v2, where they may not;
  - below `root` instead, when the node's configuration names one (relative to the mounts' tops).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """`v1`: controller → the directory that is ours. `v2`: ours in the unified hierarchy, or "" without one;
    `v2_controllers`: what it controls (nothing, when it only stands beside v1)."""

    v1: Mapping[str, str]
    v2: str
    v2_controllers: frozenset[str]
    v2_mount: str = ""

    @property
    def unified(self) -> bool:
        """Pure v2: limits go there."""
        return bool(self.v2) and not self.v1


def detect(root: str = "", proc: str = "/proc/self") -> Layout:
    """This process's layout; `root` as in the module's docstring. Raises OSError if /proc cannot be read."""
    with open(f"{proc}/mountinfo", encoding="utf-8") as file:
        mounts = file.read()
    with open(f"{proc}/cgroup", encoding="utf-8") as file:
        own = file.read()
    return parse(mounts, own, root)


def parse(mountinfo: str, own: str, root: str = "") -> Layout:
    """The layout that the texts of /proc/self/mountinfo and /proc/self/cgroup describe."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    v1: dict[str, str] = {}
    v2 = v2_mount = ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind, options = left.split(), right.split()[0], right.split()[2]
        top, point = fields[3], fields[4]
        if kind == "cgroup":
            for controller in options.split(","):
                if controller in paths and "=" not in controller and controller not in v1:
                    v1[controller] = _below(point, root or _relative(paths[controller], top))
        elif kind == "cgroup2" and not v2:
            v2_mount = point
            v2 = _below(point, root)
    available = frozenset[str]()
    if v2:
        for place in (v2, v2_mount):  # what was delegated to us; before that directory is made, what there is
            try:
                with open(f"{place}/cgroup.controllers", encoding="ascii") as file:
                    available = frozenset(file.read().split())
                break
            except OSError:
                pass
    return Layout(v1, v2, available - set(v1), v2_mount)


def _relative(path: str, top: str) -> str:
    """`path` seen from a mount that shows the hierarchy from `top` on."""
    if top == "/":
        return path
    return path[len(top) :] if path == top or path.startswith(top + "/") else ""


def _below(point: str, path: str) -> str:
    return os.path.normpath(f"{point}/{path.strip('/')}")
