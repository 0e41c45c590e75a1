"""Files of a volume that change all at once, or not at all.

    volume/..2026_11_21_10_00_00.123456/   the files
    volume/..data -> ..2026_11_21_…        the one symbolic link that is swapped by rename(2)
    volume/key    -> ..data/key            what users open

A reader sees the old set or the new one. The same layout as kubelet's (pkg/volume/util/atomic_writer.go), which
programs that watch their configuration rely on. It writes nothing when nothing has changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane import clock

DATA = "..data"
_NEW = "..data_tmp"


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int
    uid: int | None = None


def write(directory: str, files: Mapping[str, File], gid: int | None = None) -> bool:
    """Make `directory` show exactly `files` (relative path -> content). `gid`: the group that owns them and may read
    them. True if anything changed. Raises OSError."""
    data = os.path.join(directory, DATA)
    old = _target(data)
    if old is not None and _same(os.path.join(directory, old), files):
        _link_names(directory, files)
        return False
    stamp = clock.rfc3339_micro().replace("-", "_").replace(":", "_").replace("T", "_").rstrip("Z")
    fresh = f"..{stamp}{clock.name_suffix(3)}"
    base = os.path.join(directory, fresh)
    os.mkdir(base, 0o755)
    if gid is not None:
        os.chown(base, -1, gid)
    made = {""}
    for path, file in files.items():
        _make_parents(base, os.path.dirname(path), made, gid)
        _write_file(os.path.join(base, path), file, gid)
    new = os.path.join(directory, _NEW)
    if os.path.lexists(new):
        os.unlink(new)  # left by a writer that was killed
    os.symlink(fresh, new)
    os.rename(new, data)
    _link_names(directory, files)
    if old is not None:
        shutil.rmtree(os.path.join(directory, old), ignore_errors=True)
    return True


def _write_file(path: str, file: File, gid: int | None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(file.content)
        while view:
            view = view[os.write(fd, view) :]
        if gid is not None or file.uid is not None:
            os.fchown(fd, -1 if file.uid is None else file.uid, -1 if gid is None else gid)
        os.fchmod(fd, file.mode | (0o440 if gid is not None else 0))
    finally:
        os.close(fd)


def _make_parents(base: str, path: str, made: set[str], gid: int | None) -> None:
    if path in made:
        return
    _make_parents(base, os.path.dirname(path), made, gid)
    full = os.path.join(base, path)
    os.mkdir(full, 0o755)
    if gid is not None:
        os.chown(full, -1, gid)
    made.add(path)


def _link_names(directory: str, files: Mapping[str, File]) -> None:
    """One link for each top-level name; links of names that are gone are removed."""
    names = {path.partition("/")[0] for path in files}
    for entry in os.scandir(directory):
        if entry.name.startswith("..") and entry.is_symlink() is False:
            continue
        if entry.name in names:
            names.discard(entry.name)
        elif entry.is_symlink() and not entry.name.startswith(".."):
            os.unlink(entry.path)
    for name in names:
        os.symlink(os.path.join(DATA, name), os.path.join(directory, name))


def _target(link: str) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _same(base: str, files: Mapping[str, File]) -> bool:
    """Whether `base` holds these files with this content."""
    count = 0
    for _, _, names in os.walk(base):
        count += len(names)
    if count != len(files):
        return False
    for path, file in files.items():
        try:
            with open(os.path.join(base, path), "rb") as existing:
                if existing.read() != file.content:
                    return False
        except OSError:
            return False
    return True
