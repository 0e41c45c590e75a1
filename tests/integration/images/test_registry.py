"""Pulling: from Debian's docker-registry, the real thing, and from a registry that misbehaves as told."""

from __future__ import annotations

import asyncio
import base64
import json
import platform
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nodeagent.images import build
from nodeagent.images.auth import Authorizer, Denied
from nodeagent.images.build import Entry
from nodeagent.images.endpoints import Registries
from nodeagent.images.manifest import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST, digest_of
from nodeagent.images.service import LocalImages
from nodeagent.runtime.interface import RegistryAuth, RuntimeFailure

pytestmark = pytest.mark.root


@pytest.fixture
async def images(tmp_path: Path) -> AsyncIterator[LocalImages]:
    service = LocalImages(tmp_path / "images")
    await service.start()
    yield service
    await service.close()


def image_files(*texts: str, corrupt: bool = False) -> tuple[bytes, dict[str, bytes]]:
    """An image with a layer a text: (manifest, every blob by digest)."""
    layers = [build.layer([Entry(f"file{i}", 0o100644, text)]) for i, text in enumerate(texts)]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }).encode()  # fmt: skip

    def described(data: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
    }).encode()  # fmt: skip
    blobs = {digest_of(blob): blob for blob in (*layers, config)}
    if corrupt:
        blobs[digest_of(layers[0])] = layers[0][:-1] + b"!"
    return manifest, blobs


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# -- the real thing ----------------------------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    """`127.0.0.1:port` of a docker-registry."""
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("docker-registry or skopeo is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    path = tmp_path / "registry.yml"
    path.write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(10)


async def answers(address: str) -> None:
    """Wait until the registry does."""
    async with asyncio.timeout(15), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://{address}/v2/") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


async def push(archive: Path, target: str, *options: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options]
    await asyncio.to_thread(subprocess.run, [*command, f"oci-archive:{archive}", f"docker://{target}"], check=True)


async def test_real_registry(images: LocalImages, real: str, tmp_path: Path) -> None:
    id_ = build.busybox(tmp_path / "busybox.tar")
    await answers(real)
    await push(tmp_path / "busybox.tar", f"{real}/team/busybox:1.35")
    pulled = await asyncio.gather(*(images.pull(f"{real}/team/busybox:1.35") for _ in range(5)))
    assert {image.id for image in pulled} == {id_}
    (image,) = await images.images()
    assert list(image.tags) == [f"{real}/team/busybox:1.35"]
    said = await asyncio.to_thread(
        subprocess.run, ["chroot", image.layers[0], "/bin/echo", "hi"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "hi\n"
    by_digest = await images.pull(image.digests[0])
    assert by_digest.id == id_
    assert list(images.content.blobs.iterdir()) == list(images.content.partial.iterdir()) == []
    await push(tmp_path / "busybox.tar", f"{real}/old:v2", "--format", "v2s2")  # Docker's media types
    old = await images.pull(f"{real}/old:v2")
    assert old.layers == image.layers
    with pytest.raises(RuntimeFailure) as caught:
        await images.pull(f"{real}/team/busybox:missing")
    assert caught.value.reason == "ErrImagePull" and "manifest unknown" in str(caught.value)
    assert (await images.status(f"{real}/team/busybox:1.35")) is not None


# -- one that misbehaves -----------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """A registry in this process. What it does is set by its fields."""

    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # by tag or digest: (media type, bytes)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    basic: str = ""  # user:password asked for at once
    bearer: str = ""  # user:password for tokens; "-" gives anonymous ones
    token: str = "t0"  # the one that is good now
    cut_after: int = 0  # break each blob's connection after so many bytes
    cut_resumed_after: int | None = None  # the same for requests of a range, if it differs
    fail: int = 0  # answer so many requests with 503
    release: asyncio.Event | None = None  # blobs wait for it,
    held: str = ""  # if this is in their path
    address: str = ""

    def add(self, tag: str, *texts: str, corrupt: bool = False) -> str:
        manifest, blobs = image_files(*texts, corrupt=corrupt)
        self.manifests[tag] = self.manifests[digest_of(manifest)] = (OCI_MANIFEST, manifest)
        self.blobs.update(blobs)
        return digest_of(manifest)

    def _refused(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if self.basic and sent != "Basic " + base64.b64encode(self.basic.encode()).decode():
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if self.bearer and sent != f"Bearer {self.token}":
            challenge = f'Bearer realm="http://{self.address}/token",service="reg, istry",scope="repository:a:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return None

    async def manifest(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if self.fail:
            self.fail -= 1
            return web.Response(status=503)
        refused = self._refused(request)
        if refused is not None:
            return refused
        found = self.manifests.get(request.match_info["name"])
        if found is None:
            return web.Response(status=404, text='{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        return web.Response(body=found[1], headers={"Content-Type": found[0]})

    async def blob(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        refused = self._refused(request)
        if refused is not None:
            return refused
        if self.release is not None and self.held in request.path:
            await self.release.wait()
        data = self.blobs[request.match_info["digest"]]
        wanted = request.headers.get("Range", "")
        start = int(wanted[6:-1]) if wanted else 0
        if wanted:
            self.ranges.append(wanted)
        response = web.StreamResponse(status=206 if wanted else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        cut = self.cut_after if not wanted or self.cut_resumed_after is None else self.cut_resumed_after
        if self.cut_after and len(data) - start > cut:
            await response.write(data[start : start + cut])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[start:])
        return response

    async def give_token(self, request: web.Request) -> web.Response:
        assert request.query["service"] == "reg, istry" and request.query["scope"] == "repository:a:pull"
        sent = request.headers.get("Authorization", "")
        if self.bearer != "-" and sent != "Basic " + base64.b64encode(self.bearer.encode()).decode():
            return web.Response(status=401)
        return web.json_response({"token": self.token})


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    registry = Scripted()
    application = web.Application()
    application.router.add_get("/v2/{repository:.+}/manifests/{name}", registry.manifest)
    application.router.add_get("/v2/{repository:.+}/blobs/{digest}", registry.blob)
    application.router.add_get("/token", registry.give_token)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    registry.address = "{}:{}".format(*runner.addresses[0])
    yield registry
    await runner.cleanup()


async def test_layers_stack_and_are_shared(images: LocalImages, scripted: Scripted) -> None:
    scripted.add("one", "base", "middle")
    scripted.add("two", "base", "middle", "top")
    first, second = await asyncio.gather(
        images.pull(f"{scripted.address}/a:one"), images.pull(f"{scripted.address}/b:two")
    )
    assert list(second.layers[1:]) == list(first.layers)
    texts = [Path(layer, f"file{2 - i}").read_text() for i, layer in enumerate(second.layers)]
    assert texts == ["top", "middle", "base"]
    before = len(scripted.requests)
    await images.pull(f"{scripted.address}/a:one")
    assert len(scripted.requests) == before + 2  # manifest and config; no layer


async def test_platform_is_chosen_from_an_index(images: LocalImages, scripted: Scripted) -> None:
    wanted, other = scripted.add("-w", "mine"), scripted.add("-o", "other")
    mine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    for tag, kind in (("oci", OCI_INDEX), ("docker", DOCKER_INDEX)):
        entries = [
            {"digest": other, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": wanted, "size": 1, "platform": {"os": "linux", "architecture": mine}},
        ]
        index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
        scripted.manifests[tag] = (kind, index)
        image = await images.pull(f"{scripted.address}/{tag}:{tag}")
        assert Path(image.layers[0], "file0").read_text() == "mine"
        assert f"{scripted.address}/{tag}@{digest_of(index)}" in image.digests


async def test_broken_connections_are_resumed(
    images: LocalImages, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.images.registry._BACKOFF_S", 0.001)
    scripted.add("x", "z" * 300_000)
    scripted.cut_after = 100_000
    scripted.fail = 2
    image = await images.pull(f"{scripted.address}/a:x")
    assert Path(image.layers[0], "file0").stat().st_size == 300_000
    assert scripted.ranges and len(set(scripted.ranges)) == len(scripted.ranges)


async def test_interrupted_pull_goes_on_after_a_restart(
    images: LocalImages, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.images.registry._BACKOFF_S", 0.001)
    scripted.add("x", "z" * 300_000)
    scripted.cut_after, scripted.cut_resumed_after = 200_000, 0
    with pytest.raises(RuntimeFailure) as caught:
        await images.pull(f"{scripted.address}/a:x")
    assert caught.value.reason == "RegistryUnavailable"
    await images.close()
    scripted.cut_after = 0
    scripted.ranges.clear()
    again = LocalImages(images.content.root)
    await again.start()
    await again.pull(f"{scripted.address}/a:x")
    await again.close()
    assert len(scripted.ranges) == 1 and scripted.ranges[0] != "bytes=0-"


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_credentials(images: LocalImages, scripted: Scripted, scheme: str) -> None:
    scripted.add("x", "secret")
    setattr(scripted, scheme, "robot:pass:word")
    name = f"{scripted.address}/a:x"
    wrong, right = RegistryAuth("robot", "guess"), RegistryAuth("robot", "pass:word")
    with pytest.raises(RuntimeFailure, match="401") as caught:
        await images.pull(name)
    assert caught.value.reason == "ErrImagePull"
    with pytest.raises(RuntimeFailure, match="401"):
        await images.pull(name, [wrong])
    assert (await images.pull(name, [wrong, right])).tags == (name,)


async def test_anonymous_token_and_one_that_expires(images: LocalImages, scripted: Scripted) -> None:
    scripted.add("x", "a", "b", "c")
    scripted.bearer = "-"
    scripted.release = asyncio.Event()
    pull = asyncio.ensure_future(images.pull(f"{scripted.address}/a:x"))
    await until(lambda: any("/blobs/" in path for path in scripted.requests))
    scripted.token = "t1"  # the one in use is no good any more
    scripted.release.set()
    assert len((await pull).layers) == 3


async def test_credentials_are_not_sent_to_a_foreign_token_server_in_the_clear(
    images: LocalImages, scripted: Scripted, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        authorizer = Authorizer(session, ssl.create_default_context(), [RegistryAuth("u", "p")], plain_http=False)
        with pytest.raises(Denied):
            await authorizer.answer(f'Bearer realm="http://{scripted.address}/token",service="reg, istry"', "s", "")


async def test_wrong_content_is_refused_and_leaves_nothing(images: LocalImages, scripted: Scripted) -> None:
    scripted.add("corrupt", "a", corrupt=True)
    digest = scripted.add("x", "b")
    scripted.manifests[digest] = (OCI_MANIFEST, scripted.manifests[digest][1] + b" ")
    manifest = json.loads(scripted.manifests["x"][1])
    manifest["layers"][0]["size"] = 10
    scripted.manifests["longer"] = (OCI_MANIFEST, json.dumps(manifest).encode())
    scripted.manifests["empty"] = (OCI_MANIFEST, b"")
    other, _ = image_files("other", "layers")
    manifest["layers"] = json.loads(other)["layers"]
    scripted.manifests["count"] = (OCI_MANIFEST, json.dumps(manifest).encode())
    scripted.blobs.update(image_files("other", "layers")[1])
    for name in ("a:corrupt", f"a@{digest}", "a:longer", "a:empty", "a:count"):
        with pytest.raises(RuntimeFailure) as caught:
            await images.pull(f"{scripted.address}/{name}")
        assert caught.value.reason == "ErrImagePull", name
    assert await images.images() == []
    for folder in (images.content.blobs, images.content.tmp, images.content.layers):
        assert list(folder.iterdir()) == []


async def test_mirrors_are_tried_first_and_passed_over_when_down(scripted: Scripted, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        dead = f"127.0.0.1:{probe.getsockname()[1]}"
    scripted.add("x", "from the mirror")
    registries = Registries(mirrors={"docker.io": [f"http://{dead}", f"http://{scripted.address}"]})
    images = LocalImages(tmp_path / "images", registries=registries)
    await images.start()
    image = await images.pull("site:x")
    assert image.tags == ("docker.io/library/site:x",)
    with pytest.raises(RuntimeFailure) as caught:
        await images.pull(f"{dead}/a:x")
    assert caught.value.reason == "RegistryUnavailable"
    await images.close()


async def test_pull_goes_on_when_one_who_waits_gives_up(images: LocalImages, scripted: Scripted) -> None:
    scripted.add("x", "a")
    scripted.release = asyncio.Event()
    name = f"{scripted.address}/a:x"
    impatient, patient = asyncio.ensure_future(images.pull(name)), asyncio.ensure_future(images.pull(name))
    await until(lambda: bool(scripted.requests))
    impatient.cancel()
    scripted.release.set()
    assert (await patient).tags == (name,)
    assert len([path for path in scripted.requests if "/manifests/" in path]) == 1


async def test_removal_spares_what_a_running_pull_needs(images: LocalImages, scripted: Scripted) -> None:
    scripted.add("small", "base")
    scripted.add("big", "base", "top")
    await images.pull(f"{scripted.address}/a:small")
    top = digest_of(build.layer([Entry("file1", 0o100644, "top")]))
    scripted.held = top
    scripted.release = asyncio.Event()
    pull = asyncio.ensure_future(images.pull(f"{scripted.address}/a:big"))
    await until(lambda: any(top in path for path in scripted.requests))
    await images.remove(f"{scripted.address}/a:small")
    scripted.release.set()
    image = await pull
    assert [Path(layer, f"file{1 - i}").read_text() for i, layer in enumerate(image.layers)] == ["top", "base"]
