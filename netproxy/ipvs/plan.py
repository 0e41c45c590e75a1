"""From a Service port's plan to what it wants of the kernel in IPVS mode. Pure.

    ClusterIP, external and load balancer addresses   on kube-ipvs0, each with a virtual server
    NodePort                                          a virtual server at each address of the node
    whom to masquerade, drop or let through           members of sets that a few iptables rules look into (rules.py)

A virtual server cannot tell its clients apart, so externalTrafficPolicy Local differs a little from iptables mode:
clients on this node and in its pods get this node's pods like everybody else, and the whole cluster's only where this
node has none (kube-proxy does the same).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TypeVar

from netproxy.ipvs import sets
from netproxy.ipvs.sets import ip_port
from netproxy.ipvs.state import Key, Options, State, Target
from netproxy.model import PortName
from netproxy.topology import ServicePlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration and of this node shapes the plan and the rules."""

    cluster_cidr: str = ""  # pods' addresses; empty: pods cannot be told from others
    masquerade_all: bool = False
    scheduler: str = "rr"
    node_ips: tuple[str, ...] = ()  # for load balancer source ranges that include this node
    node_port_addresses: tuple[str, ...] = ()  # CIDRs; empty: all addresses of this node
    exclude_cidrs: tuple[str, ...] = ()  # virtual servers of others there are left alone


@dataclass(frozen=True, slots=True)
class Node:
    """This machine's addresses, without those on kube-ipvs0 and 127.0.0.0/8, and those on which NodePorts answer."""

    addresses: tuple[str, ...] = ()
    node_port: tuple[str, ...] = ()

    @classmethod
    def of(cls, addresses: tuple[str, ...], settings: Settings) -> Node:
        networks = [ip_network(cidr, strict=False) for cidr in settings.node_port_addresses]
        chosen = tuple(ip for ip in addresses if not networks or any(ip_address(ip) in n for n in networks))
        return cls(addresses, chosen)


@dataclass(frozen=True, slots=True)
class PortState:
    """What one Service port wants. `servers`: virtual servers that share `options`, each with where it leads."""

    options: Options
    servers: tuple[tuple[Key, tuple[Target, ...]], ...] = ()
    addresses: tuple[str, ...] = ()
    members: tuple[tuple[str, str], ...] = ()  # (set, member)


def port_state(plan: ServicePlan, settings: Settings, node: Node) -> PortState:
    """What `plan` wants on `node`."""
    builder = _Builder(plan, settings, node)
    builder.build()
    return PortState(
        Options(settings.scheduler, plan.port.affinity_s),
        tuple(builder.servers.items()),
        tuple(dict.fromkeys(builder.addresses)),
        tuple(dict.fromkeys(builder.members)),
    )


