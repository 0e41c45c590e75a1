"""Making a small image from files: a proper OCI image layout in a tar, the same bytes for the same input.

    build(target, tree, config, "docker.io/library/site:1")      one layer from `Entry` values
    directory(path)                                              the entries of a folder
    busybox(target)                                              the example's image from Debian's busybox-static

It does not run anything inside an image (no RUN): that is what buildah and others are for.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.images import references
from nodeagent.images.manifest import _ARCHITECTURES, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, digest_of
from nodeagent.runtime.interface import ImageConfig

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
BUSYBOX = Path("/bin/busybox")  # Debian's busybox-static
_EPOCH = "1970-01-01T00:00:00Z"  # nothing in an image should depend on when it was made
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the layer. `mode` includes the type (stat.S_IFREG, S_IFDIR, S_IFLNK); `source` is where a regular
    file's bytes are, `text` a link's target or a regular file's content."""

    path: str
    mode: int
    text: str = ""
    source: Path | None = None
    uid: int = 0
    gid: int = 0


def directory(path: Path) -> Iterator[Entry]:
    """What is in `path`, owned by root. Device nodes and sockets are left out."""
    for folder, folders, files in os.walk(path):
        for name in sorted(folders + files):
            full = Path(folder) / name
            mode = full.lstat().st_mode
            relative = str(full.relative_to(path))
            if stat.S_ISLNK(mode):
                yield Entry(relative, mode, os.readlink(full))
            elif stat.S_ISDIR(mode):
                yield Entry(relative, mode)
            elif stat.S_ISREG(mode):
                yield Entry(relative, mode, source=full)


def layer(entries: Iterable[Entry]) -> bytes:
    """The entries as an uncompressed archive, sorted by path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in sorted(entries, key=lambda e: e.path):
            info = tarfile.TarInfo(entry.path)
            info.mode = stat.S_IMODE(entry.mode)
            info.uid, info.gid = entry.uid, entry.gid
            if stat.S_ISDIR(entry.mode):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif stat.S_ISLNK(entry.mode):
                info.type, info.linkname = tarfile.SYMTYPE, entry.text
                archive.addfile(info)
            else:
                data = entry.source.read_bytes() if entry.source is not None else entry.text.encode()
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def build(target: Path, entries: Iterable[Entry], config: ImageConfig, name: str) -> str:
    """Write the image `name` (a reference with a tag) to `target`, a tar, atomically. Returns the image's id."""
    tag = references.parse(name).tagged
    raw = layer(entries)
    packed = gzip.compress(raw, 6, mtime=0)
    machine = platform.machine()
    document = _json(
        {
            "created": _EPOCH,
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": _config_section(config),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(raw)]},
            "history": [{"created": _EPOCH, "created_by": "wherry image build"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(document, OCI_CONFIG),
            "layers": [_descriptor(packed, OCI_LAYER)],
        }
    )
    top = {**_descriptor(manifest, OCI_MANIFEST), "annotations": {"org.opencontainers.image.ref.name": tag}}
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top]}),
        **{f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (document, manifest, packed)},
    }
    tree = [Entry(path, stat.S_IFDIR | 0o755) for path in ("blobs", "blobs/sha256")]
    unfinished = target.with_name(target.name + f".{os.getpid()}.tmp")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry in tree:
            info = tarfile.TarInfo(entry.path)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    os.replace(unfinished, target)
    return digest_of(document)


def busybox_tree(binary: Path = BUSYBOX) -> Iterator[Entry]:
    """`binary` as /bin/busybox, a link for each of its applets, and the few files that programs expect. Raises OSError
    or subprocess.SubprocessError if `binary` is not a busybox."""
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    folders = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700,
               "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755,
               "var/www": 0o755}  # fmt: skip
    yield from (Entry(path, stat.S_IFDIR | mode) for path, mode in folders.items())
    yield Entry("bin/busybox", stat.S_IFREG | 0o755, source=binary)
    yield from (Entry(f"bin/{applet}", stat.S_IFLNK | 0o777, "busybox") for applet in applets if applet != "busybox")
    yield Entry("etc/passwd", stat.S_IFREG | 0o644, _PASSWD)
    yield Entry("etc/group", stat.S_IFREG | 0o644, "root:x:0:\nnogroup:x:65534:\n")


def busybox(target: Path, binary: Path = BUSYBOX, name: str = "docker.io/library/busybox:1.35") -> str:
    """The image `name` of a busybox. Returns its id. Raises as `busybox_tree`."""
    return build(target, busybox_tree(binary), ImageConfig(cmd=("sh",), env=(PATH,)), name)


def _config_section(config: ImageConfig) -> dict[str, Any]:
    section: dict[str, Any] = {
        "User": config.user,
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "WorkingDir": config.working_dir,
        "StopSignal": config.stop_signal,
        "Volumes": {volume: {} for volume in config.volumes},
    }
    return {key: value for key, value in section.items() if value}


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
