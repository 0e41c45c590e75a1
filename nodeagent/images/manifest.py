"""The documents that make up an image: index, manifest, config. Decoded, checked, chosen by platform.

Sources: the OCI image specification (image-index, manifest, config) and Docker's older twins of each, which differ in
their media types only. Pure: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodeagent.images.references import _DIGEST
from nodeagent.runtime.interface import ImageConfig, RuntimeFailure

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_VARIANTS = {"arm64": ("v8", ""), "arm": ("v7", "v6", "v5", ""), "amd64": ("", "v1")}
_MAX_LAYERS = 500


class ImageInvalid(RuntimeFailure):
    """The image's documents or layers are broken, or not what their digests promise."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "ErrImagePull")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob by its digest. `size` in bytes, -1 if unknown."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: Sequence[Descriptor]


@dataclass(frozen=True, slots=True)
class Config:
    """The image config. `id` is its digest; `diff_ids` are the digests of the uncompressed layers, lowest first."""

    id: str
    diff_ids: Sequence[str]
    run: ImageConfig

    @property
    def chain_ids(self) -> list[str]:
        """For each layer, one digest of it and all below it (image-spec, config.md, "Layer ChainID")."""
        chain: list[str] = []
        for diff_id in self.diff_ids:
            chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
        return chain


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Raises ImageInvalid unless `data` has `digest`."""
    algorithm = digest.partition(":")[0]
    if f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
        raise ImageInvalid(f"{what}: content does not match its digest {digest}")


def decode(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises ImageInvalid."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageInvalid(f"{what}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ImageInvalid(f"{what}: not a JSON object")
    return document


def descriptor(value: Any, what: str) -> Descriptor:
    """Checked, so that a digest can be used as a file name. Raises ImageInvalid."""
    digest = value.get("digest") if isinstance(value, dict) else None
    size = value.get("size", -1) if isinstance(value, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or not isinstance(size, int):
        raise ImageInvalid(f"{what}: invalid descriptor {str(value)[:200]}")
    return Descriptor(digest, size, str(value.get("mediaType", "")))


def is_index(document: dict[str, Any]) -> bool:
    return document.get("mediaType") in (OCI_INDEX, DOCKER_INDEX) or "manifests" in document


def choose(index: dict[str, Any], machine: str = "") -> Descriptor:
    """The entry of an index for this machine (`machine`: as uname says). Raises ImageInvalid if there is none."""
    architecture = machine or platform.machine()
    architecture = _ARCHITECTURES.get(architecture, architecture)
    best: tuple[int, Descriptor] | None = None
    offered: list[str] = []
    for entry in index.get("manifests") or ():
        found = descriptor(entry, "index")
        where = entry.get("platform")
        if not isinstance(where, dict) or not where:
            rank = 100  # says nothing: good if nothing better is there
        else:
            offered.append("/".join(str(where[k]) for k in ("os", "architecture", "variant") if where.get(k)))
            variants = _VARIANTS.get(architecture, ("",))
            if where.get("os") != "linux" or where.get("architecture") != architecture:
                continue
            if where.get("variant", "") not in variants:
                continue
            rank = variants.index(where.get("variant", ""))
        if best is None or rank < best[0]:
            best = (rank, found)
    if best is None:
        raise ImageInvalid(f"no image for linux/{architecture}, only for: {', '.join(offered) or 'nothing'}")
    return best[1]


def manifest(document: dict[str, Any]) -> Manifest:
    """Raises ImageInvalid."""
    layers = document.get("layers")
    if document.get("schemaVersion") != 2 or not isinstance(layers, list):
        raise ImageInvalid("manifest: not schema version 2")
    if len(layers) > _MAX_LAYERS:
        raise ImageInvalid(f"manifest: {len(layers)} layers")
    config = descriptor(document.get("config"), "manifest config")
    return Manifest(config, [descriptor(layer, "manifest layer") for layer in layers])


def config(data: bytes) -> Config:
    """Raises ImageInvalid."""
    document = decode(data, "image config")
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in diff_ids):
        raise ImageInvalid("image config: no valid rootfs.diff_ids")
    return Config(digest_of(data), diff_ids, _run_config(document.get("config") or {}))


def _run_config(section: Any) -> ImageConfig:
    def texts(key: str) -> tuple[str, ...]:
        value = section.get(key) or ()
        if not isinstance(value, list | tuple | dict) or not all(isinstance(v, str) for v in value):
            raise ImageInvalid(f"image config: {key} is not a list of strings")
        return tuple(value)

    def text(key: str) -> str:
        value = section.get(key) or ""
        if not isinstance(value, str):
            raise ImageInvalid(f"image config: {key} is not a string")
        return value

    if not isinstance(section, dict):
        raise ImageInvalid("image config: config is not an object")
    return ImageConfig(
        entrypoint=texts("Entrypoint"),
        cmd=texts("Cmd"),
        env=texts("Env"),
        working_dir=text("WorkingDir"),
        user=text("User"),
        stop_signal=text("StopSignal"),
        volumes=texts("Volumes"),
    )
