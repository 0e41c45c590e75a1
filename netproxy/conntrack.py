"""Forget UDP connections that lead to endpoints which are gone.

Connection tracking keeps a UDP flow's destination for as long as packets come, so a client that keeps its port would
talk to a dead pod for ever (or to nothing, if it began before there was any endpoint). TCP cures itself by resets.

`stale()` decides (pure); `Conntrack` reads and deletes entries by ctnetlink (linux/netfilter/nfnetlink_conntrack.h),
asking the kernel for UDP only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netproxy.netlink import NetlinkSocket, attribute, attributes, nested
from netproxy.topology import ServicePlan

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x0101, 0x0102  # subsystem ctnetlink
_IPV4 = struct.pack("=BBH", socket.AF_INET, 0, 0)
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_PROTO_NUM = 1, 1 << 3
_UDP = 17

Address = tuple[bytes, int]
"""A packed IP address and a port."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked UDP connection: where its first packet went, and who answers. `handle`: attributes that name it to the
    kernel."""

    destination: Address
    answered_by: Address
    handle: bytes = b""


Expected = Mapping[Address, frozenset[Address]]
"""For each address and port of a Service (an empty address: that port on this node), who may answer."""


def expected(plans: Iterable[ServicePlan]) -> dict[Address, frozenset[Address]]:
    """What the UDP ports among `plans` lead to. A plan without endpoints leads nowhere."""
    found: dict[Address, frozenset[Address]] = {}
    for plan in plans:
        port = plan.port
        if port.protocol != "UDP":
            continue
        endpoints = frozenset((_packed(e.ip), e.port) for e in plan.all)
        for ip in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
            found[_packed(ip), port.port] = endpoints
        if port.node_port:
            found[b"", port.node_port] = endpoints
    return found


def stale(flows: Iterable[Flow], expected: Expected) -> list[Flow]:
    """The flows to a Service that are answered by nobody who should. One that was never rewritten is stale only if
    there are endpoints now: otherwise it belongs to somebody else."""
    found = []
    for flow in flows:
        endpoints = expected.get(flow.destination)
        if endpoints is None:
            endpoints = expected.get((b"", flow.destination[1]))
        if endpoints is None or flow.answered_by in endpoints:
            continue
        if endpoints or flow.answered_by != flow.destination:
            found.append(flow)
    return found


class Conntrack:
    """The kernel's connection table, in the network namespace of the thread that makes this object. Blocks."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(_NETLINK_NETFILTER)
        self._filtered = True

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def udp(self) -> list[Flow]:
        """Every tracked UDP connection over IPv4. Raises OSError."""
        if self._filtered:
            number = attribute(_PROTO_NUM, bytes([_UDP]))
            flags = attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", _FILTER_PROTO_NUM))
            only = nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, number)) + nested(_FILTER, flags)
            try:
                return self._list(only)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._filtered = False  # a kernel before 5.8
        return self._list(b"")

    def delete(self, flows: Iterable[Flow]) -> int:
        """Forget them; returns how many were still there. Raises OSError."""
        requests = [(_DELETE, 0, _IPV4 + flow.handle) for flow in flows]
        failed = self._socket.execute(requests)
        for _, code in failed:
            if code != errno.ENOENT:
                raise OSError(code, f"delete connection: {os.strerror(code)}")
        return len(requests) - len(failed)

    def _list(self, only: bytes) -> list[Flow]:
        found = (_decode(payload[4:]) for payload in self._socket.dump(_GET, _IPV4 + only))
        return [flow for flow in found if flow is not None]


def _decode(data: bytes) -> Flow | None:
    values = {kind: (value, raw) for kind, value, raw in attributes(data)}
    if _TUPLE_ORIG not in values or _TUPLE_REPLY not in values:
        return None
    original, reply = _tuple(values[_TUPLE_ORIG][0]), _tuple(values[_TUPLE_REPLY][0])
    if original is None or reply is None:
        return None
    handle = b"".join(values[kind][1] for kind in (_TUPLE_ORIG, _ID, _ZONE) if kind in values)
    return Flow(original[1], reply[0], handle)


def _tuple(data: bytes) -> tuple[Address, Address] | None:
    """(source, destination) of a UDP tuple; None for another protocol."""
    parts = {kind: value for kind, value, _ in attributes(data)}
    ips = [value for _, value, _ in attributes(parts.get(_TUPLE_IP, b""))]
    proto = {kind: value for kind, value, _ in attributes(parts.get(_TUPLE_PROTO, b""))}
    if len(ips) != 2 or proto.get(_PROTO_NUM) != bytes([_UDP]):
        return None
    source, destination = (int.from_bytes(proto[k], "big") for k in (_PROTO_SRC_PORT, _PROTO_DST_PORT))
    return (ips[0], source), (ips[1], destination)


def _packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
