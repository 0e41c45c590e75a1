"""A container's file tree, as steps: overlay root, pivot_root, /dev, /sys, /proc, volumes, masked and read-only paths.

The order is the defence. Sources are taken while the node's tree is in sight; then the root changes and the old one is
detached; targets are resolved in the new root only. /proc comes last but for the masks: before it there is no magic
link that an image's symbolic link could lead a mount through.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nodeagent.linux import mounts
from nodeagent.linux.mounts import AT_FDCWD, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from nodeagent.linux.program import Input, Program, Result
from nodeagent.runtime.interface import Mount, RuntimeFailure, UserNamespace

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore", "ptmx": "pts/ptmx",
}  # fmt: skip
_HARMLESS = MS_NOSUID | MS_NODEV | MS_NOEXEC
_COVER = mounts.ATTR_RDONLY | mounts.ATTR_NOSUID | mounts.ATTR_NODEV | mounts.ATTR_NOEXEC
_DETACHED_CLONE = 1 | 0o2000000 | mounts.AT_EMPTY_PATH


@dataclass(frozen=True, slots=True)
class Tree:
    """What decides a container's file tree. `layers`: topmost first. `shm`: a descriptor of a detached mount (Input),
    or the path of one on the node. `cgroups`: hierarchies to show, name → (filesystem type, mount options)."""

    layers: Sequence[str]
    upper: str
    work: str
    mountpoint: str  # an empty directory on the node; the root is mounted on it in the container's namespace only
    mounts: Sequence[Mount]
    shm: Input | str
    cgroups: Mapping[str, tuple[str, str]]
    masked: Sequence[str]
    readonly_paths: Sequence[str]
    readonly: bool
    privileged: bool
    users: UserNamespace | None = None  # then USERS is a descriptor of it


USERS = 201
"""The descriptor number of the pod's user namespace while a tree is built: mount_setattr wants it in memory."""
_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 4


def build(program: Program, tree: Tree) -> None:
    """Append the steps that make `tree` the root of the process. Leaves it in `/`."""
    volumes = [(m, _take(program, m, tree.users is not None)) for m in tree.mounts]
    shm = _take_shm(program, tree.shm)
    program.add("mount", "", "/", None, mounts.MS_REC | mounts.MS_PRIVATE, None, about="/ private")
    top = _overlay(program, tree) if tree.users is None else _mapped_overlay(program, tree, tree.users)
    program.add("chdir", top, about=top)
    program.add("pivot_root", ".", ".", about=tree.mountpoint)
    program.add("umount2", ".", mounts.MNT_DETACH, about="the node's root")
    program.add("chdir", "/", about="/")
    if tree.users is not None:
        act_as(program, tree.users.first)
    _dev(program, shm, tree.privileged and tree.users is None, tree.users.first if tree.users else 0)
    _sys(program, tree)
    for volume, source in volumes:
        _place(program, volume, source)
    _own_directory(program, "/proc", 0o555)
    mounts.mount(program, "proc", "/proc", "proc", _HARMLESS)
    for path in tree.readonly_paths:
        mounts.cover(program, path, _COVER)
    for path in tree.masked:
        _mask(program, path)
    if tree.readonly:
        mounts.set_attributes(program, AT_FDCWD, mounts.ATTR_RDONLY, path="/", about="/ read-only")


def act_as(program: Program, uid: int) -> None:
    """What is made from now on belongs to this user and group of the node, a pod's root; all power is kept."""
    program.add("prctl", _PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0, about="securebits")
    program.add("setfsgid", uid)
    program.add("setfsuid", uid)


def _mapped_overlay(program: Program, tree: Tree, users: UserNamespace) -> str:
    """The overlay of a pod with its own users: each layer as a mount that shows the node's root as theirs. They are
    mounted on a tmpfs that goes with the node's root, so that only the overlay itself still has them. Where it is."""
    top = tree.mountpoint
    mounts.mount(program, "tmpfs", top, "tmpfs", _HARMLESS, f"mode=755,size=64k,uid={users.first},gid={users.first}")
    for index, layer in enumerate(tree.layers):
        clone = mounts.take(program, layer)
        mounts.map_ids(program, clone, USERS, layer)
        program.add("mkdirat", AT_FDCWD, f"{top}/{index}", 0o755, about=layer)
        mounts.put(program, clone, f"{top}/{index}")
    program.add("mkdirat", AT_FDCWD, f"{top}/root", 0o755, about=f"{top}/root")
    layers = [f"{top}/{index}" for index in range(len(tree.layers))]
    _overlay(program, dataclasses.replace(tree, layers=layers, mountpoint=f"{top}/root"))
    return f"{top}/root"


