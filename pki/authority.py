"""The cluster's certificate authority: make one, load it, sign with it.

One CA signs servers, components and users; a certificate's extended key usage keeps their roles apart. Time comes as
an argument: the pki knows no clock. Certificates start five minutes early, for machines whose clocks differ.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.keys import PrivateKey, key_pem, new_key
from pki.profiles import Profile

CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
_EARLY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate (PEM) with its unencrypted private key (PKCS#8 PEM)."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def create(cls, now: datetime, common_name: str = "wherry-ca") -> "Authority":
        """A new self-signed CA that may sign leaf certificates only."""
        key = new_key()
        name = _name(common_name, ())
        builder = _builder(name, name, key.public_key(), now, CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(ca=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate_pem: bytes, key: PrivateKey) -> "Authority":
        """Raises ValueError if the certificate is not the key's."""
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        if certificate.public_key() != key.public_key():
            raise ValueError("the CA's certificate and key do not belong together")
        return cls(certificate, key)

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, profile: Profile, now: datetime, *, node: str = "", names: Iterable[str] = ()) -> Issued:
        """A fresh key and certificate for `profile`. `names` are a server's DNS names and IP addresses."""
        key = new_key()
        subject = _name(profile.common_name.format(node=node), profile.organizations)
        certificate = self.sign(
            key.public_key(), subject, now, server=profile.server, client=profile.client, names=names
        )
        return Issued(certificate, key_pem(key))

    def sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        now: datetime,
        *,
        server: bool,
        client: bool,
        names: Iterable[str] = (),
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> bytes:
        """A leaf certificate (PEM) for `public_key`. It never outlives the CA."""
        lifetime = min(lifetime, self.certificate.not_valid_after_utc - now)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        builder = _builder(subject, self.certificate.subject, public_key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        alternatives = [_general_name(name) for name in names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + lifetime)
    )


def _name(common_name: str, organizations: Iterable[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
