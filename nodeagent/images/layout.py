"""Images in files: an OCI image layout (a directory or a tar of it) or what `docker save` writes.

Reads the documents and finds the layers; unpacking is `unpack.py`'s. Sources: image-spec, image-layout.md; moby's
image/spec. Blocking: call it in a thread.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from nodeagent.images import manifest, references
from nodeagent.images.manifest import Descriptor, ImageInvalid

_MAX_DOCUMENT = 8 << 20
_REF_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Found:
    """One image: its config document, the paths of its layers (lowest first), its names (normalised, with tag), the
    digest of its manifest (empty for docker-archive) and the size of it all in bytes."""

    config: bytes
    layers: Sequence[str]
    tags: Sequence[str]
    digest: str
    size_bytes: int


class Archive:
    """A context manager over the files of a layout, wherever they are."""

    def __init__(self, path: Path, name: str = "") -> None:
        """`name`: what the file is called, if `path` does not say. Raises ImageInvalid if it is neither a directory nor
        a tar; OSError if it cannot be read."""
        self._path = path
        self._stem = (name or path.name).split(".")[0].lower()
        self._tar: tarfile.TarFile | None = None
        self._members: dict[str, tarfile.TarInfo] = {}
        if not path.is_dir():
            try:
                self._tar = tarfile.open(path)  # noqa: SIM115
                self._members = {os.path.normpath(m.name): m for m in self._tar}
            except tarfile.TarError as error:
                self.close()
                # tarfile's own words are a line for each compression that it tried.
                reason = "no tar, compressed or not" if isinstance(error, tarfile.ReadError) else str(error)
                raise ImageInvalid(f"{name or path}: not an image archive: {reason}") from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()

    def open(self, name: str) -> IO[bytes]:
        """A file of the layout. Raises ImageInvalid if it is not there."""
        name = os.path.normpath(name)
        if name.startswith(("/", "..")):
            raise ImageInvalid(f"{self._path}: {name!r} is outside of the archive")
        try:
            if self._tar is None:
                return (self._path / name).open("rb")
            file = self._tar.extractfile(self._members[name])
            if file is not None:
                return file
        except (KeyError, OSError):
            pass
        raise ImageInvalid(f"{self._path}: has no {name!r}")

    def _has(self, name: str) -> bool:
        return name in self._members if self._tar is not None else (self._path / name).is_file()

    def _read(self, name: str) -> bytes:
        with self.open(name) as file:
            data = file.read(_MAX_DOCUMENT + 1)
        if len(data) > _MAX_DOCUMENT:
            raise ImageInvalid(f"{self._path}: {name} is larger than {_MAX_DOCUMENT} bytes")
        return data

    def _document(self, wanted: Descriptor) -> bytes:
        data = self._read(_blob(wanted.digest))
        manifest.check_digest(data, wanted.digest, str(self._path))
        return data

    def images(self) -> list[Found]:
        """All images for this machine. Raises ImageInvalid."""
        try:
            if self._has("index.json") and self._has("oci-layout"):
                return self._oci()
            if self._has("manifest.json"):
                return self._docker()
        except tarfile.TarError as error:
            raise ImageInvalid(f"{self._path}: broken archive: {error}") from error
        raise ImageInvalid(f"{self._path}: neither an OCI image layout nor a docker-archive")

    def _oci(self) -> list[Found]:
        index = manifest.decode(self._read("index.json"), "index.json")
        by_digest: dict[str, tuple[Descriptor, list[str]]] = {}
        for entry in index.get("manifests") or ():
            found = manifest.descriptor(entry, "index.json")
            names = by_digest.setdefault(found.digest, (found, []))[1]
            names += self._names(entry.get("annotations") or {})
        return [self._oci_image(top, names) for top, names in by_digest.values()]

    def _oci_image(self, top: Descriptor, names: list[str]) -> Found:
        document = manifest.decode(self._document(top), top.digest)
        if manifest.is_index(document):
            document = manifest.decode(self._document(manifest.choose(document)), top.digest)
        found = manifest.manifest(document)
        return Found(
            self._document(found.config),
            [_blob(layer.digest) for layer in found.layers],
            names,
            top.digest,
            sum(max(0, layer.size) for layer in found.layers) + max(0, found.config.size),
        )

    def _names(self, annotations: Any) -> list[str]:
        """A layout names its images by annotation: in full, or by tag only; then the file's name is the rest."""
        if not isinstance(annotations, dict):
            return []
        for key in _REF_NAMES:
            name = annotations.get(key)
            if isinstance(name, str):
                with suppress(references.InvalidName):
                    return [references.parse(name if "/" in name or ":" in name else f"{self._stem}:{name}").tagged]
        return []

    def _docker(self) -> list[Found]:
        entries = manifest.decode(b'{"images":%b}' % self._read("manifest.json"), "manifest.json")["images"]
        found = []
        for entry in entries if isinstance(entries, list) else ():
            try:
                config = self._read(cast(str, entry["Config"]))
                layers = [str(layer) for layer in entry["Layers"]]
                tags = [references.parse(tag).tagged for tag in entry.get("RepoTags") or ()]
            except (KeyError, TypeError, AttributeError) as error:
                raise ImageInvalid(f"{self._path}: broken manifest.json: {error!r}") from error
            size = sum(self._size(layer) for layer in layers)
            found.append(Found(config, layers, tags, "", size + len(config)))
        return found

    def _size(self, name: str) -> int:
        with self.open(name) as file:
            return file.seek(0, os.SEEK_END)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