class _Builder:
    def __init__(self, plan: ServicePlan, settings: Settings, node: Node) -> None:
        self.plan, self.port, self.settings, self.node = plan, plan.port, settings, node
        self.servers: dict[Key, tuple[Target, ...]] = {}
        self.addresses: list[str] = []
        self.members: list[tuple[str, str]] = []

    def build(self) -> None:
        port = self.port
        self.cluster_ip()
        for ip in port.external_ips:
            self.external(ip, sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL)
        for ip in port.load_balancer_ips:
            self.external(ip, sets.LOAD_BALANCER, sets.LOAD_BALANCER_LOCAL)
            self.source_ranges(ip)
        if port.node_port:
            self.node_port()
        if port.health_check_node_port:
            self.members.append((sets.HEALTH_CHECK, str(port.health_check_node_port)))
        for endpoint in self.plan.all:
            if endpoint.local:
                member = ip_port(endpoint.ip, port.protocol, endpoint.port, endpoint.ip)
                self.members.append((sets.LOOP_BACK, member))

    def cluster_ip(self) -> None:
        port = self.port
        self.address(port.cluster_ip)
        self.member(sets.CLUSTER_IP, port.cluster_ip)
        if self.plan.has_any and not self.plan.internal:
            self.member(sets.NO_LOCAL_INTERNAL, port.cluster_ip)  # a virtual server would refuse
        else:
            self.server(port.cluster_ip, port.port, [Target(e.ip, e.port) for e in self.plan.internal])

    def external(self, ip: str, cluster_set: str, local_set: str) -> None:
        self.address(ip)
        # The balancer's set holds all, the local one those among them; external addresses are in one of two.
        if cluster_set == sets.LOAD_BALANCER or not self.port.external_local:
            self.member(cluster_set, ip)
        if self.port.external_local:
            self.member(local_set, ip)
        self.outside(ip, self.port.port)

    def node_port(self) -> None:
        port = self.port
        names = sets.NODE_PORT_LOCAL if port.external_local else sets.NODE_PORT
        if port.protocol != "SCTP":
            self.members.append((names[port.protocol], str(port.node_port)))
        for ip in self.node.node_port:
            if port.protocol == "SCTP":
                self.member(names["SCTP"], ip, port.node_port)
            self.outside(ip, port.node_port)

    def outside(self, ip: str, port: int) -> None:
        """A virtual server for traffic under externalTrafficPolicy."""
        plan = self.plan
        if plan.has_any and not plan.external:
            self.member(sets.NO_LOCAL, ip, port)
        self.server(ip, port, [Target(e.ip, e.port) for e in plan.external or plan.cluster])

    def source_ranges(self, ip: str) -> None:
        """Who may use the balancer's address `ip`. 0.0.0.0/0 is everybody, and no set can hold it."""
        networks = [ip_network(r, strict=False) for r in self.port.source_ranges]
        if not networks or any(n.prefixlen == 0 for n in networks):
            return
        self.member(sets.LOAD_BALANCER_FW, ip)
        for network in networks:
            text = str(network) if network.prefixlen < network.max_prefixlen else str(network.network_address)
            self.member(sets.SOURCE_CIDR, ip, other=text)
        if any(ip_address(node) in n for node in self.settings.node_ips for n in networks):
            self.member(sets.SOURCE_IP, ip, other=ip)  # made on this node, it may carry the address as its source

    def server(self, ip: str, port: int, targets: Sequence[Target]) -> None:
        self.servers[Key(ip, port, self.port.protocol)] = tuple(dict.fromkeys(targets))

    def address(self, ip: str) -> None:
        # One that the node has anyway stays where it is; in IPVS_IPS it would close the node's other ports.
        if ip not in self.node.addresses:
            self.addresses.append(ip)
            self.members.append((sets.IPVS_IPS, ip))

    def member(self, name: str, ip: str, port: int = 0, other: str = "") -> None:
        self.members.append((name, ip_port(ip, self.port.protocol, port or self.port.port, other)))


class Desired:
    """What all Service ports together want. Ports may want the same thing: an address, a set's member, or even the
    same virtual server (two Services with one external IP; the first by name has it)."""

    def __init__(self) -> None:
        self.ports: dict[PortName, PortState] = {}
        self._servers: dict[Key, list[PortName]] = {}
        self._addresses: dict[str, int] = {}
        self._members: dict[tuple[str, str], int] = {}

    def change(self, changes: Mapping[PortName, PortState | None]) -> tuple[State, State]:
        """Take in what some ports want now (None: the port is gone). Returns what was wanted and what is wanted of all
        that this concerns."""
        touched = Touched(set(), set(), set())
        for name, new in changes.items():
            for state in (self.ports.get(name), new):
                if state:
                    touched.servers.update(key for key, _ in state.servers)
                    touched.addresses.update(state.addresses)
                    touched.members.update(state.members)
        before = self.state(touched)
        for name, new in changes.items():
            old = self.ports.pop(name, None)
            if old:
                for key, _ in old.servers:
                    _forget(self._servers, key, name)
                _uncount(self._addresses, old.addresses)
                _uncount(self._members, old.members)
            if new:
                self.ports[name] = new
                for key, _ in new.servers:
                    self._servers.setdefault(key, []).append(name)
                _count(self._addresses, new.addresses)
                _count(self._members, new.members)
        return before, self.state(touched)

    def state(self, touched: Touched | None = None) -> State:
        """What should be in the kernel, of all or only of what is `touched`."""
        state = State(members={name: set() for name in sets.SETS})
        for key in self._servers if touched is None else touched.servers:
            if key in self._servers:
                port = self.ports[min(self._servers[key])]
                state.servers[key] = port.options
                state.destinations[key] = dict.fromkeys(next(t for k, t in port.servers if k == key), 1)
        state.addresses.update(self._addresses if touched is None else touched.addresses & self._addresses.keys())
        for name, member in self._members if touched is None else touched.members & self._members.keys():
            state.members[name].add(member)
        return state


@dataclass(frozen=True, slots=True)
class Touched:
    """Parts of a `State`, by name."""

    servers: set[Key]
    addresses: set[str]
    members: set[tuple[str, str]]


def _count(counts: dict[T, int], items: Iterable[T]) -> None:
    for item in items:
        counts[item] = counts.get(item, 0) + 1


def _uncount(counts: dict[T, int], items: Iterable[T]) -> None:
    for item in items:
        counts[item] -= 1
        if not counts[item]:
            del counts[item]


def _forget(claims: dict[Key, list[PortName]], key: Key, name: PortName) -> None:
    claims[key].remove(name)
    if not claims[key]:
        del claims[key]
