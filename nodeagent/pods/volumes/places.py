"""Where volumes live that are directories: hostPath with all its types, emptyDir on disk and in memory.

Mounting is the kernel's business: a tmpfs through nodeagent.linux. hostPath types: kubelet's pkg/volume/hostpath.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable

from controlplane.api import quantity
from nodeagent.linux import syscalls
from nodeagent.pods.model import Object
from nodeagent.pods.volumes.content import VolumeFailure

log = logging.getLogger(__name__)

_TESTS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}
MS_NOSUID, MS_NODEV = 2, 4
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


def empty_dir(source: Object, path: str, gid: int | None) -> None:
    """Make the directory `path`, as a tmpfs when its medium is Memory. Idempotent."""
    fresh = not os.path.isdir(path)
    if fresh:
        os.makedirs(path, 0o750)
    if source.get("medium") == "Memory" and not os.path.ismount(path):
        limit = source.get("sizeLimit")
        size = quantity.of(limit).value() if limit else 0
        mount_tmpfs(path, size, 0o1777)
        fresh = True
    if fresh:
        os.chmod(path, 0o777)
        own(path, gid)


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
