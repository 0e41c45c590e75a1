"""Layers to directories: what overlay then shows, and what a hostile archive does not get."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from nodeagent.images.manifest import ImageInvalid, digest_of
from nodeagent.images.unpack import unpack

pytestmark = pytest.mark.root

Stack = Callable[..., Path]
Make = Callable[..., bytes]


def merged(*layers: Path) -> list[str]:
    """What a container sees of `layers` (topmost first): the kernel's own answer, in a mount namespace of its own."""
    mounts = 'mount -t tmpfs x /mnt && mkdir /mnt/m && mount -t overlay -o ro,lowerdir="$1" x /mnt/m'
    script = mounts + " && cd /mnt/m && find . | sort"
    lower = ":".join(str(layer) for layer in layers)
    if len(layers) == 1:
        lower += ":" + str(layers[0].parent / "empty")
        (layers[0].parent / "empty").mkdir(exist_ok=True)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", lower],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line[2:] for line in done.stdout.splitlines()[1:]]


def test_kinds_modes_owners_times_and_links(stack: Stack) -> None:
    layer = stack(
        ("bin", "dir"),
        ("bin/su", "file", "setuid", {"mode": 0o4755, "uid": 7, "gid": 8, "mtime": 12_345}),
        ("bin/su2", "hard", "bin/su"),
        ("bin/ln", "link", "/bin/su"),
        ("tmp", "dir", "", {"mode": 0o1777, "mtime": 999}),
        ("tmp/pipe", "fifo"),
        ("home", "file", "utf-8 \u00e4", {"uid": 3}),
    )
    su = (layer / "bin/su").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_gid, su.st_mtime) == (0o4755, 7, 8, 12_345)
    assert (layer / "bin/su2").stat().st_ino == su.st_ino
    assert os.readlink(layer / "bin/ln") == "/bin/su"
    assert stat.S_IMODE((layer / "tmp").stat().st_mode) == 0o1777 and (layer / "tmp").stat().st_mtime == 999
    assert stat.S_ISFIFO((layer / "tmp/pipe").stat().st_mode)
    assert stat.S_IMODE(layer.stat().st_mode) == 0o755


def test_whiteouts_as_the_kernel_sees_them(stack: Stack) -> None:
    low = stack(("a", "dir"), ("a/x", "file"), ("a/y", "file"), ("b", "dir"), ("b/x", "file"), ("c", "file"),
                ("d", "dir"), ("d/x", "file"), ("e", "dir"), ("e/x", "file"))  # fmt: skip
    top = stack(("a/.wh.x", "file"), ("b", "dir"), ("b/.wh..wh..opq", "file"), ("b/new", "file"), (".wh.c", "file"),
                (".wh.d", "file"), ("d", "dir"), ("d/z", "file"), ("e", "dir"), ("e/z", "file"), (".wh.e", "file"),
                (".wh..wh.plnk", "dir"), (".wh..wh.aufs", "file"))  # fmt: skip
    assert merged(top, low) == ["a", "a/y", "b", "b/new", "d", "d/z", "e", "e/z"]


def test_directories_that_no_entry_describes_are_as_below(stack: Stack) -> None:
    stack(("tmp", "dir", "", {"mode": 0o1777, "uid": 5, "mtime": 77}), ("lib", "link", "usr/lib"), ("usr/lib", "dir"))
    top = stack(("tmp/x", "file"), ("lib/y", "file"), ("new/deep/z", "file"))
    tmp = (top / "tmp").stat()
    assert (stat.S_IMODE(tmp.st_mode), tmp.st_uid, tmp.st_mtime) == (0o1777, 5, 77)
    assert (top / "usr/lib/y").is_file() and not (top / "lib").exists()
    assert stat.S_IMODE((top / "new/deep").stat().st_mode) == 0o755


def test_below_respects_whiteouts(stack: Stack) -> None:
    stack(("d", "dir", "", {"mode": 0o700}), ("e", "dir"), ("e/f", "dir", "", {"mode": 0o700}))
    stack((".wh.d", "file"), ("e", "dir"), ("e/.wh..wh..opq", "file"))
    top = stack(("d/x", "file"), ("e/f/x", "file"))
    assert stat.S_IMODE((top / "d").stat().st_mode) == stat.S_IMODE((top / "e/f").stat().st_mode) == 0o755


def test_hard_link_to_a_lower_layer_brings_the_file_up(stack: Stack) -> None:
    stack(("bin", "dir"), ("bin/a", "file", "content", {"mode": 0o4711, "uid": 9}))
    top = stack(("bin/b", "hard", "bin/a"))
    assert (top / "bin/b").read_text() == "content" and (top / "bin/a").stat().st_ino == (top / "bin/b").stat().st_ino
    assert stat.S_IMODE((top / "bin/b").stat().st_mode) == 0o4711 and (top / "bin/b").stat().st_uid == 9


