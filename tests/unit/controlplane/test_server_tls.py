"""A server's certificate and client CA are replaced while it listens: over real TLS, by event loop and by uvloop."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from cryptography import x509

from controlplane import tls
from controlplane.tls import ServerTls
from pki import profiles
from pki.authority import Authority

NOW = datetime.now(UTC)
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = Authority.create(NOW)
        self.serve(self.ca)
        self.trust(self.ca)
        self.tls = ServerTls(str(folder / "s.pem"), str(folder / "s.pem"), str(folder / "ca.crt"), alpn=["http/1.1"])

    def serve(self, ca: Authority) -> None:
        issued = ca.issue(profiles.APISERVER, NOW, names=["127.0.0.1", "localhost"])
        (self.folder / "s.pem").write_bytes(issued.pem())

    def trust(self, ca: Authority) -> None:
        (self.folder / "ca.crt").write_bytes(ca.pem())

    def client(self, trusts: Authority, shows: Authority | None, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=trusts.pem().decode())
        context.minimum_version = context.maximum_version = version
        if shows:
            file = self.folder / "client.pem"
            file.write_bytes(shows.issue(profiles.ADMIN, NOW).pem())
            context.load_cert_chain(file)
        return context

    async def ask(self, client: ssl.SSLContext) -> tuple[int, str]:
        """(serial number that the server showed, name that it saw). Raises OSError when refused."""
        host, port = self.server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port, ssl=client)  # by address: names no server
        try:
            said = (await reader.readline()).decode().strip()
            if not said:
                raise ConnectionError("refused")
            der = writer.get_extra_info("ssl_object").getpeercert(True)
            return x509.load_der_x509_certificate(der).serial_number, said
        finally:
            writer.close()

    async def listen(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            shown = writer.get_extra_info("peercert") or {}
            names = [v for part in shown.get("subject", ()) for k, v in part if k == "commonName"]
            writer.write((names[0] if names else "nobody").encode() + b"\n")
            await writer.drain()
            writer.close()

        self.server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=self.tls.context)


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run a coroutine on one or the other event loop."""

    def run(work: Callable[[], Awaitable[None]]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work())  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_replaced_at_once(
    tmp_path: Path, version: ssl.TLSVersion, play: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    rig = Rig(tmp_path)

    async def work() -> None:
        await rig.listen()
        old = rig.client(rig.ca, rig.ca, version)
        first, seen = await rig.ask(old)
        assert seen == "kubernetes-admin"
        assert (await rig.ask(rig.client(rig.ca, None, version)))[1] == "nobody"
        rig.serve(rig.ca)
        assert (await rig.ask(old))[0] == first, "not before it is told"
        rig.tls.reload()
        second, seen = await rig.ask(old)
        assert (second != first, seen) == (True, "kubernetes-admin")
        new = Authority.create(NOW, "another-ca")
        rig.serve(new)
        rig.trust(new)
        rig.tls.reload()
        assert (await rig.ask(rig.client(new, new, version)))[1] == "kubernetes-admin"
        with pytest.raises(OSError):
            await rig.ask(rig.client(new, rig.ca, version))  # a CA that is trusted no longer
        rig.server.close()

    play(work)


async def test_what_cannot_be_used_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(tmp_path)
    await rig.listen()
    first, _ = await rig.ask(rig.client(rig.ca, None, VERSIONS[1]))
    (tmp_path / "s.pem").write_text("half a file")
    with pytest.raises(OSError):
        rig.tls.reload()
    assert not rig.tls.try_reload()
    assert "certificate_not_loaded" in caplog.text
    assert (await rig.ask(rig.client(rig.ca, None, VERSIONS[1])))[0] == first
    rig.server.close()


async def test_a_replaced_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK_S", 0.005)
    rig = Rig(tmp_path)
    await rig.listen()
    client = rig.client(rig.ca, None, VERSIONS[1])
    first, _ = await rig.ask(client)
    changed = asyncio.Event()
    task = asyncio.create_task(rig.tls.follow(changed.set))
    rig.serve(rig.ca)
    async with asyncio.timeout(5):
        await changed.wait()
    assert (await rig.ask(client))[0] != first
    task.cancel()
    rig.server.close()


def test_a_missing_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        ServerTls(str(tmp_path / "none.pem"), str(tmp_path / "none.pem"), "")
