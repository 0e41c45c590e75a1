"""A layer's archive into a directory that overlay can use as it is.

The archive is not trusted. Every path is resolved by hand inside the layer (and the layers below it, see `below.py`):
`..` is refused, a symbolic link on the way leads at most to the layer's own root, nothing is ever opened through a
link. What an image must not bring is left out: device nodes (a container gets its own /dev; 0,0 would be a whiteout),
and extended attributes other than `user.*` and file capabilities (`trusted.overlay.*` would forge overlay's).

    .wh.NAME        → character device 0,0 at NAME             (image-spec, layer.md, "Whiteouts")
    .wh..wh..opq    → trusted.overlay.opaque=y on the directory

The caller gives an empty directory and renames it into place when this returned; nothing here is durable or atomic.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import logging
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from nodeagent.images.below import OPAQUE, Below, is_whiteout
from nodeagent.images.manifest import ImageInvalid

log = logging.getLogger(__name__)

_COPY_BYTES = 1 << 20
_LINKS_FOLLOWED = 40  # as the kernel's limit (ELOOP)
_XATTR = "SCHILY.xattr."
_LATEST_NS = (1 << 34) * 1_000_000_000  # ext4's


class Hashing(io.RawIOBase):
    """A readable stream that remembers the digest and the length of what was read."""

    def __init__(self, stream: IO[bytes], limit_bytes: int) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._limit = limit_bytes
        self.length = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.length += len(data)
        if self.length > self._limit:
            raise ImageInvalid(f"layer is larger than {self._limit} bytes")
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def decompressed(stream: IO[bytes]) -> IO[bytes]:
    """`stream`, which starts at its beginning, uncompressed: gzip, zstd or plain, told by its first bytes."""
    buffered: Any = stream if hasattr(stream, "peek") else io.BufferedReader(stream, _COPY_BYTES)
    magic = buffered.peek(4)[:4]
    source: Any = buffered
    if magic[:2] == b"\x1f\x8b":
        source = gzip.GzipFile(fileobj=buffered, mode="rb")
    if magic == b"\x28\xb5\x2f\xfd":
        import zstandard  # few images need it

        source = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
    return cast(IO[bytes], source)


def unpack(stream: IO[bytes], target: Path, below: Sequence[Path], diff_id: str, limit_bytes: int = 64 << 30) -> int:
    """Unpack the layer archive `stream` into the empty directory `target`, over the layers `below` (topmost first).
    Returns the size of the uncompressed archive. Raises ImageInvalid if it is broken, hostile, or not what `diff_id`
    promises; OSError if the node cannot write it."""
    source = Hashing(decompressed(stream), limit_bytes)
    target.chmod(0o755)
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_COPY_BYTES, encoding="utf-8") as archive:
            layer = _Layer(target, Below(below))
            for member in archive:
                layer.add(archive, member)
            layer.finish()
        while source.read(_COPY_BYTES):
            pass  # the padding behind the archive counts for the digest, too
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise ImageInvalid(f"layer {diff_id}: broken archive: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("zstd"):
            raise ImageInvalid(f"layer {diff_id}: broken archive: {error}") from error
        raise
    if source.digest != diff_id:
        raise ImageInvalid(f"layer {diff_id}: content has digest {source.digest}")
    return source.length


class _Layer:
    def __init__(self, target: Path, below: Below) -> None:
        self._root = str(target)
        self._below = below
        self._directories: dict[str, str] = {"": ""}  # parent as named → parent as resolved
        self._times: dict[str, int] = {}  # directories' times in ns, set last: filling them changes them
        self._root_named = False

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            if member.isdir():
                self._root_named = True
                self._attributes(self._root, "", member)
            return
        if any(part.startswith(".wh.") for part in parts[:-1]):
            raise ImageInvalid(f"{member.name}: inside a whiteout")
        parent = self._resolve("/".join(parts[:-1]))
        name = parts[-1]
        if name.startswith(".wh."):
            self._whiteout(parent, name, member)
            return
        relative = f"{parent}/{name}" if parent else name
        path = f"{self._root}/{relative}"
        if member.isdir():
            self._directory(path)
        elif member.isreg():
            self._clear(path)
            self._file(path, archive, member)
        elif member.issym():
            self._clear(path)
            os.symlink(member.linkname, path)
            self._directories = {"": ""}
        elif member.islnk():
            self._hardlink(path, member)
            return  # the attributes are the other name's
        elif member.isfifo():
            self._clear(path)
            os.mkfifo(path)
        else:
            log.info("device node in image left out name=%r", member.name)
            return
        self._attributes(path, relative, member)

    def finish(self) -> None:
        """What has to wait until every entry is there."""
        if not self._root_named:
            self._copy_attributes(self._root, "")
        for relative, time_ns in self._times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(f"{self._root}/{relative}", ns=(time_ns, time_ns), follow_symlinks=False)

    # -- paths ---------------------------------------------------------------------------------------------------

    def _resolve(self, parent: str) -> str:
        """The directory that `parent` names, made (with its own parents) if it is not in this layer yet."""
        known = self._directories.get(parent)
        if known is not None:
            return known
        at: list[str] = []
        todo = parent.split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":  # only from a link's target
                if at:
                    at.pop()
                continue
            relative = "/".join([*at, part])
            target = self._step(relative)
            if target is None:
                at.append(part)
                continue
            links += 1
            if links > _LINKS_FOLLOWED:
                raise ImageInvalid(f"{parent}: too many symbolic links")
            if target.startswith("/"):
                at = []
            todo += target.split("/")[::-1]
        resolved = "/".join(at)
        self._directories[parent] = resolved
        return resolved

    def _step(self, relative: str) -> str | None:
        """Make `relative` (whose parent is a directory of this layer) a directory; if it is a link: its target."""
        path = f"{self._root}/{relative}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            lower = self._below.find(relative)
            if lower is not None and os.path.islink(lower):
                return os.readlink(lower)
            os.mkdir(path, 0o755)
            self._copy_attributes(path, relative)
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(path)
        self._directory(path)
        os.chmod(path, 0o755)
        return None

    def _copy_attributes(self, path: str, relative: str) -> None:
        """A directory that no entry describes is as it is in the layers below."""
        lower = self._below.find(relative)
        if lower is None or os.path.islink(lower) or not os.path.isdir(lower):
            return
        status = os.stat(lower)
        os.chown(path, status.st_uid, status.st_gid)
        os.chmod(path, stat.S_IMODE(status.st_mode))
        self._times[relative] = status.st_mtime_ns

    def _clear(self, path: str) -> None:
        """Remove what an earlier entry put at `path`."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(path)
        self._directories = {"": ""}

    # -- kinds of entries ----------------------------------------------------------------------------------------

    def _directory(self, path: str) -> None:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            os.mkdir(path, 0o700)
            return
        if stat.S_ISDIR(status.st_mode):
            return
        self._clear(path)
        os.mkdir(path, 0o700)
        os.setxattr(path, OPAQUE, b"y")  # deleted or replaced, then made anew: a lower directory must not show through

    def _file(self, path: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        source = archive.extractfile(member)
        assert source is not None  # a regular file
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            left = member.size
            while left:
                data = source.read(min(left, _COPY_BYTES))
                if not data:
                    raise ImageInvalid(f"{member.name}: ends too early")
                file.write(data)
                left -= len(data)

    def _hardlink(self, path: str, member: tarfile.TarInfo) -> None:
        parts = _parts(member.linkname)
        if not parts:
            raise ImageInvalid(f"{member.name}: hard link to nothing")
        parent = self._resolve("/".join(parts[:-1]))
        relative = f"{parent}/{parts[-1]}" if parent else parts[-1]
        source = f"{self._root}/{relative}"
        if source == path:
            return
        try:
            status = os.lstat(source)
        except FileNotFoundError:
            # The other name is in a lower layer: bring the file up, as overlay itself does for link(2).
            lower = self._below.find(relative)
            if lower is None or not stat.S_ISREG(os.lstat(lower).st_mode):
                raise ImageInvalid(f"{member.name}: hard link to {member.linkname!r}, which is not there") from None
            _copy_up(lower, source)
            status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
            raise ImageInvalid(f"{member.name}: hard link to {member.linkname!r}, which is no file")
        self._clear(path)
        os.link(source, path, follow_symlinks=False)

    def _whiteout(self, parent: str, name: str, member: tarfile.TarInfo) -> None:
        if name == ".wh..wh..opq":
            os.setxattr(f"{self._root}/{parent}" if parent else self._root, OPAQUE, b"y")
            return
        if name.startswith(".wh..wh."):
            return  # aufs' own bookkeeping
        hidden = name[4:]
        if hidden in ("", ".", ".."):
            raise ImageInvalid(f"{member.name}: invalid whiteout")
        path = f"{self._root}/{parent}/{hidden}" if parent else f"{self._root}/{hidden}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            return
        # The same layer has it, too: only the lower layers' one is deleted.
        if stat.S_ISDIR(status.st_mode):
            os.setxattr(path, OPAQUE, b"y")

    def _attributes(self, path: str, relative: str, member: tarfile.TarInfo) -> None:
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(path, member.mode & 0o7777)  # after chown, which takes setuid away
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR):
                _set_xattr(path, key[len(_XATTR) :], value)
        time_ns = min(max(0, int(member.mtime * 1_000_000_000)), _LATEST_NS)
        if member.isdir():
            self._times[relative] = time_ns
        else:
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


def _set_xattr(path: str, name: str, value: Any) -> None:
    if name != "security.capability" and not name.startswith("user."):
        log.debug("extended attribute left out name=%s", name)
        return
    try:
        os.setxattr(path, name, str(value).encode("utf-8", "surrogateescape"), follow_symlinks=False)
    except OSError as error:  # the file system may not know user.*; capabilities must not get lost silently
        if name == "security.capability":
            raise ImageInvalid(f"file capability cannot be set: {error}") from error


def _copy_up(lower: str, path: str) -> None:
    status = os.stat(lower)
    shutil.copyfile(lower, path, follow_symlinks=False)
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(OSError):
        os.setxattr(path, "security.capability", os.getxattr(lower, "security.capability"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _parts(name: str) -> list[str]:
    """The components of an archive's path. Raises ImageInvalid for `..` and for bytes no path can have."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise ImageInvalid(f"path escapes from the image: {name!r}")
    return parts
