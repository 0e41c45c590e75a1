"""The cluster's certificate authority: make one, load it, sign with it.

One CA signs servers, components and users; a certificate's extended key usage keeps their roles apart. Time comes as
an argument: the pki knows no clock. Certificates start five minutes early (short-lived ones less), for machines whose
clocks differ.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from pki import requests
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

    def pem(self) -> bytes:
        """Both in one file, so that a renewal replaces both at once."""
        return self.certificate + self.key


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def create(cls, now: datetime, common_name: str = "wherry-ca") -> "Authority":
        """A new self-signed CA that may sign leaf certificates only."""
        key = new_key()
        name = requests.name(common_name)
        builder = _builder(name, name, key.public_key(), now, CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = requests.key_usage(("digital signature", "cert sign", "crl sign"))
        assert usage is not None
        builder = builder.add_extension(usage, critical=True)
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
        subject = requests.name(profile.common_name.format(node=node), profile.organizations)
        alternatives = [requests.general_name(name) for name in names]
        certificate = self.sign(key.public_key(), subject, now, usages=profile.usages, alternatives=alternatives)
        return Issued(certificate, key_pem(key))

    def sign(
        self,
        public_key: CertificatePublicKeyTypes,
        subject: x509.Name,
        now: datetime,
        *,
        usages: Collection[str],
        alternatives: Sequence[x509.GeneralName] = (),
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> bytes:
        """A leaf certificate (PEM) for `public_key`. It never outlives the CA. `usages`: see pki.requests."""
        lifetime = min(lifetime, self.certificate.not_valid_after_utc - now)
        builder = _builder(subject, self.certificate.subject, public_key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if (usage := requests.key_usage(usages)) is not None:
            builder = builder.add_extension(usage, critical=True)
        if (extended := requests.extended_key_usage(usages)) is not None:
            builder = builder.add_extension(extended, critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if alternatives:
            no_subject = not list(subject)
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=no_subject)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pin(certificate: x509.Certificate) -> str:
    """`sha256:<hex>` over the certificate's SubjectPublicKeyInfo: how a machine that joins recognises the CA (the form
    is kubeadm's)."""
    der = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(der).hexdigest()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(_EARLY, lifetime / 12))
        .not_valid_after(now + lifetime)
    )