def test_later_entries_replace_earlier_ones(stack: Stack) -> None:
    layer = stack(("a", "dir"), ("a/x", "file"), ("a", "file", "now a file"), ("b", "file"), ("b", "dir"),
                  ("b/y", "file"), ("c", "link", "b"), ("c", "file", "no link"), ("d", "file", "1"), ("d", "file", "2"),
                  ("e", "file"), ("e", "hard", "e"))  # fmt: skip
    assert (layer / "a").read_text() == "now a file" and (layer / "b/y").is_file()
    assert (layer / "c").read_text() == "no link" and (layer / "d").read_text() == "2"


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", "file")],
        [("a/../../evil", "file")],
        [("a", "dir"), ("b", "hard", "../../etc/passwd")],
        [("b", "hard", "/etc/passwd")],
        [("b", "hard", "")],
        [("b", "hard", "missing")],
        [("a", "dir"), ("b", "hard", "a")],
        [("a/.wh...", "file")],
        [("a/.wh..", "file")],
        [(".wh.", "file")],
        [(".wh.d/x", "file")],
        [("loop", "link", "loop"), ("loop/x", "file")],
    ],
)
def test_hostile_archives_are_refused(stack: Stack, entries: list[tuple[str, ...]], tmp_path: Path) -> None:
    outside = {str(p) for p in tmp_path.parent.rglob("*")}
    with pytest.raises(ImageInvalid):
        stack(*entries)
    assert not {p for p in map(str, tmp_path.parent.rglob("*")) if "layer" not in p} - outside


def test_symbolic_links_never_lead_out(stack: Stack, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    up = "../" * 20 + str(outside).lstrip("/")
    layer = stack(
        ("abs", "link", str(outside)),
        ("abs/one", "file", "1"),
        ("rel", "link", up),
        ("rel/two", "file", "2"),
        ("rel/.wh.victim", "file"),
        ("rel/.wh..wh..opq", "file"),
        ("victim", "link", str(outside / "victim")),
        ("victim", "file", "replaced"),
        ("chained", "link", "abs"),
        ("chained/three", "file", "3"),
        ("x", "link", str(outside / "victim")),
        ("y", "hard", "x"),
    )
    assert [p.name for p in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_text() == "untouched" and (outside / "victim").stat().st_nlink == 1
    inside = layer / str(outside).lstrip("/")
    assert sorted(p.name for p in inside.iterdir()) == ["one", "three", "two", "victim"]
    assert (layer / "victim").read_text() == "replaced" and os.path.islink(layer / "y")


def test_links_of_a_lower_layer_never_lead_out(stack: Stack, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    stack(("abs", "link", str(outside)), ("f", "link", "/etc/passwd"))
    top = stack(("abs/one", "file", "1"))
    assert list(outside.iterdir()) == []
    assert (top / str(outside).lstrip("/") / "one").is_file()
    with pytest.raises(ImageInvalid):
        stack(("g", "hard", "f"))


def test_device_nodes_and_foreign_attributes_are_left_out(stack: Stack) -> None:
    attributes = {
        "SCHILY.xattr.user.note": "kept",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.security.selinux": "x",
    }
    layer = stack(
        ("dev", "dir", "", {"pax": attributes}),
        ("dev/mem", "chr", (1, 1)),
        ("dev/hidden", "chr", (0, 0)),
        ("f", "file"),
    )
    assert list((layer / "dev").iterdir()) == []
    kept = os.listxattr(layer / "dev")
    assert not [name for name in kept if not name.startswith("user.")]


def test_file_capabilities_are_kept(stack: Stack) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # v2, cap_net_raw, permitted and effective
    text = capability.decode("utf-8", "surrogateescape")
    layer = stack(("ping", "file", "x", {"pax": {"SCHILY.xattr.security.capability": text}}))
    assert os.getxattr(layer / "ping", "security.capability") == capability


def test_compressions_and_digest(archive: Make, tmp_path: Path) -> None:
    data = archive(("f", "file", "x" * 100_000))
    for number, packed in enumerate((data, zstandard.compress(data))):
        target = tmp_path / str(number)
        target.mkdir()
        assert unpack(io.BytesIO(packed), target, [], digest_of(data)) == len(data)
        assert (target / "f").stat().st_size == 100_000


@pytest.mark.parametrize("damage", ["digest", "cut", "cut gzip", "cut zstd", "no tar", "flipped", "large", "huge uid"])
def test_broken_archives_are_refused(archive: Make, tmp_path: Path, damage: str) -> None:
    data = archive(("f", "file", "x" * 100_000))
    digest = digest_of(data)
    packed, limit = data, 1 << 30
    if damage == "digest":
        packed += b"\0"
    elif damage == "cut":
        packed = data[:50_000]
    elif damage == "cut gzip":
        packed = gzip.compress(data)[:-20]
    elif damage == "cut zstd":
        packed = zstandard.compress(data)[:-5]
    elif damage == "no tar":
        packed, digest = b"hello " * 1000, digest_of(b"hello " * 1000)
    elif damage == "flipped":
        packed = data[:300] + b"\xff" + data[301:]
    elif damage == "huge uid":
        packed = archive(("f", "file", "x", {"uid": 1 << 40}))
        digest = digest_of(packed)
    else:
        limit = 1000
    with pytest.raises(ImageInvalid):
        unpack(io.BytesIO(packed), tmp_path, [], digest, limit)
