"""What can be wrong with a machine before a lab starts, and the way out of each: a doctor's list.

Each check returns a `Problem` or None, changes nothing, and runs before anything is made.
"""

import ipaddress
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controlplane.cli.lab.spec import Lab

_SBIN = "/usr/sbin:/sbin"
TOOLS = {"ip": "iproute2", "iptables": "iptables", "iptables-restore": "iptables"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do about it."""

    what: str
    way_out: str


def root(_: Lab) -> Problem | None:
    if os.geteuid() == 0:
        return None
    return Problem("not root", "namespaces, cgroups and network interfaces need root: run it again with sudo")


def tools(_: Lab) -> Problem | None:
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if not absent:
        return None
    if len(absent) < len(TOOLS) and all(shutil.which(tool, path=_SBIN) for tool in absent):
        return Problem(
            "/usr/sbin is not on the PATH", f"plain `su` leaves a user's: su -, or export PATH=$PATH:{_SBIN}"
        )
    packages = sorted({TOOLS[tool] for tool in absent})
    return Problem(
        f"not installed: {', '.join(packages)}", f"apt-get install {' '.join(packages)} (vagrant/lab up does)"
    )


def namespaces(_: Lab) -> Problem | None:
    missing = [n for n in ("mnt", "pid", "net", "uts", "ipc", "cgroup") if not Path(f"/proc/self/ns/{n}").exists()]
    if not missing:
        return None
    return Problem(f"the kernel lacks namespaces: {', '.join(missing)}", "use a kernel with CONFIG_NAMESPACES in full")


def overlay(_: Lab) -> Problem | None:
    if "overlay" in Path("/proc/filesystems").read_text():
        return None
    if shutil.which("modprobe") and subprocess.run(["modprobe", "overlay"], capture_output=True).returncode == 0:
        return None
    return Problem("the kernel has no overlay filesystem", "modprobe overlay, or use a kernel with CONFIG_OVERLAY_FS")


def cgroups(_: Lab) -> Problem | None:
    mounts = Path("/proc/self/mountinfo").read_text()
    if " - cgroup" in mounts:
        return None
    return Problem("no cgroup hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup")


def subnet(lab: Lab) -> Problem | None:
    """Another interface already has addresses or routes in the lab's subnet."""
    if not shutil.which("ip"):
        return None  # `tools` says so
    ours = ipaddress.ip_network(lab.subnet)
    for what, inside in (("the pods'", lab.cluster_cidr), ("the Services'", lab.service_cidr)):
        if ours.overlaps(ipaddress.ip_network(inside)):
            return Problem(f"{lab.subnet} overlaps {what} network {inside}", "choose another with --subnet")
    listing = subprocess.run(["ip", "-4", "route", "show", "table", "main"], capture_output=True, text=True).stdout
    for line in listing.splitlines():
        words = line.split()
        if not words or words[0] in ("default", "unreachable", "blackhole"):
            continue
        if f"dev {lab.bridge}" in line:
            continue
        try:
            other = ipaddress.ip_network(words[0])
        except ValueError:
            continue
        if other.overlaps(ours):
            return Problem(f"{lab.subnet} is in use on this machine ({line.strip()})", "choose another with --subnet")
    return None


def supervisor(lab: Lab) -> Problem | None:
    """The control socket's directory must be ours to write."""
    if lab.run.exists() and not lab.run.is_dir():
        return Problem(f"{lab.run} is in the way", f"rm {lab.run}")
    return None


def disk(lab: Lab) -> Problem | None:
    place = lab.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free > 300 << 20:
        return None
    return Problem(f"only {free >> 20} MiB free at {place}", "free some space: images, logs and the store need 300 MiB")


CHECKS: tuple[Callable[[Lab], Problem | None], ...] = (
    root, tools, namespaces, overlay, cgroups, subnet, supervisor, disk,
)  # fmt: skip


def problems(lab: Lab) -> list[Problem]:
    """Everything wrong, not only the first; but nothing beyond `root` makes sense without root."""
    if first := root(lab):
        return [first]
    return [problem for check in CHECKS if (problem := check(lab))]
