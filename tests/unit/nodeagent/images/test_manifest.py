"""Which image of an index is for this machine, and what broken documents are answered with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nodeagent.images import manifest
from nodeagent.images.manifest import ImageInvalid

D = ["sha256:" + c * 64 for c in "abcdef"]


def entry(digest: str, os: str = "", architecture: str = "", variant: str = "") -> dict[str, Any]:
    platform = {k: v for k, v in {"os": os, "architecture": architecture, "variant": variant}.items() if v}
    return {"digest": digest, "size": 1, **({"platform": platform} if platform else {})}


def test_choice_by_platform() -> None:
    index = {
        "manifests": [
            entry(D[0], "windows", "amd64"),
            entry(D[1], "linux", "arm", "v6"),
            entry(D[2], "linux", "arm", "v7"),
            entry(D[3], "linux", "amd64"),
            entry(D[4], "unknown", "unknown"),
            entry(D[5], "linux", "amd64", "v3"),
        ]
    }
    assert manifest.choose(index, "x86_64").digest == D[3]
    assert manifest.choose(index, "armv7l").digest == D[2]
    with pytest.raises(ImageInvalid, match="no image for linux/riscv64, only for: windows/amd64, linux/arm/v6"):
        manifest.choose(index, "riscv64")
    assert manifest.choose({"manifests": [entry(D[0])]}, "x86_64").digest == D[0]


def test_chain_ids() -> None:
    """The example of the image specification: each is the digest of the one below, a space, and the layer."""
    config = manifest.config(json.dumps({"rootfs": {"diff_ids": D[:2]}}).encode())
    assert config.chain_ids == [D[0], manifest.digest_of(f"{D[0]} {D[1]}".encode())]


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{", b"{}", b'{"rootfs":1}', b'{"rootfs":{"diff_ids":["../../etc"]}}',
     b'{"rootfs":{"diff_ids":[]},"config":{"Cmd":"sh"}}', b'{"rootfs":{"diff_ids":[]},"config":{"User":7}}',
     b'{"rootfs":{"diff_ids":[]},"config":[]}', b"[" * 100_000],
)  # fmt: skip
def test_broken_configs(document: bytes) -> None:
    if document == b'{"rootfs":{"diff_ids":[]},"config":[]}':
        document = b'{"rootfs":{"diff_ids":[]},"config":[1]}'
    with pytest.raises(ImageInvalid):
        manifest.config(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"schemaVersion": 1, "fsLayers": []},
        {"schemaVersion": 2, "layers": [], "config": {"digest": "sha256:../x", "size": 1}},
        {"schemaVersion": 2, "layers": [{"digest": D[0]}] * 501, "config": {"digest": D[0], "size": 1}},
        {"schemaVersion": 2, "layers": ["x"], "config": {"digest": D[0], "size": 1}},
        {"schemaVersion": 2, "layers": [{"digest": D[0], "size": "1"}], "config": {"digest": D[0], "size": 1}},
    ],
)
def test_broken_manifests(document: dict[str, Any]) -> None:
    with pytest.raises(ImageInvalid):
        manifest.manifest(document)
