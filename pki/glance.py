"""A glance at a certificate: when it begins and ends, and whether it has a name; without loading `cryptography`.

Every daemon looks at its own certificate, and renews it once a year: the library costs 9 MB of memory in each process
and is loaded when it is needed. This reads just enough DER (X.690) to find the validity in an X.509 certificate whose
signature nobody doubts, because it is ours and TLS will verify it. It verifies nothing.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Glance:
    """`begins` and `ends` in seconds since the epoch."""

    begins: float
    ends: float
    der: bytes

    def has_name(self, name: str) -> bool:
        """Whether `name` is one of its DNS names or IP addresses (GeneralName, RFC 5280 4.2.1.6)."""
        try:
            tag, value = 0x87, ipaddress.ip_address(name).packed
        except ValueError:
            tag, value = 0x82, name.encode("ascii")
        return bytes((tag, len(value))) + value in self.der


def glance(pem: bytes) -> Glance:
    """The first certificate in `pem`. Raises ValueError if there is none."""
    text = pem.decode("ascii", "replace")
    start, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= start < end:
        raise ValueError("no certificate")
    der = ssl.PEM_cert_to_DER_cert(text[start : end + len(_END)])
    try:
        certificate = _content(der, 0, _SEQUENCE)
        at = certificate[0]
        tbs_start, tbs_end = _content(der, at, _SEQUENCE)
        at = tbs_start
        if der[at] == _VERSION:
            at = _content(der, at, _VERSION)[1]
        for _ in ("serialNumber", "signature", "issuer"):
            at = _content(der, at)[1]
        at, _ = _content(der, at, _SEQUENCE)
        begins, at = _time(der, at)
        ends, at = _time(der, at)
    except (IndexError, ValueError) as error:
        raise ValueError(f"not a certificate: {error}") from error
    if at > tbs_end:
        raise ValueError("not a certificate")
    return Glance(begins, ends, der)


def _content(der: bytes, at: int, tag: int | None = None) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    if tag is not None and der[at] != tag:
        raise ValueError(f"tag {der[at]:#x} instead of {tag:#x}")
    length, start = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    if start + length > len(der):
        raise ValueError("cut short")
    return start, start + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    tag = der[at]
    start, end = _content(der, at)
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag:#x} instead of a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp(), end
