"""The pki end to end: what it issues OpenSSL accepts over a TLS connection, and refuses when it should."""

import json
import os
import ssl
import stat
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pki import profiles, provision, tokens
from pki.authority import Authority
from pki.files import write_secret
from pki.keys import NotAKey, load_key, new_key
from pki.layout import Layout

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority.create(NOW)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """Run both ends of a TLS handshake in memory; returns the client's certificate as the server saw it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    s = server.wrap_bio(to_server, to_client, server_side=True)
    c = client.wrap_bio(to_client, to_server, server_hostname=name)
    pending = [c, s]
    for _ in range(20):
        for end in list(pending):
            try:
                end.do_handshake()
                pending.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not pending:
            return dict(s.getpeercert() or {})
    raise AssertionError("the handshake did not end")


def contexts(
    tmp_path: Path, ca: Authority, server: profiles.Profile, client: profiles.Profile
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    made = []
    for role, profile in ((ssl.PROTOCOL_TLS_SERVER, server), (ssl.PROTOCOL_TLS_CLIENT, client)):
        issued = ca.issue(profile, NOW, node="node-1", names=("localhost", "10.77.0.11"))
        cert, key = tmp_path / f"{profile.name}.crt", tmp_path / f"{profile.name}.key"
        write_secret(cert, issued.certificate)
        write_secret(key, issued.key)
        context = ssl.SSLContext(role)
        context.load_verify_locations(cadata=ca.pem().decode())
        context.load_cert_chain(cert, key)
        context.verify_mode = ssl.CERT_REQUIRED
        made.append(context)
    return made[0], made[1]


def test_mutual_tls_carries_the_identity(tmp_path: Path, ca: Authority) -> None:
    server, client = contexts(tmp_path, ca, profiles.APISERVER, profiles.NODEAGENT)
    subject = dict(pair[0] for pair in handshake(server, client, "10.77.0.11")["subject"])  # type: ignore[attr-defined]
    assert subject == {"organizationName": "system:nodes", "commonName": "system:node:node-1"}


def test_wrong_host_name_is_refused(tmp_path: Path, ca: Authority) -> None:
    server, client = contexts(tmp_path, ca, profiles.APISERVER, profiles.ADMIN)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "elsewhere")


def test_client_certificate_cannot_serve(tmp_path: Path, ca: Authority) -> None:
    server, client = contexts(tmp_path, ca, profiles.ADMIN, profiles.NODEAGENT)
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "localhost")


def test_another_authority_is_refused(tmp_path: Path, ca: Authority) -> None:
    server, _ = contexts(tmp_path, ca, profiles.APISERVER, profiles.ADMIN)
    _, stranger = contexts(tmp_path, Authority.create(NOW), profiles.APISERVER, profiles.ADMIN)
    with pytest.raises(ssl.SSLError):
        handshake(server, stranger, "localhost")


def test_leaf_never_outlives_the_authority() -> None:
    ca = Authority.create(NOW - timedelta(days=3600))
    issued = ca.issue(profiles.ADMIN, NOW)
    assert x509.load_pem_x509_certificate(issued.certificate).not_valid_after_utc <= ca.certificate.not_valid_after_utc


def test_provision_writes_private_files_and_keeps_them(tmp_path: Path) -> None:
    layout = Layout.under(tmp_path)
    ca = provision.authority(layout, NOW)
    provision.control_plane(layout, ca, "https://10.77.0.11:6443", ["10.77.0.11", "10.96.0.1"], NOW)
    provision.node(layout, ca, "https://10.77.0.11:6443", "node-1", ["10.77.0.11"], NOW)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for path, content in files.items():
        private = b"PRIVATE KEY" in content or path == layout.kubeconfig("admin")
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if private else 0o644), path
    assert len(files) == 16
    again = provision.authority(layout, NOW)
    provision.control_plane(layout, again, "https://10.77.0.11:6443", ["10.77.0.11"], NOW)
    provision.node(layout, again, "https://10.77.0.11:6443", "node-1", ["10.77.0.11"], NOW)
    assert files == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    config = json.loads(layout.kubeconfig("admin").read_text())
    shown = x509.load_pem_x509_certificate(b64decode(config["users"][0]["user"]["client-certificate-data"]))
    shown.verify_directly_issued_by(ca.certificate)


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_secret(path, b"old")
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_secret(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_not_a_key(tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    path.write_text("nonsense")
    with pytest.raises(NotAKey, match=r"x\.key"):
        load_key(path)


class TestServiceAccountTokens:
    issuer = "https://kubernetes.default.svc.cluster.local"

    def issue(self, signer: tokens.Signer) -> str:
        return signer.issue(
            namespace="default", name="default", uid="u1", audiences=[self.issuer], now=1000.0, lifetime_s=600,
            token_id="t1", bound={"pod": {"name": "p", "uid": "u2"}},
        )  # fmt: skip

    def test_round_trip(self) -> None:
        signer = tokens.Signer(new_key(), self.issuer)
        claims = signer.verify(self.issue(signer), [self.issuer], 1100.0)
        assert claims["sub"] == "system:serviceaccount:default:default"
        assert claims["kubernetes.io"]["pod"]["uid"] == "u2"

    @pytest.mark.parametrize(("now", "audience"), [(1601.0, issuer), (1100.0, "elsewhere"), (100.0, issuer)])
    def test_expired_or_foreign_audience(self, now: float, audience: str) -> None:
        signer = tokens.Signer(new_key(), self.issuer)
        with pytest.raises(tokens.InvalidToken):
            signer.verify(self.issue(signer), [audience], now)

    def test_other_key_and_garbage(self) -> None:
        signer, other = tokens.Signer(new_key(), self.issuer), tokens.Signer(new_key(), self.issuer)
        token = self.issue(signer)
        for bad in (self.issue(other), "garbage", token[:-4] + "AAAA", ""):
            with pytest.raises(tokens.InvalidToken):
                signer.verify(bad, [self.issuer], 1100.0)

    def test_rotated_key_still_verifies(self) -> None:
        old = new_key()
        token = self.issue(tokens.Signer(old, self.issuer))
        assert tokens.Signer(new_key(), self.issuer, older=[old]).verify(token, [self.issuer], 1100.0)


def test_bootstrap_tokens() -> None:
    identifier, secret = tokens.split_bootstrap_token(tokens.new_bootstrap_token())
    assert (len(identifier), len(secret)) == (6, 16)
    with pytest.raises(tokens.InvalidToken):
        tokens.split_bootstrap_token("abc.def")
