"""Certificate signing requests (PKCS#10): made by whoever holds the key, read by whoever shall sign.

`usages` are Kubernetes' words (certificates.k8s.io/v1 KeyUsage), such as "client auth"; the two tables here say what
they are in X.509. Nothing here decides whether a request deserves a certificate.
"""

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from pki.keys import PrivateKey

KEY_USAGES: dict[str, str] = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
EXTENDED_USAGES: dict[str, ObjectIdentifier] = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec end system": ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec tunnel": ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec user": ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "microsoft sgc": ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape sgc": ObjectIdentifier("2.16.840.1.113730.4.1"),
}


class NotARequest(ValueError):
    """Bytes that should be a PEM certificate signing request are not one, or its signature is wrong."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What a request asks for. `alternatives` are its subject alternative names as X.509 has them."""

    subject: x509.Name
    public_key: CertificatePublicKeyTypes
    alternatives: tuple[x509.GeneralName, ...]

    @property
    def common_name(self) -> str:
        found = self.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[0].value) if found else ""

    @property
    def organizations(self) -> list[str]:
        return [str(each.value) for each in self.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]

    @property
    def dns_names(self) -> list[str]:
        return [each.value for each in self.alternatives if isinstance(each, x509.DNSName)]

    @property
    def ip_addresses(self) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        return [
            each.value
            for each in self.alternatives
            if isinstance(each, x509.IPAddress)
            and isinstance(each.value, ipaddress.IPv4Address | ipaddress.IPv6Address)
        ]

    @property
    def other_names(self) -> list[x509.GeneralName]:
        """Alternative names that are neither DNS names nor IP addresses: mail addresses, URIs, …"""
        return [each for each in self.alternatives if not isinstance(each, x509.DNSName | x509.IPAddress)]


def name(common_name: str, organizations: Iterable[str] = ()) -> x509.Name:
    """A subject: the user name and its groups, as the API server reads them."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def general_name(text: str) -> x509.GeneralName:
    """An IP address or a DNS name, whichever `text` is."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def make(key: PrivateKey, subject: x509.Name, names: Iterable[str] = ()) -> bytes:
    """A request (PEM) for `key`, with DNS names and IP addresses in `names`."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    alternatives = [general_name(each) for each in names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def parse(pem: bytes) -> SigningRequest:
    """Raises NotARequest."""
    try:
        request = x509.load_pem_x509_csr(pem)
        genuine = request.is_signature_valid
        alternatives: tuple[x509.GeneralName, ...] = ()
        for extension in request.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                alternatives = tuple(extension.value)
        key = request.public_key()
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what a malformed extension raises
        raise NotARequest(str(error) or type(error).__name__) from error
    if not genuine:
        raise NotARequest("the request is not signed with its own key")
    return SigningRequest(request.subject, key, alternatives)


def key_usage(usages: Collection[str]) -> x509.KeyUsage | None:
    """The key usage extension that `usages` ask for; None if they name only extended ones. Raises ValueError."""
    wanted = {KEY_USAGES[each] for each in usages if each in KEY_USAGES}
    return x509.KeyUsage(**{field: field in wanted for field in KEY_USAGES.values()}) if wanted else None


def extended_key_usage(usages: Collection[str]) -> x509.ExtendedKeyUsage | None:
    """The extended key usage extension that `usages` ask for; None if they name none."""
    wanted = list(dict.fromkeys(EXTENDED_USAGES[each] for each in usages if each in EXTENDED_USAGES))
    return x509.ExtendedKeyUsage(wanted) if wanted else None
