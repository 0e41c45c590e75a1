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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netproxy.topology import ServicePlan

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x0101, 0x0102  # subsystem ctnetlink
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_PROTO_NUM = 1, 1 << 3
_UDP = 17
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

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
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._sequence = 0
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
            number = _attribute(_PROTO_NUM, bytes([_UDP]))
            flags = _attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", _FILTER_PROTO_NUM))
            only = _nested(_TUPLE_ORIG, _nested(_TUPLE_PROTO, number)) + _nested(_FILTER, flags)
            try:
                return list(self._dump(only))
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._filtered = False  # a kernel before 5.8
        return list(self._dump(b""))

    def delete(self, flows: Iterable[Flow]) -> int:
        """Forget them; returns how many were still there. Raises OSError."""
        deleted = 0
        for flow in flows:
            self._send(_DELETE, _ACK, flow.handle)
            for kind, payload in self._receive():
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code not in (0, errno.ENOENT):
                        raise OSError(code, f"delete connection: {os.strerror(code)}")
                    deleted += code == 0
        return deleted

    def _dump(self, attributes: bytes) -> Iterator[Flow]:
        self._send(_GET, _DUMP, attributes)
        while True:
            for kind, payload in self._receive():
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, f"list connections: {os.strerror(code)}")
                flow = _decode(payload[4:])
                if flow is not None:
                    yield flow

    def _send(self, kind: int, flags: int, attributes: bytes) -> None:
        self._sequence += 1
        body = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
        self._socket.send(_HEADER.pack(16 + len(body), kind, flags | _REQUEST, self._sequence, 0) + body)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        data = self._socket.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
            if sequence == self._sequence:
                yield kind, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _decode(data: bytes) -> Flow | None:
    values = {kind: (value, raw) for kind, value, raw in _attributes(data)}
    if _TUPLE_ORIG not in values or _TUPLE_REPLY not in values:
        return None
    original, reply = _tuple(values[_TUPLE_ORIG][0]), _tuple(values[_TUPLE_REPLY][0])
    if original is None or reply is None:
        return None
    handle = b"".join(values[kind][1] for kind in (_TUPLE_ORIG, _ID, _ZONE) if kind in values)
    return Flow(original[1], reply[0], handle)


def _tuple(data: bytes) -> tuple[Address, Address] | None:
    """(source, destination) of a UDP tuple; None for another protocol."""
    parts = {kind: value for kind, value, _ in _attributes(data)}
    ips = [value for _, value, _ in _attributes(parts.get(_TUPLE_IP, b""))]
    proto = {kind: value for kind, value, _ in _attributes(parts.get(_TUPLE_PROTO, b""))}
    if len(ips) != 2 or proto.get(_PROTO_NUM) != bytes([_UDP]):
        return None
    source, destination = (int.from_bytes(proto[k], "big") for k in (_PROTO_SRC_PORT, _PROTO_DST_PORT))
    return (ips[0], source), (ips[1], destination)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, value, the whole attribute with padding)."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        end = offset + ((length + 3) & ~3)
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length], data[offset:end]
        offset = end


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
