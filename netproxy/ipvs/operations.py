"""The steps that make the kernel's state the desired one: values that can be shown, and done. Pure.

`difference()` compares two states. What is added comes before what is removed, a set's members before the virtual
server that needs them, and an address last: no packet meets half a Service. A destination of TCP or SCTP that should go
is only told to take nobody new (weight 0): see graceful.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import NamedTuple, Protocol

from netproxy.ipvs.sets import IPVS_IPS, SETS
from netproxy.ipvs.state import Key, Options, State, Target


class Writer(Protocol):
    """The side of a kernel that operations write to. A call may take effect only at the end of its batch."""

    def add_server(self, key: Key, options: Options) -> None: ...
    def set_server(self, key: Key, options: Options) -> None: ...
    def remove_server(self, key: Key) -> None: ...
    def add_destination(self, key: Key, target: Target, weight: int) -> None: ...
    def set_destination(self, key: Key, target: Target, weight: int) -> None: ...
    def remove_destination(self, key: Key, target: Target) -> None: ...
    def add_address(self, ip: str) -> None: ...
    def remove_address(self, ip: str) -> None: ...
    def create_set(self, name: str) -> None: ...
    def destroy_set(self, name: str) -> None: ...
    def add_member(self, name: str, member: str) -> None: ...
    def remove_member(self, name: str, member: str) -> None: ...


class Operation(Protocol):
    def describe(self) -> str:
        """As the tool that people use by hand would be told."""

    def execute(self, kernel: Writer) -> None: ...


class CreateSet(NamedTuple):
    name: str

    def describe(self) -> str:
        return f"ipset create {self.name} {SETS[self.name]}"

    def execute(self, kernel: Writer) -> None:
        kernel.create_set(self.name)


class DestroySet(NamedTuple):
    name: str

    def describe(self) -> str:
        return f"ipset destroy {self.name}"

    def execute(self, kernel: Writer) -> None:
        kernel.destroy_set(self.name)


class AddMember(NamedTuple):
    name: str
    member: str

    def describe(self) -> str:
        return f"ipset add {self.name} {self.member}"

    def execute(self, kernel: Writer) -> None:
        kernel.add_member(self.name, self.member)


class RemoveMember(NamedTuple):
    name: str
    member: str

    def describe(self) -> str:
        return f"ipset del {self.name} {self.member}"

    def execute(self, kernel: Writer) -> None:
        kernel.remove_member(self.name, self.member)


class AddServer(NamedTuple):
    key: Key
    options: Options

    def describe(self) -> str:
        return f"ipvsadm add-service {self.key} {self.options}"

    def execute(self, kernel: Writer) -> None:
        kernel.add_server(self.key, self.options)


class SetServer(NamedTuple):
    key: Key
    options: Options

    def describe(self) -> str:
        return f"ipvsadm edit-service {self.key} {self.options}"

    def execute(self, kernel: Writer) -> None:
        kernel.set_server(self.key, self.options)


class RemoveServer(NamedTuple):
    key: Key

    def describe(self) -> str:
        return f"ipvsadm delete-service {self.key}"

    def execute(self, kernel: Writer) -> None:
        kernel.remove_server(self.key)


class AddDestination(NamedTuple):
    key: Key
    target: Target
    weight: int = 1

    def describe(self) -> str:
        return f"ipvsadm add-server {self.key} {self.target} weight {self.weight}"

    def execute(self, kernel: Writer) -> None:
        kernel.add_destination(self.key, self.target, self.weight)


class SetDestination(NamedTuple):
    """Weight 0: it keeps its connections and gets no new ones."""

    key: Key
    target: Target
    weight: int

    def describe(self) -> str:
        return f"ipvsadm edit-server {self.key} {self.target} weight {self.weight}"

    def execute(self, kernel: Writer) -> None:
        kernel.set_destination(self.key, self.target, self.weight)


class RemoveDestination(NamedTuple):
    key: Key
    target: Target

    def describe(self) -> str:
        return f"ipvsadm delete-server {self.key} {self.target}"

    def execute(self, kernel: Writer) -> None:
        kernel.remove_destination(self.key, self.target)


class AddAddress(NamedTuple):
    ip: str

    def describe(self) -> str:
        return f"ip address add {self.ip} dev kube-ipvs0"

    def execute(self, kernel: Writer) -> None:
        kernel.add_address(self.ip)


class RemoveAddress(NamedTuple):
    ip: str

    def describe(self) -> str:
        return f"ip address del {self.ip} dev kube-ipvs0"

    def execute(self, kernel: Writer) -> None:
        kernel.remove_address(self.ip)


@dataclass(frozen=True, slots=True)
class Difference:
    """`put` adds and changes; `remove` takes away. In mode switches the iptables rules are written between the two."""

    put: list[Operation]
    remove: list[Operation]


def difference(actual: State, desired: State, exclude_cidrs: Collection[str] = ()) -> Difference:
    """What makes `actual` into `desired`. Virtual servers in `exclude_cidrs` that are not desired are left alone."""
    put: list[Operation] = [CreateSet(name) for name in desired.members if name not in actual.members]
    members = {name: (actual.members.get(name, set()), wanted) for name, wanted in desired.members.items()}
    # An address in IPVS_IPS refuses whatever no other set lets through: last in, first out.
    order = sorted(members, key=lambda name: name == IPVS_IPS)
    for name in order:
        put += [AddMember(name, m) for m in sorted(members[name][1] - members[name][0])]
    remove: list[Operation] = [RemoveAddress(ip) for ip in sorted(actual.addresses - desired.addresses)]
    for key, options in desired.servers.items():
        if key not in actual.servers:
            put.append(AddServer(key, options))
        elif actual.servers[key] != options:
            put.append(SetServer(key, options))
        have, want = actual.destinations.get(key, {}), desired.destinations.get(key, {})
        if have != want:
            put += _put_destinations(key, have, want)
            remove += _leave(key, have, want)
    put += [AddAddress(ip) for ip in sorted(desired.addresses - actual.addresses)]
    excluded = [ip_network(cidr, strict=False) for cidr in exclude_cidrs]
    for key in actual.servers.keys() - desired.servers.keys():
        if not any(ip_address(key.address) in network for network in excluded):
            remove.append(RemoveServer(key))
    for name in reversed(order):
        remove += [RemoveMember(name, m) for m in sorted(members[name][0] - members[name][1])]
    return Difference(put, remove)


def _put_destinations(key: Key, have: dict[Target, int], want: dict[Target, int]) -> Iterator[Operation]:
    for target, weight in want.items():
        if target not in have:
            yield AddDestination(key, target, weight)
        elif have[target] != weight:
            yield SetDestination(key, target, weight)


def _leave(key: Key, have: dict[Target, int], want: dict[Target, int]) -> Iterator[Operation]:
    for target, weight in have.items():
        if target in want:
            continue
        if key.protocol == "UDP":  # no end of a flow to wait for, and its client would talk to nobody meanwhile
            yield RemoveDestination(key, target)
        elif weight:
            yield SetDestination(key, target, 0)
