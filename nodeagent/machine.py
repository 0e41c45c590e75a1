"""What the machine is and how it is doing: facts for the Node object, from /proc and /etc.

Reading is cheap enough for every ten seconds; what cannot change is read once.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is left of what there is. Bytes, inodes, process ids."""

    memory_available: int
    memory: int
    disk_available: int
    disk_capacity: int
    inodes_free: int
    inodes: int
    pids_free: int
    pids: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the agent runs."""

    cpus: int
    memory_bytes: int
    disk_bytes: int
    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    system_uuid: str
    boot_id: str
    booted_at: float  # seconds since the epoch
    cpu_ids: frozenset[int] = frozenset()
    pids: int = 32768  # process ids that there are
    hugepages: Mapping[str, int] = field(default_factory=dict)  # size as in `hugepages-2Mi` → bytes set aside


def inspect(directory: str) -> Machine:
    """This machine; the disk is the one that holds `directory`."""
    disk = os.statvfs(directory)
    uname = platform.uname()
    machine_id = _read("/etc/machine-id")
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_meminfo().get("MemTotal", 0) * 1024,
        disk_bytes=disk.f_blocks * disk.f_frsize,
        architecture=ARCHITECTURES.get(uname.machine, uname.machine),
        kernel=uname.release,
        os_image=os_release().get("PRETTY_NAME", "Linux"),
        machine_id=machine_id,
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        booted_at=_booted_at(),
        cpu_ids=frozenset(os.sched_getaffinity(0)),
        pids=min(_number("/proc/sys/kernel/pid_max", 32768), _number("/proc/sys/kernel/threads-max", 1 << 22)),
        hugepages=hugepages(),
    )


def pressure(directory: str) -> Pressure:
    """How much is left now."""
    disk = os.statvfs(directory)
    pids = int(_read("/proc/sys/kernel/pid_max") or 32768)
    running = int((_read("/proc/loadavg").split() or ["", "", "", "0/0"])[3].partition("/")[2] or 0)
    memory = _meminfo()
    return Pressure(
        memory_available=memory.get("MemAvailable", 0) * 1024,
        memory=memory.get("MemTotal", 0) * 1024,
        disk_available=disk.f_bavail * disk.f_frsize,
        disk_capacity=disk.f_blocks * disk.f_frsize,
        inodes_free=disk.f_favail,
        inodes=disk.f_files,
        pids_free=pids - running,
        pids=pids,
    )


def hugepages(directory: str = "/sys/kernel/mm/hugepages") -> dict[str, int]:
    """Bytes of huge pages that the kernel has set aside, by size as in resource names: 2Mi, 1Gi."""
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    found = {}
    for name in sorted(names):  # hugepages-2048kB
        size = name.removeprefix("hugepages-").removesuffix("kB")
        if size.isdigit():
            bytes_ = int(size) << 10
            found[binary(bytes_)] = _number(f"{directory}/{name}/nr_hugepages", 0) * bytes_
    return found


def binary(size: int) -> str:
    """`size` in the largest unit that divides it: 2Mi."""
    for unit, shift in (("Gi", 30), ("Mi", 20), ("Ki", 10)):
        if size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


@functools.cache
def os_release() -> Mapping[str, str]:
    """/etc/os-release."""
    result = {}
    for line in _read("/etc/os-release").splitlines():
        name, _, value = line.partition("=")
        result[name] = value.strip().strip('"')
    return result


def hostname() -> str:
    return socket.gethostname().lower()


def address_towards(host: str, port: int) -> str:
    """The local address from which `host` would be reached (no packet is sent). Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.connect((host, port))
        address: str = probe.getsockname()[0]
        return address


def _booted_at() -> float:
    """`btime` of /proc/stat."""
    lines = _read("/proc/stat").splitlines()
    return float(next((line.split()[1] for line in lines if line.startswith("btime ")), 0))


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in KiB."""
    result = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        result[name] = int(rest.split()[0])
    return result


def _number(path: str, default: int) -> int:
    text = _read(path)
    return int(text) if text.isdigit() else default


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