def _overlay(program: Program, tree: Tree) -> str:
    """`volatile`: nobody needs a container's writable layer after a crash, and without it unmounting syncs the whole
    upper filesystem. Options of mount(2) must fit a page, hence paths relative to what they have in common."""
    paths = [*tree.layers, tree.upper, tree.work]
    if any(c in path for path in paths for c in ":,\\"):
        raise RuntimeFailure(f"overlay: a path contains ':' or ',': {paths}", "CreateContainerError")
    common = os.path.commonpath(paths)
    layers, upper, work = tree.layers, tree.upper, tree.work
    if len(",".join(paths)) > 3500:
        layers = [os.path.relpath(path, common) for path in layers]
        upper, work = os.path.relpath(upper, common), os.path.relpath(work, common)
        program.add("chdir", common, about=common)
    data = f"lowerdir={':'.join(layers)},upperdir={upper},workdir={work},volatile"
    if len(data) > 4000:
        raise RuntimeFailure(f"overlay: {len(layers)} layers do not fit mount(2)'s options", "CreateContainerError")
    mounts.mount(program, "overlay", tree.mountpoint, "overlay", 0, data)
    return tree.mountpoint


def _take(program: Program, mount: Mount, mapped: bool) -> Result:
    if mount.propagation == "rshared":
        _check_shared(mount.host_path)
    tree = mounts.take(
        program, mount.host_path, readonly=mount.readonly, propagation=mount.propagation, recursive=mount.recursive
    )
    if mapped:
        mounts.map_ids(program, tree, USERS, mount.host_path)
    return tree


def _check_shared(path: str) -> None:
    """What the container mounts can only show on the node if it is on a shared mount there."""
    real, best, shared = os.path.realpath(path), "", False
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" - ")[0].split()
            target = fields[4].encode().decode("unicode_escape", "surrogateescape")
            inside = real == target or real.startswith(target.rstrip("/") + "/")
            if inside and len(target) >= len(best):
                best, shared = target, any(f.startswith("shared:") for f in fields[6:])
    if not shared:
        message = f'path "{path}" is mounted on "{best}" but it is not a shared mount'
        raise RuntimeFailure(message, "CreateContainerError")


def _take_shm(program: Program, shm: Input | str) -> Result:
    if isinstance(shm, str):
        return mounts.take(program, shm)
    return program.add("open_tree", shm, "", _DETACHED_CLONE, about="/dev/shm")


def _place(program: Program, mount: Mount, source: Result) -> None:
    target = os.path.normpath("/" + mount.container_path.lstrip("/"))
    if target == "/" or target == "/proc" or target.startswith("/proc/"):
        raise RuntimeFailure(f"mount path {mount.container_path!r} is not allowed", "CreateContainerError")
    try:
        is_directory = stat.S_ISDIR(os.stat(mount.host_path).st_mode)
    except OSError as error:
        message = f"mount source {mount.host_path}: {error.strerror}"
        raise RuntimeFailure(message, "CreateContainerError") from error
    if is_directory:
        mounts.make_directories(program, target)
    else:
        mounts.make_file(program, target)
    mounts.put(program, source, target)


def _own_directory(program: Program, path: str, mode: int) -> None:
    """A directory for one of the kernel's file systems; no symbolic link of the image's, which might lead through a
    volume that another container changes meanwhile."""
    program.add("mkdirat", AT_FDCWD, path, mode, forgive=(errno.EEXIST,), about=path)
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    fd = program.add("openat", AT_FDCWD, path, flags, 0, about=f"{path} must be a directory in the image, no link:")
    program.add("close", fd)


