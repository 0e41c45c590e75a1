"""Finding a path inside a volume without ever leaving it, whatever symbolic links a container has put there.

The walk holds a file descriptor for each directory on the way and opens one component at a time with O_NOFOLLOW; a
symbolic link is read and its text walked in turn, an absolute one from the volume's root, `..` never above it
(RESOLVE_IN_ROOT of openat2(2), written out). The result is a descriptor: mounting /proc/self/fd/N of it cannot be
redirected afterwards. Missing directories are made on the way, as kubelet does.
"""

from __future__ import annotations

import errno
import os
import stat

_MOST_LINKS = 40
_DIRECTORY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafePath(OSError):
    """The path cannot be followed inside its volume."""


def open_inside(root: str, path: str, *, create_mode: int | None = None) -> int:
    """An O_PATH descriptor of `path` below `root`; the caller closes it. With `create_mode`, what is missing becomes
    directories of that mode. Raises UnsafePath, or OSError (ENOENT, ENOTDIR, …)."""
    stack = [os.open(root, _DIRECTORY | os.O_DIRECTORY)]
    todo = [c for c in path.split("/") if c not in ("", ".")][::-1]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=stack[-1])
            except FileNotFoundError:
                if create_mode is None:
                    raise
                os.mkdir(name, 0o700, dir_fd=stack[-1])
                fd = os.open(name, _DIRECTORY, dir_fd=stack[-1])
                os.chmod(f"/proc/self/fd/{fd}", create_mode)
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                text = os.readlink("", dir_fd=fd)
                os.close(fd)
                if links > _MOST_LINKS:
                    raise UnsafePath(errno.ELOOP, "too many symbolic links", path)
                if text.startswith("/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                todo += [c for c in text.split("/") if c not in ("", ".")][::-1]
                continue
            if todo and not stat.S_ISDIR(mode):
                os.close(fd)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            stack.append(fd)
        return stack.pop()
    finally:
        for fd in stack:
            os.close(fd)
