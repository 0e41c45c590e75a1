"""Steps that mount things, for programs (program.py): pure, nothing is mounted here.

Binds come in two halves. `take` clones the source into a detached mount while the node's files are still in sight;
`put` places it when only the container's are. A target path is thus resolved inside the container's root and nothing
else, whatever symbolic links an image holds; and no mount is ever visible on the node.
"""

from __future__ import annotations

import errno
import struct

from nodeagent.linux.program import Argument, Program, Result

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_STRICTATIME = 1 << 18, 1 << 19, 1 << 20, 1 << 24
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_IDMAP = 1, 2, 4, 8, 0x100000

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_PROPAGATION = {"private": MS_PRIVATE, "rslave": MS_SLAVE, "rshared": MS_SHARED}
_S_IFREG = 0o100000


def set_attributes(
    program: Program, tree: Argument, set_bits: int = 0, propagation: int = 0, flags: int = 0, *,
    path: str = "", forgive: tuple[int, ...] = (), about: str = "",
) -> None:  # fmt: skip
    """mount_setattr(2) on a detached tree, or on `path`."""
    attributes = struct.pack("<4Q", set_bits, 0, propagation, 0)
    flags |= 0 if path else AT_EMPTY_PATH
    program.add("mount_setattr", tree, path, flags, attributes, len(attributes), forgive=forgive, about=about)


def map_ids(program: Program, tree: Argument, user_namespace: int, about: str) -> None:
    """Show the files of a detached tree as if their owners were mapped by the user namespace that descriptor number
    `user_namespace` is: the node's root becomes the container's. Fails (EINVAL) where the file system cannot."""
    attributes = struct.pack("<4Q", ATTR_IDMAP, 0, 0, user_namespace)
    about = f"{about} (user namespaces need a file system with ID-mapped mounts)"
    program.add("mount_setattr", tree, "", AT_EMPTY_PATH, attributes, len(attributes), about=about)


def take(
    program: Program, source: str, *, readonly: bool = False, propagation: str = "private", recursive: bool = False
) -> Result:
    """A detached clone of what is at `source` (and below it), to `put` later. `readonly` is of the mount itself, and
    with `recursive` of those below it."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | AT_RECURSIVE
    tree = program.add("open_tree", AT_FDCWD, source, flags, about=source)
    set_attributes(program, tree, 0, _PROPAGATION[propagation], AT_RECURSIVE, about=source)
    if readonly:
        set_attributes(program, tree, ATTR_RDONLY, flags=AT_RECURSIVE if recursive else 0, about=source)
    return tree


def put(program: Program, tree: Argument, target: str, forgive: tuple[int, ...] = ()) -> None:
    """Attach a detached tree at `target`."""
    program.add("move_mount", tree, "", AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH, forgive=forgive, about=target)


def make_directories(program: Program, path: str, mode: int = 0o755) -> None:
    """`path` and its parents; what exists stays. A real obstacle shows when the path is used."""
    done = ""
    for part in path.strip("/").split("/"):
        if part:
            done += "/" + part
            program.add("mkdirat", AT_FDCWD, done, mode, forgive=(errno.EEXIST, errno.EROFS), about=done)


def make_file(program: Program, path: str) -> None:
    """An empty file to mount on, with its parents; what exists stays."""
    make_directories(program, path.rpartition("/")[0])
    program.add("mknodat", AT_FDCWD, path, _S_IFREG | 0o644, 0, forgive=(errno.EEXIST, errno.EROFS), about=path)


def mount(program: Program, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2) of a new filesystem."""
    program.add("mount", source, target, kind, flags, data or None, about=f"{kind} on {target}")


def cover(program: Program, target: str, flags: int) -> None:
    """Make what is at `target` a mount of its own with ATTR_* `flags`; nothing if it is not there."""
    tree = program.add(
        "open_tree", AT_FDCWD, target, _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | AT_RECURSIVE,
        forgive=(errno.ENOENT,), about=target,
    )  # fmt: skip
    set_attributes(program, tree, flags, 0, AT_RECURSIVE, forgive=(errno.EBADF,), about=target)
    put(program, tree, target, forgive=(errno.EBADF, errno.ENOENT))