def _dev(program: Program, shm: Result, node_devices_too: bool, root: int) -> None:
    """`root`: the node's number of the container's root. A pod with users of its own gets no devices of the node's:
    they would be its root's, and it could open them."""
    _own_directory(program, "/dev", 0o755)
    mounts.mount(program, "tmpfs", "/dev", "tmpfs", MS_NOSUID | mounts.MS_STRICTATIME, "mode=755,size=65536k")
    program.add("umask", 0)
    nodes = {name: (stat.S_IFCHR | 0o666, os.makedev(*numbers)) for name, numbers in _DEVICES.items()}
    if node_devices_too:
        nodes = {**dict(node_devices("/dev")), **nodes}
    made: set[str] = set()
    for name, (mode, device) in nodes.items():
        parent = name.rpartition("/")[0]
        if parent and parent not in made:
            made.add(parent)
            mounts.make_directories(program, f"/dev/{parent}")
        program.add("mknodat", AT_FDCWD, f"/dev/{name}", mode, device, about=f"/dev/{name}")
    for name, target in _LINKS.items():
        program.add("symlinkat", target, AT_FDCWD, f"/dev/{name}", about=f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        program.add("mkdirat", AT_FDCWD, f"/dev/{name}", 0o755, forgive=(errno.EEXIST,), about=f"/dev/{name}")
    options = f"newinstance,ptmxmode=0666,mode=0620,gid={root + 5}"
    mounts.mount(program, "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    mounts.put(program, shm, "/dev/shm")
    mounts.mount(program, "mqueue", "/dev/mqueue", "mqueue", _HARMLESS)
    program.add("umask", 0o022)


def node_devices(top: str, below: str = "") -> Iterable[tuple[str, tuple[int, int]]]:
    """(name, (mode, number)) of the node's device nodes, for privileged containers."""
    for entry in sorted(os.scandir(f"{top}/{below}"), key=lambda e: e.name):
        name = f"{below}/{entry.name}" if below else entry.name
        if name in ("pts", "shm", "mqueue", "fd", "console", "ptmx", ".lxc", ".udev"):
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from node_devices(top, name)
        elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            yield name, (found.st_mode, found.st_rdev)


def _sys(program: Program, tree: Tree) -> None:
    readonly = 0 if tree.privileged else MS_RDONLY
    _own_directory(program, "/sys", 0o555)
    mounts.mount(program, "sysfs", "/sys", "sysfs", _HARMLESS | readonly)
    top = "/sys/fs/cgroup"
    if set(tree.cgroups) == {""}:
        mounts.mount(program, "cgroup", top, "cgroup2", _HARMLESS | readonly)
    elif tree.cgroups:
        mounts.mount(program, "tmpfs", top, "tmpfs", _HARMLESS, "mode=755,size=64k")
        for name, (kind, options) in tree.cgroups.items():
            program.add("mkdirat", AT_FDCWD, f"{top}/{name}", 0o755, about=f"{top}/{name}")
            mounts.mount(program, "cgroup", f"{top}/{name}", kind, _HARMLESS | readonly, options)
        if readonly:
            mounts.set_attributes(program, AT_FDCWD, mounts.ATTR_RDONLY, path=top, about=f"{top} read-only")


@functools.cache
def _kind(path: str) -> str:
    """What a path of the kernel's own filesystems is; elsewhere nobody knows before the container is there."""
    if not path.startswith(("/proc/", "/sys/")):
        return "unknown"
    return "directory" if os.path.isdir(path) else "file" if os.path.lexists(path) else "absent"


def _mask(program: Program, path: str) -> None:
    """Hide `path`: a file behind /dev/null, a directory behind an empty tmpfs. What is not there needs no hiding."""
    absent = (errno.ENOENT, errno.ENOTDIR)
    kind = _kind(path)
    if kind in ("file", "unknown"):
        program.add("mount", "/dev/null", path, None, mounts.MS_BIND, None, forgive=absent, about=f"mask {path}")
    if kind in ("directory", "unknown"):
        flags = _HARMLESS | MS_RDONLY
        program.add("mount", "tmpfs", path, "tmpfs", flags, "size=0", forgive=absent, about=f"mask {path}")
