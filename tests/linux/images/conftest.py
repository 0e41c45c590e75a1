"""Layers made by hand, honest and hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.images.manifest import digest_of
from nodeagent.images.unpack import unpack

Make = Callable[..., bytes]


def _archive(*entries: tuple[Any, ...], **pax: dict[str, str]) -> bytes:
    """(name, type, attributes...) each; type: `dir`, `file`, `link`, `hard`, `chr`, `fifo`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, *rest in entries:
            info = tarfile.TarInfo(name)
            attributes = rest[1] if len(rest) > 1 else {}
            info.mode = attributes.get("mode", 0o755 if kind == "dir" else 0o644)
            info.uid, info.gid = attributes.get("uid", 0), attributes.get("gid", 0)
            info.mtime = attributes.get("mtime", 1_000_000)
            info.pax_headers = attributes.get("pax", {})
            content = b""
            if kind == "dir":
                info.type = tarfile.DIRTYPE
            elif kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, rest[0]
            elif kind == "hard":
                info.type, info.linkname = tarfile.LNKTYPE, rest[0]
            elif kind == "chr":
                info.type, (info.devmajor, info.devminor) = tarfile.CHRTYPE, rest[0]
            elif kind == "fifo":
                info.type = tarfile.FIFOTYPE
            else:
                content = rest[0].encode() if rest else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archive() -> Make:
    """Makes a layer's archive from entries."""
    return _archive


@pytest.fixture
def stack(tmp_path: Path) -> Callable[..., Path]:
    """Unpacks an archive as the next layer over those before, and returns its directory."""
    layers: list[Path] = []

    def add(*entries: tuple[Any, ...], raw: bytes | None = None, packed: bool = True) -> Path:
        data = _archive(*entries) if raw is None else raw
        target = tmp_path / f"layer{len(layers)}"
        target.mkdir()
        unpack(io.BytesIO(gzip.compress(data) if packed else data), target, layers, digest_of(data))
        layers.insert(0, target)
        return target

    return add
