"""IPVS, ipset and address requests as bytes, and the kernel's answers as values. Pure.

Numbers are those of linux/ip_vs.h, linux/netfilter/ipset/ip_set.h and linux/if_addr.h. IPv4 only, as netproxy is.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import NamedTuple

from netproxy.ipvs.sets import SETS
from netproxy.ipvs.state import PROTOCOLS, Key, Options, Target
from netproxy.netlink import NESTED, NETWORK_ORDER, attribute, attributes, big_endian, nested, values

# Generic netlink, family IPVS.
NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE, NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = range(1, 9)
SET_CONFIG = 12
_SERVICE, _DEST = 1, 2
_TIMEOUTS = {"tcp": 4, "tcp_fin": 5, "udp": 6}
_SVC_AF, _SVC_PROTOCOL, _SVC_ADDR, _SVC_PORT, _SVC_SCHEDULER, _SVC_FLAGS, _SVC_TIMEOUT, _SVC_NETMASK = (
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
_DEST_ADDR, _DEST_PORT, _DEST_FORWARD, _DEST_WEIGHT, _DEST_UPPER, _DEST_LOWER = 1, 2, 3, 4, 5, 6
_DEST_ACTIVE, _DEST_INACTIVE, _DEST_FAMILY = 7, 8, 11
_MASQUERADING = 0
_HOST_MASK = b"\xff" * 4
_U16, _U32, _BE16, _TWO = struct.Struct("=H"), struct.Struct("=I"), struct.Struct(">H"), struct.Struct("=II")
_AF_INET = _U16.pack(socket.AF_INET)
# Whole groups of attributes (length, type, value, padding): most of the time of a full sync goes into these.
_KEY = struct.Struct("=HHHxx HHHxx HH16s HH2sxx")
_TARGET = struct.Struct("=HH16s HH2sxx HHHxx")
_WEIGHT = struct.Struct("=HHI HHI HHI HHI")
_IP_PORT = struct.Struct("=HHHH4s HH2sxx HHBxxx")
_OUR_FLAGS = 0x1 | 0x8
_NAMES = {number: name for name, number in PROTOCOLS.items()}
_NUMBERS = {name.lower(): number for name, number in PROTOCOLS.items()}

# Generic netlink's own family, linux/genetlink.h.
CONTROL = 0x10
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2

# nfnetlink, subsystem ipset.
SET_LIST, SET_ADD, SET_DEL = (6 << 8 | command for command in (7, 9, 10))
_SET_PROTOCOL, _SET_NAME, _SET_TYPE, _SET_FLAGS, _SET_DATA, _SET_ADT, _SET_LINE = 1, 2, 3, 6, 7, 8, 9
_IP, _PORT, _PROTO, _IP2, _CIDR2, _ELEMENTS = 1, 4, 7, 20, 21, 24
_HEADERS_ONLY = 1 << 2
_LINE = big_endian(_SET_LINE, bytes(4))

# rtnetlink.
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFADDRMSG = struct.Struct("=BBBBI")


class Destination(NamedTuple):
    """A destination as the kernel has it. `connections`: those open and those that are closing."""

    target: Target
    weight: int
    connections: int


def find_family(name: str) -> bytes:
    return bytes((_GET_FAMILY, 1, 0, 0)) + attribute(_FAMILY_NAME, name.encode() + b"\0")


def read_family(payload: bytes) -> int:
    return int(_U16.unpack(values(payload[4:])[_FAMILY_ID])[0])


def ipvs(command: int, body: bytes = b"") -> bytes:
    return bytes((command, 1, 0, 0)) + body


@lru_cache(maxsize=64)
def server_key(key: Key) -> bytes:
    return nested(_SERVICE, _key(key))


def _key(key: Key) -> bytes:
    ip, port = socket.inet_aton(key.address), _BE16.pack(key.port)
    return _KEY.pack(
        *(6, _SVC_AF, socket.AF_INET),
        *(6, _SVC_PROTOCOL, PROTOCOLS[key.protocol]),
        *(20, _SVC_ADDR, ip),
        *(6, _SVC_PORT, port),
    )


def server(key: Key, options: Options) -> bytes:
    return nested(
        _SERVICE,
        _key(key)
        + attribute(_SVC_SCHEDULER, options.scheduler.encode() + b"\0")
        + attribute(_SVC_FLAGS, _TWO.pack(options.flags, 0xFFFFFFFF))
        + attribute(_SVC_TIMEOUT, _U32.pack(options.persistence_s))
        + attribute(_SVC_NETMASK, _HOST_MASK),
    )


def destination(target: Target, weight: int | None = None) -> bytes:
    """`weight`: None where the kernel only needs to know which destination."""
    ip, port = socket.inet_aton(target.ip), _BE16.pack(target.port)
    body = _TARGET.pack(20, _DEST_ADDR, ip, 6, _DEST_PORT, port, 6, _DEST_FAMILY, socket.AF_INET)
    if weight is not None:
        body += _WEIGHT.pack(
            *(8, _DEST_FORWARD, _MASQUERADING),
            *(8, _DEST_WEIGHT, weight),
            *(8, _DEST_UPPER, 0),
            *(8, _DEST_LOWER, 0),
        )
    return nested(_DEST, body)


def timeouts(tcp_s: int, tcp_fin_s: int, udp_s: int) -> bytes:
    given = {"tcp": tcp_s, "tcp_fin": tcp_fin_s, "udp": udp_s}
    return b"".join(attribute(_TIMEOUTS[name], _U32.pack(seconds)) for name, seconds in given.items() if seconds)


def read_server(payload: bytes) -> tuple[Key, Options] | None:
    """None for what we never make: a firewall mark's, or an IPv6 one."""
    found = values(values(payload[4:])[_SERVICE])
    if _SVC_ADDR not in found or found[_SVC_AF] != _AF_INET:
        return None
    protocol = _NAMES.get(_U16.unpack(found[_SVC_PROTOCOL])[0])
    if protocol is None:
        return None
    flags = _TWO.unpack(found[_SVC_FLAGS])[0]
    key = Key(socket.inet_ntoa(found[_SVC_ADDR][:4]), _BE16.unpack(found[_SVC_PORT])[0], protocol)
    scheduler = found[_SVC_SCHEDULER].rstrip(b"\0").decode()
    options = Options(scheduler, _U32.unpack(found[_SVC_TIMEOUT])[0] if flags & 0x1 else 0)
    if flags & _OUR_FLAGS != options.flags:
        options = Options(f"{scheduler} with flags {flags:#x}", options.persistence_s)  # unlike any of ours
    return key, options


