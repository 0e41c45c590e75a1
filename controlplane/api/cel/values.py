"""What Kubernetes' CEL functions work on beside CEL's own types: quantities, URLs, IP addresses, networks, versions.

The CEL library has no types for them, so each is a map with one entry whose key says what it is; `of` checks it. They
are made so that equal values are equal maps.
"""

import ipaddress
import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from controlplane.api import quantity
from controlplane.api.quantity import Quantity

Value = dict[str, Any]
QUANTITY, URL, IP, CIDR, SEMVER = (
    f"kubernetes.{name}" for name in ("Quantity", "URL", "IP", "CIDR", "Semver")
)  # fmt: skip
OPTIONAL = "kubernetes.Optional"
FORMAT = "kubernetes.Format"


def of(value: Any, kind: str) -> Any:
    """What a value of this kind holds. Raises ValueError for any other value, as CEL says it."""
    if isinstance(value, dict) and len(value) == 1 and kind in value:
        return value[kind]
    raise ValueError("no such overload")


def kind_of(value: Any) -> str:
    """Which of the kinds above a value is; "" if it is none."""
    if isinstance(value, dict) and len(value) == 1:
        key = next(iter(value))
        if isinstance(key, str) and key.startswith("kubernetes."):
            return key
    return ""


# --- quantities -------------------------------------------------------------------------------------------------------


def make_quantity(amount: Quantity) -> Value:
    return {QUANTITY: str(amount.nano)}


def quantity_of(value: Any) -> Quantity:
    return Quantity(int(of(value, QUANTITY)))


def parse_quantity(text: str) -> Value:
    return make_quantity(quantity.parse(text))


# --- URLs -------------------------------------------------------------------------------------------------------------


def parse_url(text: str) -> Value:
    """An absolute URI or an absolute path. Raises ValueError."""
    _split(text)
    return {URL: text}


def _split(text: str) -> SplitResult:
    if re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    _ = parts.port  # raises ValueError
    return parts


def url_parts(value: Any) -> SplitResult:
    return _split(of(value, URL))


def url_host(value: Any) -> str:
    """Host and port, as they are written."""
    return url_parts(value).netloc.rpartition("@")[2]


def url_query(value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, text in parse_qsl(url_parts(value).query, keep_blank_values=True):
        found.setdefault(key, []).append(text)
    return found


# --- addresses --------------------------------------------------------------------------------------------------------

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_ip(text: str) -> Value:
    """Raises ValueError; zones and addresses of one family inside the other are none."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or "%" in text):
        raise ValueError(f'IP Address "{text}" parse error during conversion from string')
    return {IP: str(address)}


def ip_of(value: Any) -> Address:
    return ipaddress.ip_address(of(value, IP))


def parse_cidr(text: str) -> Value:
    """Raises ValueError."""
    address, _, length = text.partition("/")
    if not length.isdigit():
        raise ValueError(f'network address parse error during conversion from string: "{text}"')
    ipaddress.ip_network(text, strict=False)
    return {CIDR: f"{ipaddress.ip_address(address)}/{int(length)}"}


def network_of(value: Any) -> Network:
    return ipaddress.ip_network(of(value, CIDR), strict=False)


def cidr_parts(value: Any) -> tuple[Address, int]:
    """The address as it was written, and the length of the prefix."""
    address, _, length = of(value, CIDR).partition("/")
    return ipaddress.ip_address(address), int(length)


# --- versions ---------------------------------------------------------------------------------------------------------

_NUMBER = r"(0|[1-9]\d*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)


def parse_semver(text: str, normalize: bool = False) -> Value:
    """A semantic version; `normalize` takes "v1.2" for 1.2.0. Raises ValueError."""
    if normalize:
        text = text.removeprefix("v")
        head, cut, tail = re.split(r"([-+].*)", text, maxsplit=1) if re.search(r"[-+]", text) else (text, "", "")
        numbers = [part.lstrip("0") or "0" for part in head.split(".")]
        text = ".".join(([*numbers, "0", "0"])[:3]) + cut + tail
    if _SEMVER.fullmatch(text) is None:
        raise ValueError(f'Semver "{text}" parse error during conversion from string')
    return {SEMVER: text}


def semver_numbers(value: Any) -> tuple[int, int, int]:
    found = _SEMVER.fullmatch(of(value, SEMVER))
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3])


def compare_semver(one: Any, other: Any) -> int:
    """-1, 0 or 1 (semver.org, section 11)."""
    left, right = _order(one), _order(other)
    return (left > right) - (left < right)


def _order(value: Any) -> tuple[Any, ...]:
    found = _SEMVER.fullmatch(of(value, SEMVER))
    assert found is not None
    numbers = semver_numbers(value)
    if found[4] is None:
        return (*numbers, 1, ())
    parts = tuple((0, int(each), "") if each.isdigit() else (1, 0, each) for each in found[4].split("."))
    return (*numbers, 0, parts)
