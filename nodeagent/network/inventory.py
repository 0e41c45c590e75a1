"""What the kernel has: devices, addresses, routes, decoded from rtnetlink only as far as this package needs."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field

from nodeagent.network import netlink as nl
from nodeagent.network.netlink import Netlink, NetlinkError, attribute, attributes, text


@dataclass(frozen=True, slots=True)
class Link:
    """A network device, as RTM_GETLINK tells it."""

    index: int
    name: str
    mtu: int
    up: bool
    kind: str = ""  # "bridge", "veth", "vxlan"; empty for hardware and lo
    mac: bytes = b""
    master: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route of the main table. `gateway` and `source` are packed addresses or empty."""

    destination: bytes
    prefix_length: int
    gateway: bytes = b""
    index: int = 0
    protocol: int = 0
    scope: int = field(default=0, compare=False)


def link(netlink: Netlink, name: str) -> Link | None:
    """The device called `name`, or None."""
    try:
        (payload,) = netlink.ask(nl.RTM_GETLINK, nl.link_body() + text(nl.IFLA_IFNAME, name), dump=False)
    except NetlinkError:
        return None
    return _decode_link(payload)


def links(netlink: Netlink) -> list[Link]:
    return [_decode_link(p) for p in netlink.ask(nl.RTM_GETLINK, nl.link_body())]


def addresses(netlink: Netlink) -> list[tuple[int, bytes, int]]:
    """Every address as (device index, packed address, prefix length)."""
    found = []
    for payload in netlink.ask(nl.RTM_GETADDR, nl.ADDR.pack(0, 0, 0, 0, 0)):
        _fam, prefix_length, _flags, _scope, index = nl.ADDR.unpack_from(payload)
        values = dict(attributes(payload[8:]))
        address = values.get(nl.IFA_LOCAL) or values.get(nl.IFA_ADDRESS)
        if address:
            found.append((index, address, prefix_length))
    return found


def routes(netlink: Netlink, family: int = socket.AF_INET) -> list[Route]:
    """The unicast routes of the main table."""
    found = []
    for payload in netlink.ask(nl.RTM_GETROUTE, nl.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        route = _decode_route(payload)
        if route is not None:
            found.append(route)
    return found


def route_to(netlink: Netlink, address: bytes) -> Route:
    """The route that a packet to `address` takes. Raises NetlinkError (ENETUNREACH) when there is none."""
    family = nl.family_of(address)
    body = nl.ROUTE.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(nl.RTA_DST, address)
    (payload,) = netlink.ask(nl.RTM_GETROUTE, body, dump=False)
    values = dict(attributes(payload[12:]))
    return Route(address, len(address) * 8, values.get(nl.RTA_GATEWAY, b""), _number(values.get(nl.RTA_OIF, b"")))


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _decode_link(payload: bytes) -> Link:
    _fam, _type, index, flags, _change = nl.LINK.unpack_from(payload)
    values = dict(attributes(payload[16:]))
    info = dict(attributes(values.get(nl.IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=values.get(nl.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        mtu=_number(values.get(nl.IFLA_MTU, b"")),
        up=bool(flags & nl.IFF_UP),
        kind=info.get(nl.IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        mac=values.get(nl.IFLA_ADDRESS, b""),
        master=_number(values.get(nl.IFLA_MASTER, b"")),
    )


def _decode_route(payload: bytes) -> Route | None:
    family, prefix_length, _src, _tos, table, protocol, scope, kind, _flags = nl.ROUTE.unpack_from(payload)
    if table != nl.RT_TABLE_MAIN or kind != nl.RTN_UNICAST:
        return None
    values = dict(attributes(payload[12:]))
    return Route(
        destination=values.get(nl.RTA_DST, bytes(4 if family == socket.AF_INET else 16)),
        prefix_length=prefix_length,
        gateway=values.get(nl.RTA_GATEWAY, b""),
        index=_number(values.get(nl.RTA_OIF, b"")),
        protocol=protocol,
        scope=scope,
    )
