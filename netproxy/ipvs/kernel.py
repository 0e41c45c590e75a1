"""IPVS mode's kernel: virtual servers by generic netlink, sets by nfnetlink, addresses on kube-ipvs0 by rtnetlink.

What happens once (the interface, creating sets) is pyroute2's; the thousands of entries go in
batches of our own (see netlink.py). Operations queue up; `flush()` sends them in order.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from netproxy.backend import BackendError
from netproxy.ipvs import wire
from netproxy.ipvs.operations import Operation, Writer
from netproxy.ipvs.sets import SETS
from netproxy.ipvs.state import Key, Options, State, Target
from netproxy.ipvs.wire import Destination
from netproxy.netlink import CREATE, EXCL, NetlinkSocket, Request

INTERFACE = "kube-ipvs0"
_GENERIC, _NETFILTER, _ROUTE = 16, 12, 0
_MAX_MEMBERS = 1 << 20
T = TypeVar("T")


class Kernel(Writer, Protocol):
    """What IPVS mode needs of a kernel. Methods raise BackendError."""

    def open(self) -> None:
        """Make sure that there is an interface for addresses. To be called before all others."""

    def flush(self) -> None:
        """Do what operations have queued. One that fails stops those after it that go the same way only by chance."""

    def read(self) -> State:
        """What is there now. Sets that are not ours are left out."""

    def servers(self) -> set[Key]:
        """The virtual servers that are there now: cheaper than `read`."""

    def destinations(self, key: Key) -> list[Destination]:
        """Where a virtual server leads, with what is open; none if it is not there."""

    def set_sizes(self) -> dict[str, int]:
        """How many members each of our sets has."""

    def addresses(self) -> tuple[set[str], tuple[str, ...]]:
        """(those on kube-ipvs0, those of this machine without 127.0.0.0/8)."""

    def set_timeouts(self, tcp_s: int, tcp_fin_s: int, udp_s: int) -> None:
        """How long an idle connection is remembered; 0: as it is."""

    def remove_interface(self) -> None:
        """And with it all its addresses."""

    def close(self) -> None: ...


def execute(operations: Iterable[Operation], kernel: Kernel) -> None:
    """Do them all. Raises BackendError."""
    for operation in operations:
        operation.execute(kernel)
    kernel.flush()


def present() -> bool:
    """Whether IPVS mode has been here: cheap, asks for no kernel module."""
    return INTERFACE in (name for _, name in socket.if_nameindex())


class LinuxKernel:
    """The kernel of the network namespace of the thread that makes this object and calls it. Blocks."""

    def __init__(self) -> None:
        self._generic = NetlinkSocket(_GENERIC)
        self._netfilter = NetlinkSocket(_NETFILTER)
        self._route = NetlinkSocket(_ROUTE)
        self._family = self._index = 0
        self._queue: list[tuple[NetlinkSocket, Request, str]] = []

    def open(self) -> None:
        if not self._family:
            self._family = ipvs_family()
        if not self._index or (self._index, INTERFACE) not in socket.if_nameindex():
            self._index = _interface()

    def close(self) -> None:
        for one in (self._generic, self._netfilter, self._route):
            one.close()

    # Reading.

    def read(self) -> State:
        state = State()
        for key, options in self._servers():
            state.servers[key] = options
        for key in state.servers:
            state.destinations[key] = {d.target: d.weight for d in self.destinations(key)}
        state.addresses = self.addresses()[0]
        with _failing("list ipsets"):
            for payload in self._netfilter.dump(wire.SET_LIST, wire.ipset_list()):
                name, kind, _, members = wire.read_set(payload)
                if name not in SETS:
                    continue
                if kind and kind != SETS[name]:
                    raise BackendError(f"ipset {name} is a {kind}, not ours: ipset destroy {name}")
                state.members.setdefault(name, set()).update(members)
        return state

    def servers(self) -> set[Key]:
        return {key for key, _ in self._servers()}

    def _servers(self) -> Iterator[tuple[Key, Options]]:
        with _failing("list virtual servers"):
            for payload in self._generic.dump(self._family, wire.ipvs(wire.GET_SERVICE)):
                found = wire.read_server(payload)
                if found:
                    yield found

    def destinations(self, key: Key) -> list[Destination]:
        with _failing(f"list destinations of {key}"):
            payloads = self._generic.dump(self._family, wire.ipvs(wire.GET_DEST, wire.server_key(key)))
            return [wire.read_destination(payload) for payload in payloads]

    def set_sizes(self) -> dict[str, int]:
        with _failing("list ipsets"):
            heads = [
                wire.read_set(payload)
                for payload in self._netfilter.dump(wire.SET_LIST, wire.ipset_list(headers_only=True))
            ]
        return {name: count for name, kind, count, _ in heads if kind and name in SETS}

    def addresses(self) -> tuple[set[str], tuple[str, ...]]:
        ours: set[str] = set()
        others: dict[str, None] = {}
        with _failing("list addresses"):
            for payload in self._route.dump(wire.GET_ADDRESS, wire.address_list()):
                index, ip = wire.read_address(payload)
                if index == self._index:
                    ours.add(ip)
                elif not ip.startswith("127."):
                    others[ip] = None
        return ours, tuple(others)

    # Writing.

    def add_server(self, key: Key, options: Options) -> None:
        self._ipvs(f"add virtual server {key} {options}", wire.NEW_SERVICE, wire.server(key, options))

    def set_server(self, key: Key, options: Options) -> None:
        self._ipvs(f"change virtual server {key} to {options}", wire.SET_SERVICE, wire.server(key, options))

    def remove_server(self, key: Key) -> None:
        self._ipvs(f"remove virtual server {key}", wire.DEL_SERVICE, wire.server_key(key))

    def add_destination(self, key: Key, target: Target, weight: int) -> None:
        body = wire.server_key(key) + wire.destination(target, weight)
        self._ipvs(f"add destination {key} {target}", wire.NEW_DEST, body)

    def set_destination(self, key: Key, target: Target, weight: int) -> None:
        body = wire.server_key(key) + wire.destination(target, weight)
        self._ipvs(f"change destination {key} {target} to weight {weight}", wire.SET_DEST, body)

    def remove_destination(self, key: Key, target: Target) -> None:
        body = wire.server_key(key) + wire.destination(target)
        self._ipvs(f"remove destination {key} {target}", wire.DEL_DEST, body)

    def set_timeouts(self, tcp_s: int, tcp_fin_s: int, udp_s: int) -> None:
        if tcp_s or tcp_fin_s or udp_s:
            self._ipvs("set timeouts", wire.SET_CONFIG, wire.timeouts(tcp_s, tcp_fin_s, udp_s))

    def add_address(self, ip: str) -> None:
        payload = wire.address(ip, self._index)
        self._queue.append((self._route, (wire.NEW_ADDRESS, CREATE | EXCL, payload), f"add address {ip}"))

    def remove_address(self, ip: str) -> None:
        payload = wire.address(ip, self._index)
        self._queue.append((self._route, (wire.DEL_ADDRESS, 0, payload), f"remove address {ip}"))

    def add_member(self, name: str, member: str) -> None:
        payload = wire.member(name, member)
        self._queue.append((self._netfilter, (wire.SET_ADD, EXCL, payload), f"ipset add {name} {member}"))

    def remove_member(self, name: str, member: str) -> None:
        payload = wire.member(name, member)
        self._queue.append((self._netfilter, (wire.SET_DEL, EXCL, payload), f"ipset del {name} {member}"))

    def create_set(self, name: str) -> None:
        self.flush()
        _pyroute2(f"ipset create {name} {SETS[name]}", lambda: _create_set(name))

    def destroy_set(self, name: str) -> None:
        self.flush()

        def destroy() -> None:
            from pyroute2 import IPSet

            with IPSet() as sets:
                sets.destroy(name)

        _pyroute2(f"ipset destroy {name}", destroy)

    def remove_interface(self) -> None:
        self.flush()

        def remove() -> None:
            from pyroute2 import IPRoute

            with IPRoute() as route:
                route.link("del", index=self._index)

        _pyroute2(f"remove {INTERFACE}", remove)
        self._index = 0

    def flush(self) -> None:
        queue, self._queue = self._queue, []
        start = 0
        while start < len(queue):
            way, end = queue[start][0], start
            while end < len(queue) and queue[end][0] is way:
                end += 1
            with _failing("netlink"):
                failed = way.execute([request for _, request, _ in queue[start:end]])
            if failed:
                index, code = failed[0]
                more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
                raise BackendError(f"{queue[start + index][2]}: {_reason(code)}{more}")
            start = end

    def _ipvs(self, what: str, command: int, body: bytes) -> None:
        self._queue.append((self._generic, (self._family, 0, wire.ipvs(command, body)), what))


def ipvs_family() -> int:
    """The number of the generic netlink family IPVS; asking makes the kernel load ip_vs. Raises BackendError."""
    # Not by pyroute2: where there is no such family its socket is not closed.
    generic = NetlinkSocket(_GENERIC)
    try:
        with _failing("find IPVS"):
            (answer,) = generic.dump(wire.CONTROL, wire.find_family("IPVS"), all_of_them=False)
            return wire.read_family(answer)
    finally:
        generic.close()


def _interface() -> int:
    """The index of kube-ipvs0, which is made if need be. It stays down: local addresses need no link, and a dummy that
    is up would answer for them where arp_ignore lets it."""

    def ask() -> int:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            found = route.link_lookup(ifname=INTERFACE)
            if not found:
                route.link("add", ifname=INTERFACE, kind="dummy")
                found = route.link_lookup(ifname=INTERFACE)
            return int(found[0])

    return _pyroute2(f"make the dummy interface {INTERFACE}", ask)


def _create_set(name: str) -> None:
    from pyroute2 import IPSet

    kind = SETS[name]
    with IPSet() as sets:
        if kind == "bitmap:port":
            sets.create(name, stype=kind, bitmap_ports_range=(0, 65535))
        else:
            sets.create(name, stype=kind, family=socket.AF_INET, maxelem=_MAX_MEMBERS)


def _pyroute2(what: str, work: Callable[[], T]) -> T:
    """`work()`, with errors as ours."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return work()
    except NetlinkError as error:
        raise BackendError(f"{what}: {_reason(error.code)}") from error
    except OSError as error:
        raise BackendError(f"{what}: {error.strerror or error}") from error


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendError(f"{what}: {error.strerror or error}") from error


def _reason(code: int) -> str:
    """What errno means; ipset has numbers of its own (linux/netfilter/ipset/ip_set.h)."""
    own = {4097: "protocol", 4098: "set type not in this kernel", 4100: "still in use by a rule", 4103: "exists"}
    if code in own:
        return own[code]
    return f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
