"""The image service on archives: load, names, restarts, removal, preload."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane import clock
from nodeagent.images import build, state
from nodeagent.images.build import Entry
from nodeagent.images.manifest import ImageInvalid
from nodeagent.images.service import LocalImages
from nodeagent.runtime.interface import ImageConfig, NotFound, RuntimeFailure

pytestmark = pytest.mark.root


@pytest.fixture
async def images(tmp_path: Path) -> AsyncIterator[LocalImages]:
    service = LocalImages(tmp_path / "images")
    await service.start()
    yield service
    await service.close()


def site(path: Path, text: str = "hello", name: str = "site:1") -> str:
    """A small image in a tar; returns its id."""
    config = ImageConfig(entrypoint=("/bin/serve",), cmd=("-v",), env=("A=1",), working_dir="/w", user="7:8",
                         stop_signal="SIGQUIT", volumes=("/data",))  # fmt: skip
    return build.build(path, [Entry("index.html", 0o100644, text)], config, name)


def layers_of(service: LocalImages) -> list[str]:
    return sorted(path.name for path in service.content.layers.iterdir())


async def test_busybox_image_runs_from_its_layers(images: LocalImages, tmp_path: Path) -> None:
    id_ = build.busybox(tmp_path / "busybox.tar")
    (image,) = await images.load(str(tmp_path / "busybox.tar"))
    assert (image.id, list(image.tags)) == (id_, ["docker.io/library/busybox:1.35"])
    assert image.config.cmd == ("sh",) and image.digests[0].startswith("docker.io/library/busybox@sha256:")
    (layer,) = image.layers
    said = await asyncio.to_thread(
        subprocess.run, ["chroot", layer, "/bin/echo", "it runs"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "it runs\n"
    assert len(list((Path(layer) / "bin").iterdir())) > 200
    again = tmp_path / "again.tar"
    assert build.busybox(again) == id_ and again.read_bytes() == (tmp_path / "busybox.tar").read_bytes()
    for name in ("busybox:1.35", id_, id_[7:], image.digests[0]):
        found = await images.status(name)
        assert found is not None and found.id == id_
    assert await images.status("busybox") is None


async def test_other_tools_accept_what_build_makes(tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    site(tmp_path / "site.tar")
    said = await asyncio.to_thread(
        subprocess.run,
        ["skopeo", "inspect", "--config", f"oci-archive:{tmp_path}/site.tar"], capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(said.stdout)["config"]["Entrypoint"] == ["/bin/serve"]


async def test_config_is_read_back(images: LocalImages, tmp_path: Path) -> None:
    site(tmp_path / "site.tar")
    (image,) = await images.load(str(tmp_path / "site.tar"))
    assert image.config == ImageConfig(("/bin/serve",), ("-v",), ("A=1",), "/w", "7:8", "SIGQUIT", ("/data",))
    assert image.size_bytes > 100


async def test_docker_archive_and_layout_directory(images: LocalImages, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    id_ = site(tmp_path / "site.tar")

    def copy(target: str) -> None:
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{tmp_path}/site.tar", target], check=True
        )

    await asyncio.to_thread(copy, f"docker-archive:{tmp_path}/docker.tar:example.com/site:docker")
    await asyncio.to_thread(copy, f"oci:{tmp_path}/layout:v7")
    (docker,) = await images.load(str(tmp_path / "docker.tar"))
    assert list(docker.tags) == ["example.com/site:docker"] and not docker.digests
    (layout,) = await images.load(str(tmp_path / "layout"))
    assert docker.id == layout.id == id_  # one image by two names
    assert list(layout.tags) == ["example.com/site:docker", "docker.io/library/layout:v7"]
    assert (Path(docker.layers[0]) / "index.html").read_text() == "hello"
    assert docker.layers == layout.layers  # the same layer is kept once


async def test_restart_finds_everything_and_clears_leftovers(images: LocalImages, tmp_path: Path) -> None:
    id_ = site(tmp_path / "site.tar")
    await images.load(str(tmp_path / "site.tar"))
    (images.content.tmp / "leftover").mkdir()
    (images.content.layers / "stranger").mkdir()
    again = LocalImages(tmp_path / "images")
    await again.start()
    found = await again.status("site:1")
    assert found is not None and found.id == id_ and Path(found.layers[0], "index.html").exists()
    assert list(again.content.tmp.iterdir()) == [] and len(layers_of(again)) == 1
    shutil.rmtree(found.layers[0])
    await again.close()
    await again.start()
    assert await again.status("site:1") is None  # a damaged image is as none
    await again.close()


async def test_downloads_that_nobody_goes_on_with_are_given_up(images: LocalImages) -> None:
    now = clock.wall_time()
    for name, age_s in (("old", 90_000), ("new", 3_600)):
        path = images.content.partial / name
        path.touch()
        os.utime(path, (now - age_s, now - age_s))
    images.content.forget_partial(now)
    assert [path.name for path in images.content.partial.iterdir()] == ["new"]


async def test_unsettled_images_are_not_trusted_after_a_power_cut(
    images: LocalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site(tmp_path / "one.tar", "one", "site:1")
    site(tmp_path / "two.tar", "two", "site:2")
    await images.load(str(tmp_path / "one.tar"))
    path = images.content.root / "state.json"
    document = json.loads(path.read_text())
    for image in document["images"].values():
        image["settled"] = True
    path.write_text(json.dumps(document))
    again = LocalImages(tmp_path / "images")
    await again.start()
    await again.load(str(tmp_path / "two.tar"))
    await again.close()
    monkeypatch.setattr(state, "boot_id", lambda: "another boot")
    await again.start()
    assert [image.tags for image in await again.images()] == [("docker.io/library/site:1",)]
    await again.close()


async def test_a_name_moves_to_the_newest_image(images: LocalImages, tmp_path: Path) -> None:
    old, new = site(tmp_path / "old.tar", "old"), site(tmp_path / "new.tar", "new")
    await images.load(str(tmp_path / "old.tar"))
    await images.load(str(tmp_path / "new.tar"))
    by_id = {image.id: list(image.tags) for image in await images.images()}
    assert by_id == {old: [], new: ["docker.io/library/site:1"]}


async def test_removing(images: LocalImages, tmp_path: Path) -> None:
    id_ = site(tmp_path / "a.tar", name="a:1")
    site(tmp_path / "b.tar", name="b:1")
    other = site(tmp_path / "c.tar", "other", "c:1")
    for name in ("a", "b", "c"):
        await images.load(str(tmp_path / f"{name}.tar"))
    assert len(layers_of(images)) == 2
    await images.remove("a:1")
    found = await images.status(id_)
    assert found is not None and list(found.tags) == ["docker.io/library/b:1"]
    await images.remove("b:1")
    assert await images.status(id_) is None and len(layers_of(images)) == 1
    await images.remove(other)
    await images.remove("never-there")
    assert await images.images() == [] and layers_of(images) == []


async def test_preload_once_and_survives_a_broken_archive(tmp_path: Path) -> None:
    preload = tmp_path / "preload"
    preload.mkdir()
    site(preload / "a.tar", name="a:1")
    (preload / "broken.tar").write_bytes(b"nothing")
    images = LocalImages(tmp_path / "images", preload=preload)
    await images.start()
    assert [list(i.tags) for i in await images.images()] == [["docker.io/library/a:1"]]
    await images.remove("a:1")
    await images.close()
    await images.start()
    assert await images.images() == []  # removed is removed, until the archive changes
    site(preload / "a.tar", "changed", name="a:1")
    await images.close()
    await images.start()
    assert len(await images.images()) == 1
    await images.close()


async def test_broken_archives_are_refused_and_leave_nothing(images: LocalImages, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure):
        await images.load(str(tmp_path / "missing.tar"))
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(ImageInvalid):
        await images.load(str(tmp_path / "text.tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageInvalid):
        await images.load(str(tmp_path / "empty"))
    layout = tmp_path / "layout"
    site(tmp_path / "site.tar")
    shutil.unpack_archive(tmp_path / "site.tar", layout)
    for blob in (layout / "blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            blob.write_bytes(blob.read_bytes()[:-30])
    with pytest.raises(ImageInvalid):
        await images.load(str(layout))
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = []
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(NotFound):
        await images.load(str(layout))
    assert await images.images() == [] and layers_of(images) == [] and list(images.content.tmp.iterdir()) == []


async def test_preloaded_image_that_a_power_failure_may_have_damaged_is_loaded_again(tmp_path: Path) -> None:
    preload = tmp_path / "preload"
    preload.mkdir()
    site(preload / "a.tar", name="a:1")
    images = LocalImages(tmp_path / "images", preload=preload)
    await images.start()
    assert await images.status("a:1")
    await images.close()
    saved = tmp_path / "images" / "state.json"
    state = json.loads(saved.read_text())
    saved.write_text(json.dumps({**state, "boot_id": "the boot before"}))  # at whose end it was not settled yet

    images = LocalImages(tmp_path / "images", preload=preload)
    await images.start()
    assert await images.status("a:1")
    await images.close()
