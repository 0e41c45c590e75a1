"""Settings in hosts.toml against Debian's docker-registry, with TLS by a private CA and client certificates."""

from __future__ import annotations

import asyncio
import datetime
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nodeagent.images import build
from nodeagent.images.endpoints import Registries
from nodeagent.images.service import LocalImages
from nodeagent.runtime.interface import RuntimeFailure
from pki import profiles, provision
from pki.layout import Layout

pytestmark = pytest.mark.root


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """`127.0.0.1:port` of a docker-registry that shows and wants certificates: ca.pem, client.pem in tmp_path."""
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("docker-registry or skopeo is not installed")
    now = datetime.datetime.now(datetime.UTC)
    ca = provision.authority(Layout.under(tmp_path / "pki"), now)
    server = ca.issue(profiles.NODEAGENT_SERVER, now, node="n", names=["127.0.0.1"])
    client = ca.issue(profiles.ADMIN, now)
    shutil.copy(Layout.under(tmp_path / "pki").ca_cert, tmp_path / "ca.pem")
    for name, issued in (("server", server), ("client", client)):
        (tmp_path / f"{name}.crt").write_bytes(issued.certificate)
        (tmp_path / f"{name}.key").write_bytes(issued.key)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    tls = {
        "certificate": str(tmp_path / "server.crt"),
        "key": str(tmp_path / "server.key"),
        "clientcas": [str(tmp_path / "ca.pem")],
    }
    path = tmp_path / "registry.yml"
    path.write_text(json.dumps({
        "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address, "tls": tls},
    }))  # fmt: skip
    process = subprocess.Popen(["docker-registry", "serve", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(10)


async def push(tmp_path: Path, address: str, image: str, *options: str) -> None:
    """busybox, with skopeo, once the registry answers."""
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    host, _, port = address.partition(":")
    async with asyncio.timeout(15):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port), ssl=context)
                writer.close()
                await writer.wait_closed()
                break
            except OSError:
                await asyncio.sleep(0.02)
    certificates = tmp_path / "certs.d"
    certificates.mkdir(exist_ok=True)
    for source, target in (("ca.pem", "ca.crt"), ("client.crt", "client.cert"), ("client.key", "client.key")):
        shutil.copy(tmp_path / source, certificates / target)
    command = ["skopeo", "--insecure-policy", "copy", "-q", f"--dest-cert-dir={certificates}", *options]
    source = f"oci-archive:{tmp_path / 'busybox.tar'}"
    await asyncio.to_thread(subprocess.run, [*command, source, f"docker://{address}/{image}"], check=True)


@pytest.fixture
async def images(tmp_path: Path) -> AsyncIterator[LocalImages]:
    (tmp_path / "config").mkdir()
    service = LocalImages(tmp_path / "images", registries=Registries(config_dir=str(tmp_path / "config")))
    await service.start()
    yield service
    await service.close()


async def test_private_ca_and_client_certificate_for_registry_and_mirror(
    images: LocalImages, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.images.registry._BACKOFF_S", 0.01)
    id_ = build.busybox(tmp_path / "busybox.tar")
    await push(tmp_path, registry, "team/busybox:zstd", "--dest-compress-format=zstd", "--format=oci")
    with pytest.raises(RuntimeFailure):  # nobody has said whom to trust
        await images.pull(f"{registry}/team/busybox:zstd")
    folder = tmp_path / "config" / registry
    folder.mkdir()
    text = f'server = "https://{registry}"\nca = "{tmp_path}/ca.pem"\n'
    (folder / "hosts.toml").write_text(text)
    with pytest.raises(RuntimeFailure):  # trusted, but we show nothing
        await images.pull(f"{registry}/team/busybox:zstd")
    text += f'client = [["{tmp_path}/client.crt", "{tmp_path}/client.key"]]\n'
    (folder / "hosts.toml").write_text(text)
    assert (await images.pull(f"{registry}/team/busybox:zstd")).id == id_

    mirrored = tmp_path / "config" / "example.test"
    mirrored.mkdir()
    (mirrored / "hosts.toml").write_text(f"""
        [host."https://{registry}"]
        ca = ["../../ca.pem"]
        client = [["../../client.crt", "../../client.key"]]
    """)
    image = await images.pull("example.test/team/busybox:zstd")
    assert image.id == id_
    assert "example.test/team/busybox:zstd" in image.tags