def read_destination(payload: bytes) -> Destination:
    found = values(values(payload[4:])[_DEST])
    weight, active, inactive = (_U32.unpack(found[k])[0] for k in (_DEST_WEIGHT, _DEST_ACTIVE, _DEST_INACTIVE))
    target = Target(socket.inet_ntoa(found[_DEST_ADDR][:4]), _BE16.unpack(found[_DEST_PORT])[0])
    return Destination(target, weight, active + inactive)


def ipset_list(*, headers_only: bool = False) -> bytes:
    flags = big_endian(_SET_FLAGS, struct.pack(">I", _HEADERS_ONLY)) if headers_only else b""
    return _ipset(b"") + flags


def _ipset(body: bytes) -> bytes:
    return bytes((socket.AF_INET, 0, 0, 0)) + attribute(_SET_PROTOCOL, b"\x06") + body


@lru_cache(maxsize=64)
def _member_of(name: str) -> bytes:
    return _ipset(attribute(_SET_NAME, name.encode() + b"\0"))


def member(name: str, text: str) -> bytes:
    """A request's payload for one member, e.g. `10.96.0.1,tcp:443`, of the set `name`."""
    first, *rest = text.split(",")
    if not rest:
        port = SETS[name] == "bitmap:port"
        body = big_endian(_PORT, _BE16.pack(int(first))) if port else _address(_IP, first)
    else:
        protocol, _, number = rest[0].partition(":")
        ip, port_number = socket.inet_aton(first), _BE16.pack(int(number))
        body = _IP_PORT.pack(
            *(12, _IP | NESTED, 8, 1 | NETWORK_ORDER, ip),
            *(6, _PORT | NETWORK_ORDER, port_number),
            *(5, _PROTO, _NUMBERS[protocol]),
        )
        if len(rest) > 1:
            other, _, prefix = rest[1].partition("/")
            body += _address(_IP2, other)
            if SETS[name].endswith("net"):
                body += attribute(_CIDR2, bytes((int(prefix or 32),)))
    return _member_of(name) + nested(_SET_DATA, body + _LINE)


def _address(kind: int, ip: str) -> bytes:
    return nested(kind, big_endian(1, socket.inet_aton(ip)))


def read_set(payload: bytes) -> tuple[str, str, int, list[str]]:
    """(name, type, how many members, those of this message). Type and number are only in a set's first message."""
    found = values(payload[4:])
    name = found[_SET_NAME].rstrip(b"\0").decode()
    kind = found.get(_SET_TYPE, b"").rstrip(b"\0").decode()
    count = values(found[_SET_DATA]).get(_ELEMENTS, bytes(4)) if _SET_DATA in found else bytes(4)
    members = [_member(values(body)) for _, body, _ in attributes(found.get(_SET_ADT, b""))]
    return name, kind, int.from_bytes(count, "big"), members


def _member(found: dict[int, bytes]) -> str:
    parts = []
    if _IP in found:
        parts.append(_read_address(found[_IP]))
    if _PORT in found:
        port = str(_BE16.unpack(found[_PORT])[0])
        parts.append(f"{_NAMES.get(found[_PROTO][0], '?').lower()}:{port}" if _PROTO in found else port)
    if _IP2 in found:
        prefix = found[_CIDR2][0] if _CIDR2 in found else 32
        parts.append(_read_address(found[_IP2]) + (f"/{prefix}" if prefix < 32 else ""))
    return ",".join(parts)


def _read_address(body: bytes) -> str:
    return socket.inet_ntoa(values(body)[1][:4])


def address(ip: str, index: int) -> bytes:
    packed = socket.inet_aton(ip)
    return (
        _IFADDRMSG.pack(socket.AF_INET, 32, 0, 0, index)
        + attribute(_IFA_LOCAL, packed)
        + attribute(_IFA_ADDRESS, packed)
    )


def address_list() -> bytes:
    return _IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0)


def read_address(payload: bytes) -> tuple[int, str]:
    """(interface, address)."""
    index = _IFADDRMSG.unpack_from(payload)[4]
    found = values(payload[8:])
    return index, socket.inet_ntoa(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
