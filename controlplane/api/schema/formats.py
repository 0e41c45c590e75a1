"""`format` of strings in custom resources' schemas: which are known, and whether a text has one.

Source: k8s.io/kube-openapi/pkg/validation/strfmt and supportedformats of apiextensions-apiserver. An unknown format
means nothing.
"""

import ipaddress
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from datetime import date, datetime
from urllib.parse import urlsplit

from controlplane.api import names

_HOSTNAME = re.compile(
    r"([a-zA-Z0-9\u00a1-\uffff]|[a-zA-Z0-9\u00a1-\uffff][-a-zA-Z0-9\u00a1-\uffff]{0,61}[a-zA-Z0-9\u00a1-\uffff])"
    r"(\.([a-zA-Z0-9\u00a1-\uffff]|[a-zA-Z0-9\u00a1-\uffff][-a-zA-Z0-9\u00a1-\uffff]{0,61}[a-zA-Z0-9\u00a1-\uffff]))*"
).fullmatch
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII).fullmatch
_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_WORD_DURATION = re.compile(
    r"\d+\s*(nanoseconds?|nanos?|microseconds?|micros?|milliseconds?|millis?|seconds?|sec|minutes?|min|hours?|hr|"
    r"days?|weeks?|wk)", re.ASCII | re.IGNORECASE,
).fullmatch  # fmt: skip
_EMAIL = re.compile(r"[^@\s<>()\[\],;:\"]+@[^@\s<>()\[\],;:\"]+").fullmatch
_UUID = r"[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s-?[0-9a-f]{12}"


def _uuid(version: str, variant: str = "[0-9a-f]{4}") -> Callable[[str], bool]:
    pattern = re.compile(_UUID % (version, variant), re.IGNORECASE | re.ASCII)
    return lambda text: pattern.fullmatch(text) is not None


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def is_date_time(text: str) -> bool:
    """RFC 3339, as Kubernetes reads it."""
    if not _DATE_TIME(text):
        return False
    try:
        datetime.fromisoformat(text.upper().replace(" ", "T").replace(",", "."))
    except ValueError:
        return False
    return True


def is_uri(text: str) -> bool:
    """An absolute URI or a path, as Go's url.ParseRequestURI has it."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def is_duration(text: str) -> bool:
    """Go's durations ("1h30m"), or words ("3 days")."""
    if _WORD_DURATION(text):
        return True
    at = 0
    while found := _DURATION.match(text, at):
        at = found.end()
    return at > 0 and at == len(text)


def _is_hostname(text: str) -> bool:
    return len(text) <= 255 and _HOSTNAME(text.rstrip(".")) is not None


def _is_base64(text: str) -> bool:
    try:
        a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError):
        return not text
    return True


def _is_date(text: str) -> bool:
    return len(text) == 10 and _parses(date.fromisoformat)(text)


def _is_isbn(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    return _is_isbn10(digits) or _is_isbn13(digits)


def _is_isbn10(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"\d{9}[\dX]", digits, re.ASCII):
        return False
    return sum((10 - i) * (10 if d == "X" else int(d)) for i, d in enumerate(digits)) % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"\d{13}", digits, re.ASCII):
        return False
    return sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(digits)) % 10 == 0


def _is_credit_card(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"\d{13,19}", digits, re.ASCII):
        return False
    doubled = [int(d) * 2 if i % 2 else int(d) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _matches("[0-9a-fA-F]{24}"),
    "uri": is_uri,
    "email": lambda text: _EMAIL(text) is not None,
    "hostname": _is_hostname,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and _parses(lambda t: ipaddress.ip_network(t, strict=False))(text),
    "mac": _matches("([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}|([0-9a-fA-F]{2}[:-]){7}[0-9a-fA-F]{2}"),
    "uuid": _uuid("[0-9a-f]"),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab][0-9a-f]{3}"),
    "uuid5": _uuid("5", "[89ab][0-9a-f]{3}"),
    "isbn": _is_isbn,
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "creditcard": _is_credit_card,
    "ssn": _matches(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _matches("#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _matches(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)"),
    "byte": _is_base64,
    "date": _is_date,
    "duration": is_duration,
    "datetime": is_date_time,
    "date-time": is_date_time,
    "k8s-short-name": lambda text: not names.dns1123_label(text),
    "k8s-long-name": lambda text: not names.dns1123_subdomain(text),
}
"""Format -> whether a text has it. `password` is known too, and every text has it."""
