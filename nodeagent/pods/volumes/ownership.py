"""Giving a volume to the pod's fsGroup: every file of it, or only where its root shows that it has not been done.

The group may read and write what the owner may, and what is made in a directory is the group's again (setgid).
Symbolic links are given away themselves and never followed: the walk holds directories by descriptor, so a container
that still runs on the volume cannot lead it astray. Rules: kubelet's pkg/volume/volume_linux.go (SetVolumeOwnership).
"""

from __future__ import annotations

import os
import stat

_READ_WRITE, _READ, _EXECUTE = 0o660, 0o440, 0o110


def give(path: str, gid: int, *, readonly: bool = False, only_on_mismatch: bool = False) -> bool:
    """Give the tree at `path` to group `gid`; True if that was needed. `only_on_mismatch`: leave it when its root is as
    it should be (fsGroupChangePolicy OnRootMismatch). Blocks for as long as the tree is large. Raises OSError."""
    root = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(root)
        if not stat.S_ISDIR(found.st_mode):
            _give_one(root, found, gid, readonly)
            return True
        if only_on_mismatch and _fits(found, gid, readonly):
            return False
        for _, directories, files, directory in os.fwalk(".", topdown=False, follow_symlinks=False, dir_fd=root):
            for name in (*files, *directories):
                _give_entry(directory, name, gid, readonly)
        _give_one(root, found, gid, readonly)  # last: an interrupted walk must show as a mismatch
        return True
    finally:
        os.close(root)


def _wanted(mode: int, readonly: bool) -> int:
    more = _READ if readonly else _READ_WRITE
    return more | _EXECUTE | stat.S_ISGID if stat.S_ISDIR(mode) else more


def _fits(found: os.stat_result, gid: int, readonly: bool) -> bool:
    wanted = _wanted(found.st_mode, readonly)
    return found.st_gid == gid and found.st_mode & wanted == wanted


def _give_one(fd: int, found: os.stat_result, gid: int, readonly: bool) -> None:
    os.fchown(fd, -1, gid)
    os.fchmod(fd, stat.S_IMODE(found.st_mode) | _wanted(found.st_mode, readonly))


def _give_entry(directory: int, name: str, gid: int, readonly: bool) -> None:
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return  # gone since it was listed
    try:
        found = os.fstat(fd)
        # By name, for lack of AT_EMPTY_PATH: a link swapped in since is given away itself, and nothing behind it.
        os.chown(name, -1, gid, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(found.st_mode) | _wanted(found.st_mode, readonly))
    finally:
        os.close(fd)
