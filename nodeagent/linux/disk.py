"""How much a directory tree holds, as `du` counts: allocated blocks, hard links once, one file system only."""

from __future__ import annotations

import os

_BLOCK = 512  # st_blocks is in these, whatever the file system's own are


def tree_usage(top: str) -> tuple[int, int]:
    """Bytes and inodes of `top` and what is below it. What vanishes meanwhile, or is not there, counts nothing.
    Symbolic links are not followed, other mounts not entered."""
    total = inodes = 0
    linked: set[int] = set()
    try:
        status = os.lstat(top)
    except OSError:
        return 0, 0
    device = status.st_dev
    total, inodes = status.st_blocks * _BLOCK, 1
    pending = [top]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if status.st_dev != device:
                    continue
                is_directory = entry.is_dir(follow_symlinks=False)
                if status.st_nlink > 1 and not is_directory:
                    if status.st_ino in linked:
                        continue
                    linked.add(status.st_ino)
                total += status.st_blocks * _BLOCK
                inodes += 1
                if is_directory:
                    pending.append(entry.path)
    return total, inodes
