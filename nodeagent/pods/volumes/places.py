"""Where volumes live that are directories: hostPath with all its types, emptyDir on disk and in memory.

Mounting is the kernel's business: a tmpfs through nodeagent.linux. hostPath types: kubelet's pkg/volume/hostpath.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence

from controlplane.api import quantity
from controlplane.api.podresources import effective
from nodeagent.linux import syscalls
from nodeagent.pods.model import Object
from nodeagent.pods.resources import pod_resources, requested_names
from nodeagent.pods.volumes.content import VolumeFailure

log = logging.getLogger(__name__)

_TESTS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MNT_DETACH = 2


def host_path(source: Object) -> str:
    """The path to mount, checked or made after its `type`. Raises VolumeFailure in kubelet's words."""
    path: str = source["path"]
    kind = source.get("type") or ""
    if kind == "DirectoryOrCreate" and not os.path.lexists(path):
        os.makedirs(path, 0o755, exist_ok=True)
    elif kind == "FileOrCreate" and not os.path.lexists(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise VolumeFailure(f"hostPath type check failed: {error}") from error
    if not kind:
        if not os.path.lexists(path):
            os.makedirs(path, 0o755, exist_ok=True)  # as container runtimes do for a missing bind source
        return path
    test, word = _TESTS[kind.removesuffix("OrCreate")]
    try:
        fits = test(os.stat(path).st_mode)
    except OSError:
        fits = False
    if not fits:
        raise VolumeFailure(f"hostPath type check failed: {path} is not a {word}")
    return path


def memory_limit(pod: Object, source: Object, allocatable: Mapping[str, str]) -> int:
    """How many bytes an emptyDir in memory may hold: the least of its sizeLimit, the pod's memory limit and what the
    node has to give; 0 if nothing is known. (kubelet's calculateEmptyDirMemorySize)"""
    known = []
    if source.get("sizeLimit"):
        known.append(quantity.of(source["sizeLimit"]).value())
    limit = pod_resources(pod).memory_limit_bytes
    if limit > 0:
        known.append(limit)
    if allocatable.get("memory"):
        known.append(quantity.of(allocatable["memory"]).value())
    return min((size for size in known if size > 0), default=0)


def empty_dir(pod: Object, source: Object, path: str, gid: int | None, limit_bytes: int = 0) -> None:
    """Make the directory `path`: on disk, or as a file system of its own when its medium is Memory (of `limit_bytes`)
    or HugePages. Idempotent. Raises VolumeFailure, OSError."""
    fresh = not os.path.isdir(path)
    if fresh:
        os.makedirs(path, 0o750)
    medium = source.get("medium") or ""
    if medium and not os.path.ismount(path):
        if medium == "Memory":
            mount_tmpfs(path, limit_bytes, 0o1777)
        elif medium.startswith("HugePages"):
            _mount_huge_pages(path, _page_size(pod, medium), pod)
        else:
            raise VolumeFailure(f"unknown storage medium {medium!r}")
        fresh = True
    if fresh:
        os.chmod(path, 0o777)
        own(path, gid)


def _page_size(pod: Object, medium: str) -> str:
    """The size of huge page that is meant, as in the name of the resource: 2Mi, 1Gi."""
    asked = sorted(n.removeprefix("hugepages-") for n in requested_names([pod]) if n.startswith("hugepages-"))
    size = medium.removeprefix("HugePages").removeprefix("-")
    if size:
        if asked and size not in asked:
            raise VolumeFailure(f"medium {medium}: no container of the pod asks for hugepages-{size}")
        return size
    if len(asked) != 1:
        word = "no resource" if not asked else "multiple page sizes"
        raise VolumeFailure(f"medium HugePages: {word} of huge pages requested by the pod")
    return asked[0]


def _mount_huge_pages(path: str, size: str, pod: Object) -> None:
    bytes_a_page = quantity.of(size).value()
    if not os.path.isdir(f"/sys/kernel/mm/hugepages/hugepages-{bytes_a_page // 1024}kB"):
        raise VolumeFailure(f"this node has no huge pages of {size}")
    limit = effective(pod, "limits", f"hugepages-{size}") // 10**9
    data = f"pagesize={bytes_a_page}" + (f",size={limit}" if limit else "")
    arguments = (b"nodev\0", path.encode() + b"\0", b"hugetlbfs\0", MS_NOSUID | MS_NODEV, data.encode() + b"\0")
    syscalls.call("mount", *arguments, path=path)


def mount_layers(layers: Sequence[str], path: str) -> None:
    """Mount an image's layers (topmost first) at `path`: read-only, no programs, no devices. Idempotent. Raises
    OSError."""
    os.makedirs(path, 0o755, exist_ok=True)
    if os.path.ismount(path) or not layers:
        return
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    target = path.encode() + b"\0"
    if len(layers) > 1:
        data = f"lowerdir={':'.join(layers)}".encode() + b"\0"
        syscalls.call("mount", b"overlay\0", target, b"overlay\0", flags, data, path=path)
        return
    syscalls.call("mount", layers[0].encode() + b"\0", target, None, MS_BIND, None, path=path)
    syscalls.call("mount", None, target, None, MS_REMOUNT | MS_BIND | flags, None, path=path)


def own(path: str, gid: int | None) -> None:
    """Give a volume's root to the pod's fsGroup, so that what is made in it belongs to the group too."""
    if gid is not None:
        os.chown(path, -1, gid)
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | 0o2770)


def ensure_secret_store(path: str) -> None:
    """One tmpfs for the secrets and tokens of all pods, so that they never touch a disk and no volume needs a mount of
    its own. Where mounting is not allowed it stays a directory, with a warning."""
    os.makedirs(path, 0o711, exist_ok=True)
    if not os.path.ismount(path):
        try:
            mount_tmpfs(path, 0, 0o711)
        except OSError as error:
            log.warning("secrets_on_disk path=%s error=%s", path, error)


def mount_tmpfs(path: str, size_bytes: int, mode: int) -> None:
    """Raises OSError."""
    data = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
    syscalls.call(
        "mount", b"tmpfs\0", path.encode() + b"\0", b"tmpfs\0", MS_NOSUID | MS_NODEV, data.encode() + b"\0", path=path
    )


def bind(fd: int, target: str) -> None:
    """Mount what `fd` refers to at `target`, which exists. Raises OSError."""
    source = f"/proc/self/fd/{fd}".encode() + b"\0"
    syscalls.call("mount", source, target.encode() + b"\0", None, 4096 | 16384, None, path=target)


def unmount(path: str) -> None:
    """Detach whatever is mounted at `path`; no error if nothing is."""
    try:
        syscalls.call("umount2", path.encode() + b"\0", MNT_DETACH, path=path)
    except OSError as error:
        if error.errno not in (2, 22):
            raise


def remove_tree(path: str) -> None:
    """Remove a pod's directory: first detach every mount below it, never following one into foreign data."""
    if not os.path.isdir(path):
        return
    for mounted in reversed(_mounts_below(path)):
        unmount(mounted)
    shutil.rmtree(path, ignore_errors=True)


def _mounts_below(path: str) -> list[str]:
    prefix = os.path.realpath(path) + "/"
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            target = line.split(" ", 5)[4].encode().decode("unicode_escape", "surrogateescape")
            if target.startswith(prefix):
                found.append(target)
    return found
