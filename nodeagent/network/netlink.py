"""Raw rtnetlink: packed messages, many in one send, one place where the kernel's errors become exceptions.

A pod's start waits for its network, so the hot path must not: creating a veth pair this way takes well under a
millisecond, where a general netlink library takes five and `ip` twelve. A `Netlink` is a socket, and a netlink socket
belongs to the network namespace in which it was *opened*; `open_in()` opens one inside another namespace.

It knows messages and attributes (rtnetlink(7), linux/rtnetlink.h, linux/if_link.h), not bridges or pods; what the
kernel answers is read in `inventory.py`. It blocks: callers run it on a thread of their own.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nodeagent.network.netns import entered

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLA_TYPE_MASK = 0x3FFF  # the two high bits say "nested" and "network byte order"

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_NET_NS_FD, IFLA_AF_SPEC = 28, 26
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_BRPORT_MODE = 4  # hairpin
AF_INET6 = socket.AF_INET6
IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE = 8, 1
IFF_UP = 1

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC = 1, 4, 5, 7
RT_TABLE_MAIN, RTN_UNICAST, RTN_UNREACHABLE = 254, 1, 7
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_BOOT, RTPROT_STATIC = 3, 4
RTNH_F_ONLINK = 4
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT, NTF_SELF = 0x80, 0x02

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
ADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags
NEIGH = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type


class NetlinkError(OSError):
    """The kernel refused a message; `errno` is its reason and the text names the operation."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute (struct nlattr), padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def u16be(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">H", value))


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` as (type, value)."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def link_body(index: int = 0, *, flags: int = 0, change: int = 0, family: int = socket.AF_UNSPEC) -> bytes:
    return LINK.pack(family, 0, index, flags, change)


def addr_body(index: int, address: bytes, prefix_length: int) -> bytes:
    return ADDR.pack(family_of(address), prefix_length, 0, 0, index)


def route_body(
    family: int, prefix_length: int, *, scope: int = RT_SCOPE_UNIVERSE, protocol: int = RTPROT_BOOT, flags: int = 0,
    kind: int = RTN_UNICAST,
) -> bytes:  # fmt: skip
    return ROUTE.pack(family, prefix_length, 0, 0, RT_TABLE_MAIN, protocol, scope, kind, flags)


def neigh_body(family: int, index: int, *, flags: int = 0) -> bytes:
    return NEIGH.pack(family, index, NUD_PERMANENT, flags, 0)


def family_of(address: bytes) -> int:
    """AF_INET or AF_INET6, by the length of a packed address."""
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


@dataclass(frozen=True, slots=True)
class Message:
    """A request to the kernel. `operation` is for people: it starts the error's text. `accept` lists errno values that
    mean "already so" and are not errors."""

    operation: str
    kind: int
    body: bytes
    flags: int = 0
    accept: Sequence[int] = ()


class Netlink:
    """One rtnetlink socket: `send()` messages in one system call, `dump()` what the kernel has."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, messages: Sequence[Message]) -> None:
        """All `messages` in order, in one send. Only the last one asks for an acknowledgement, because failures are
        always answered. Raises NetlinkError for the first failure (the kernel has tried all of them by then)."""
        if not messages:
            return
        sent: dict[int, Message] = {}
        packed = []
        for position, message in enumerate(messages, 1):
            self._sequence += 1
            sent[self._sequence] = message
            flags = message.flags | NLM_F_REQUEST | (NLM_F_ACK if position == len(messages) else 0)
            packed.append(_HEADER.pack(16 + len(message.body), message.kind, flags, self._sequence, 0) + message.body)
        self._socket.send(b"".join(p + bytes(-len(p) % 4) for p in packed))
        failure: NetlinkError | None = None
        while True:
            for kind, sequence, payload in self._receive():
                if kind != _NLMSG_ERROR or sequence not in sent:
                    continue
                code = -struct.unpack_from("=i", payload)[0]
                if code and code not in sent[sequence].accept and failure is None:
                    failure = NetlinkError(code, f"{sent[sequence].operation}: {os.strerror(code)}")
                if sequence == self._sequence:
                    if failure:
                        raise failure
                    return

    def ask(self, kind: int, body: bytes, *, dump: bool = True) -> list[bytes]:
        """The answers to a RTM_GET* request: a dump, or with `dump=False` the one object asked for. Raises
        NetlinkError."""
        self._sequence += 1
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else 0)
        packed = _HEADER.pack(16 + len(body), kind, flags, self._sequence, 0) + body
        self._socket.send(packed + bytes(-len(packed) % 4))
        found: list[bytes] = []
        while True:
            for answer, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise NetlinkError(code, f"rtnetlink request {kind}: {os.strerror(code)}")
                found.append(payload)
                if not dump:
                    return found

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 16)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def open_in(netns_fd: int, device: str) -> tuple[Netlink, int]:
    """A socket inside the namespace `netns_fd`, and the index that `device` has there. The calling thread is in the
    other namespace only meanwhile. Raises OSError (ENODEV: no such device)."""
    with entered(netns_fd):
        netlink = Netlink()
        try:
            return netlink, socket.if_nametoindex(device)
        except OSError as error:  # without an errno, from Python
            netlink.close()
            raise NetlinkError(errno.ENODEV, f"find {device}: {error}") from error
