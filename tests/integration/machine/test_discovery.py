"""Whom a machine trusts that knows an address and a pin: servers that lie, and that say nothing useful."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.cli.machine.discovery import check_pins, discover, server_url
from controlplane.cli.machine.trouble import Trouble
from pki import profiles
from pki.authority import Authority, pin

NOW = datetime.now(UTC)
CA, OTHER = Authority.create(NOW), Authority.create(NOW, "other")


def cluster_info(*authorities: Authority) -> bytes:
    bundle = base64.b64encode(b"".join(each.pem() for each in authorities)).decode()
    kubeconfig = {"clusters": [{"name": "", "cluster": {"certificate-authority-data": bundle, "server": "https://x"}}]}
    return json.dumps(
        {"data": {"kubeconfig": json.dumps(kubeconfig), "wherry": '{"clusterCIDR": "10.1.0.0/16"}'}}
    ).encode()


@contextlib.asynccontextmanager
async def server(folder: Path, identity: Authority, *answers: tuple[int, bytes]) -> AsyncIterator[str]:
    """An HTTPS server with a certificate of `identity` that gives `answers` one by one, the last for ever."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            status, body = left.pop(0) if len(left) > 1 else left[0]
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    path = folder / "server.pem"
    path.write_bytes(identity.issue(profiles.APISERVER, NOW, names=["127.0.0.1"]).pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await listening.wait_closed()


async def test_the_pinned_authority_is_taken_out_of_a_bundle(tmp_path: Path) -> None:
    async with server(tmp_path, CA, (200, cluster_info(OTHER, CA))) as url:
        found = await discover(url, [pin(CA.certificate).upper().replace("SHA256", "sha256")], 5)
    assert (found.ca, found.pin, found.settings) == (CA.pem(), pin(CA.certificate), {"clusterCIDR": "10.1.0.0/16"})


async def test_another_authority_is_refused(tmp_path: Path) -> None:
    async with server(tmp_path, OTHER, (200, cluster_info(OTHER))) as url:
        with pytest.raises(Trouble, match="wrong hash"):
            await discover(url, [pin(CA.certificate)], 5)


async def test_who_only_repeats_what_the_cluster_says_is_found_out(tmp_path: Path) -> None:
    """The information is public: anybody can hand out the right CA. But not show a certificate that it signed."""
    async with server(tmp_path, OTHER, (200, cluster_info(CA))) as url:
        with pytest.raises(Trouble, match="cannot prove that it belongs to the cluster"):
            await discover(url, [pin(CA.certificate)], 5)


async def test_a_cluster_that_is_just_coming_up_is_waited_for(tmp_path: Path) -> None:
    answers = [(404, b"{}"), (503, b"{}"), (200, cluster_info(CA))]
    async with server(tmp_path, CA, *answers) as url:
        assert (await discover(url, [pin(CA.certificate)], 10)).pin == pin(CA.certificate)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"{}"), "says nothing of itself"),
        ((403, b"{}"), "does not tell strangers"),
        ((200, b'{"data": {}}'), "cannot be used"),
        ((200, b'{"data": {"kubeconfig": "a: [b"}}'), "cannot be used"),
        ((200, b'{"data": {"kubeconfig": "{}"}}'), "cannot be used"),
    ],
)
async def test_what_cannot_be_used(tmp_path: Path, answer: tuple[int, bytes], words: str) -> None:
    async with server(tmp_path, CA, answer) as url:
        with pytest.raises(Trouble, match=words) as trouble:
            await discover(url, [pin(CA.certificate)], 0.5)
    assert str(trouble.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("10.0.0.1:6443", "https://10.0.0.1:6443"),
        ("https://cp.example:443/", "https://cp.example:443"),
        ("[fd00::1]:6443", "https://[fd00::1]:6443"),
    ],
)
def test_addresses(given: str, url: str) -> None:
    assert server_url(given) == url


@pytest.mark.parametrize("given", ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:99999", "a b:1", "x:y"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(Trouble):
        server_url(given)


@pytest.mark.parametrize("given", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "g" * 64, "0" * 64])
def test_what_is_no_pin(given: str) -> None:
    with pytest.raises(Trouble):
        check_pins([given])
