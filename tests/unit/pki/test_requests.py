"""Requests and their certificates: what goes in comes out; what a glance sees is what the library sees."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pki import requests
from pki.authority import Authority, pin
from pki.glance import glance
from pki.keys import new_key
from pki.tokens import sign_detached, verify_detached

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CA = Authority.create(NOW - timedelta(days=1))
KEY = new_key()
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(st.one_of(labels, st.ip_addresses().map(str)), max_size=4, unique=True)


@settings(max_examples=30, deadline=None)
@given(labels, st.lists(labels, max_size=3, unique=True), names)
def test_a_request_says_what_was_asked(name: str, groups: list[str], alternatives: list[str]) -> None:
    read = requests.parse(requests.make(KEY, requests.name(name, groups), alternatives))
    assert (read.common_name, read.organizations) == (name, groups)
    assert {*read.dns_names, *map(str, read.ip_addresses)} == {
        str(requests.general_name(n).value) for n in alternatives
    }
    assert read.public_key == KEY.public_key() and not read.other_names


@pytest.mark.parametrize("junk", [b"", b"nonsense", CA.pem(), requests.make(KEY, requests.name("x"))[:-60]])
def test_what_is_no_request(junk: bytes) -> None:
    with pytest.raises(requests.NotARequest):
        requests.parse(junk)


@settings(max_examples=40, deadline=None)
@given(
    st.datetimes(datetime(2026, 11, 22), datetime(2060, 1, 1)).map(lambda t: t.replace(tzinfo=UTC, microsecond=0)),
    st.integers(1, 10**9), labels, names,
)  # fmt: skip
def test_a_glance_sees_what_the_library_sees(now: datetime, seconds: int, name: str, alternatives: list[str]) -> None:
    ca = Authority.create(now - timedelta(days=1))
    found = [requests.general_name(each) for each in alternatives]
    pem = ca.sign(
        KEY.public_key(), requests.name(name), now, usages=("client auth",), alternatives=found,
        lifetime=timedelta(seconds=seconds),
    )  # fmt: skip
    whole, seen = x509.load_pem_x509_certificate(pem), glance(b"something before\n" + pem + ca.pem())
    assert seen.begins == whole.not_valid_before_utc.timestamp()
    assert seen.ends == whole.not_valid_after_utc.timestamp()
    assert all(seen.has_name(each) for each in alternatives)
    assert not seen.has_name("203.0.113.77") and not seen.has_name("somebody-elses-name")


@pytest.mark.parametrize("junk", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_glance_at_nothing(junk: bytes) -> None:
    with pytest.raises(ValueError):
        glance(junk)


@given(st.binary(max_size=200))
def test_a_glance_at_rubbish_is_an_error_of_one_kind(rubbish: bytes) -> None:
    import base64

    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(rubbish) + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError):
        glance(pem)


@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)])
def test_other_kinds_of_keys_are_signed_as_well(make) -> None:  # type: ignore[no-untyped-def]
    key = make()
    builder = x509.CertificateSigningRequestBuilder().subject_name(requests.name("jane"))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    read = requests.parse(builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM))
    signed = x509.load_pem_x509_certificate(CA.sign(read.public_key, read.subject, NOW, usages=("client auth",)))
    signed.verify_directly_issued_by(CA.certificate)
    assert signed.public_key() == key.public_key()


def test_usages_become_extensions() -> None:
    usages = ("digital signature", "key encipherment", "server auth", "client auth", "s/mime", "email protection")
    signed = x509.load_pem_x509_certificate(CA.sign(KEY.public_key(), requests.name("x"), NOW, usages=usages))
    use = signed.extensions.get_extension_for_class(x509.KeyUsage)
    assert use.critical and use.value.digital_signature and use.value.key_encipherment and not use.value.key_cert_sign
    extended = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [
        ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION
    ]  # fmt: skip
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_short_lives_begin_less_early() -> None:
    for seconds in (10, 600, 3600, 86_400):
        signed = x509.load_pem_x509_certificate(
            CA.sign(KEY.public_key(), requests.name("x"), NOW, usages=(), lifetime=timedelta(seconds=seconds))
        )
        early = NOW - signed.not_valid_before_utc
        assert timedelta(0) <= early <= min(timedelta(minutes=5), timedelta(seconds=seconds / 12 + 1))
        assert signed.not_valid_after_utc == NOW + timedelta(seconds=seconds)


def test_the_pin_is_kubeadms() -> None:
    import hashlib

    der = CA.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert pin(CA.certificate) == f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_a_detached_signature_is_a_jws() -> None:
    """PyJWT, which knows nothing of us, finds the signature good."""
    import jwt

    signature = sign_detached(b'{"a":1}', "abcdef", "0123456789abcdef")
    header, empty, mac = signature.split(".")
    assert empty == "" and jwt.get_unverified_header(f"{header}.e30.{mac}") == {"alg": "HS256", "kid": "abcdef"}
    payload = jwt.utils.base64url_encode(b'{"a":1}').decode()
    key = "0123456789abcdef" * 2  # PyJWT wants a long key: so ours is made with one, for it
    header, _, mac = sign_detached(b'{"a":1}', "abcdef", key).split(".")
    assert jwt.decode(f"{header}.{payload}.{mac}", key, algorithms=["HS256"]) == {"a": 1}
    assert verify_detached(b'{"a":1}', signature, "abcdef", "0123456789abcdef")
    assert not verify_detached(b'{"a":2}', signature, "abcdef", "0123456789abcdef")
