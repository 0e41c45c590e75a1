"""iptables mode: from a plan to rules, as text, in kube-proxy's own chains. Pure.

    PREROUTING, OUTPUT ─> KUBE-SERVICES ──ClusterIP:port──────────────> KUBE-SVC-x  (all) or KUBE-SVL-x (this node's)
                               │  └──external or balancer IP──> KUBE-EXT-x ─> KUBE-SVC-x or KUBE-SVL-x
                               └──any address of this node──> KUBE-NODEPORTS ──nodePort──> KUBE-EXT-x
    KUBE-SVC-x ──statistic: one of n──> KUBE-SEP-y ─> DNAT
    POSTROUTING ─> KUBE-POSTROUTING: masquerade what KUBE-MARK-MASQ has marked
    filter: KUBE-SERVICES and KUBE-EXTERNAL-SERVICES refuse what has no endpoint, KUBE-PROXY-FIREWALL what a load
    balancer's source ranges exclude, KUBE-FORWARD lets the rest through

A Service port's rules are an immutable `PortRules`: the chains that it owns, and the entries that it has in the shared
chains. Two of them can be compared, which is how `transaction.py` writes only the difference. Anyone who has read
`iptables-save` on a Kubernetes node will find their way; the hashes are the same.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from netproxy.model import Endpoint, PortName
from netproxy.topology import ServicePlan

MARK = "0x4000"
SERVICES, EXTERNAL_SERVICES, NODEPORTS = "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS"
POSTROUTING, MARK_MASQ, FORWARD = "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-FORWARD"
PROXY_FIREWALL, FIREWALL, CANARY = "KUBE-PROXY-FIREWALL", "KUBE-FIREWALL", "KUBE-PROXY-CANARY"
OWNED_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-")
TABLES = ("mangle", "filter", "nat")

SHARED_CHAINS: dict[str, tuple[str, ...]] = {
    "mangle": (CANARY,),
    "filter": (SERVICES, EXTERNAL_SERVICES, NODEPORTS, FORWARD, PROXY_FIREWALL, FIREWALL, CANARY),
    "nat": (SERVICES, NODEPORTS, POSTROUTING, MARK_MASQ, CANARY),
}

_NEW = "-m conntrack --ctstate NEW "


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the proxy's configuration shapes rules."""

    cluster_cidr: str = ""  # pods' addresses; empty: local traffic cannot be told from other
    masquerade_all: bool = False
    node_port_addresses: tuple[str, ...] = ()  # CIDRs; empty: all addresses of this node
    localhost_node_ports: bool = True
    drop_invalid: bool = True  # unless the kernel's nf_conntrack_tcp_be_liberal is set
    comments: bool = True  # they help people, and cost the kernel memory at thousands of Services
    node_ips: tuple[str, ...] = ()  # for load balancer source ranges that include this node


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a built-in chain that leads to one of ours; put before all others."""

    table: str
    source: str
    rule: str


@dataclass(frozen=True, slots=True)
class PortRules:
    """The rules of one Service port. `chains` (nat table): its own chains with their rules; `entries`: its rules in
    the shared chains, as (table, chain, rule)."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    entries: tuple[tuple[str, str, str], ...] = ()


def jumps() -> tuple[Jump, ...]:
    """The way from the built-in chains to ours. The last one of a chain is inserted last, hence comes first."""
    portals = '-m comment --comment "kubernetes service portals" '
    external = '-m comment --comment "kubernetes externally-visible service portals" '
    firewall = '-m comment --comment "kubernetes load balancer firewall" '
    return (
        Jump("filter", "INPUT", f"{_NEW}{external}-j {EXTERNAL_SERVICES}"),
        Jump("filter", "FORWARD", f"{_NEW}{external}-j {EXTERNAL_SERVICES}"),
        Jump("filter", "INPUT", f'-m comment --comment "kubernetes health check service ports" -j {NODEPORTS}'),
        Jump("filter", "FORWARD", f"{_NEW}{portals}-j {SERVICES}"),
        Jump("filter", "OUTPUT", f"{_NEW}{portals}-j {SERVICES}"),
        Jump("filter", "FORWARD", f'-m comment --comment "kubernetes forwarding rules" -j {FORWARD}'),
        Jump("filter", "INPUT", f"{_NEW}{firewall}-j {PROXY_FIREWALL}"),
        Jump("filter", "OUTPUT", f"{_NEW}{firewall}-j {PROXY_FIREWALL}"),
        Jump("filter", "FORWARD", f"{_NEW}{firewall}-j {PROXY_FIREWALL}"),
        Jump("filter", "INPUT", f"-j {FIREWALL}"),
        Jump("filter", "OUTPUT", f"-j {FIREWALL}"),
        Jump("nat", "OUTPUT", f"{portals}-j {SERVICES}"),
        Jump("nat", "PREROUTING", f"{portals}-j {SERVICES}"),
        Jump("nat", "POSTROUTING", f'-m comment --comment "kubernetes postrouting rules" -j {POSTROUTING}'),
    )


def shared_rules(settings: Settings) -> dict[tuple[str, str], tuple[str, ...]]:
    """The rules of the shared chains that belong to no Service, by (table, chain). They follow all entries."""
    local_only = "" if settings.localhost_node_ports else "! -d 127.0.0.0/8 "
    note = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
    if settings.node_port_addresses:
        node_ports = tuple(f"-d {a} {note}-j {NODEPORTS}" for a in settings.node_port_addresses)
    else:
        node_ports = (f"{local_only}{note}-m addrtype --dst-type LOCAL -j {NODEPORTS}",)
    forward = [
        f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {MARK}/{MARK} -j ACCEPT',
        '-m comment --comment "kubernetes forwarding conntrack rule" '
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    if settings.drop_invalid:
        forward.insert(0, "-m conntrack --ctstate INVALID -j DROP")
    return {
        # One rule each, so that a flush is noticed as surely as a deletion (see apply.py).
        **{(table, CANARY): ('-m comment --comment "netproxy looks for this rule" -j RETURN',) for table in TABLES},
        ("nat", SERVICES): node_ports,
        ("nat", MARK_MASQ): (f"-j MARK --or-mark {MARK}",),
        ("nat", POSTROUTING): (
            f"-m mark ! --mark {MARK}/{MARK} -j RETURN",
            f"-j MARK --xor-mark {MARK}",  # once is enough: the packet may be wrapped and come by again
            '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
        ),
        ("filter", FORWARD): tuple(forward),
        # localhost NodePorts need route_localnet, which would open 127.0.0.1 of this node to its neighbours.
        ("filter", FIREWALL): (
            '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" '
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        )
        if settings.localhost_node_ports
        else (),
    }


@functools.lru_cache(maxsize=1 << 16)
def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest())[:16].decode()


def service_chain(prefix: str, name: PortName) -> str:
    """`KUBE-SVC-`, `KUBE-SVL-`, `KUBE-EXT-` or `KUBE-FW-` and kube-proxy's hash of the port."""
    return prefix + _hash(f"{name}{name.protocol.lower()}")


def endpoint_chain(name: PortName, endpoint: Endpoint) -> str:
    return "KUBE-SEP-" + _hash(f"{name}{name.protocol.lower()}{endpoint}")


def port_rules(plan: ServicePlan, settings: Settings) -> PortRules:
    """All rules of one Service port."""
    return _Builder(plan, settings).build()


class _Builder:
    def __init__(self, plan: ServicePlan, settings: Settings) -> None:
        self.plan, self.port, self.settings = plan, plan.port, settings
        name, protocol = plan.port.name, plan.port.protocol.lower()
        self.svc, self.svl = service_chain("KUBE-SVC-", name), service_chain("KUBE-SVL-", name)
        self.ext, self.fw = service_chain("KUBE-EXT-", name), service_chain("KUBE-FW-", name)
        self.match = f"-p {protocol} -m {protocol} --dport "
        self.protocol = protocol
        self.chains: dict[str, tuple[str, ...]] = {}
        self.entries: list[tuple[str, str, str]] = []

    def comment(self, text: str = "") -> str:
        if not self.settings.comments:
            return ""
        return f'-m comment --comment "{self.port.name}{" " if text else ""}{text}" '

    def build(self) -> PortRules:
        plan, port = self.plan, self.port
        cluster_ip = f"-d {port.cluster_ip}/32 {self.match}{port.port} "
        if plan.internal:
            internal = self.svl if port.internal_local else self.svc
            self.entries.append(("nat", SERVICES, f"{cluster_ip}{self.comment('cluster IP')}-j {internal}"))
        else:
            self.refuse(SERVICES, cluster_ip, has_any=plan.has_any)
        if port.external:
            self.external_entries()
            if plan.has_any:
                self.chains[self.ext] = tuple(self.external_rules())
        if plan.cluster and (not port.internal_local or (port.external and plan.has_any)):
            self.chains[self.svc] = tuple(self.masquerade(cluster_ip)) + tuple(self.balance(plan.cluster))
        if plan.local:
            first = tuple(self.masquerade(cluster_ip)) if port.internal_local else ()
            self.chains[self.svl] = first + tuple(self.balance(plan.local))
        for endpoint in plan.all:
            self.chains[endpoint_chain(port.name, endpoint)] = tuple(self.endpoint_rules(endpoint))
        if port.health_check_node_port:
            rule = (
                f"-p tcp -m tcp --dport {port.health_check_node_port} {self.comment('health check node port')}-j ACCEPT"
            )
            self.entries.append(("filter", NODEPORTS, rule))
        return PortRules(self.chains, tuple(self.entries))

    def external_entries(self) -> None:
        """Entries for external IPs, load balancer addresses and the NodePort: to KUBE-EXT-x, or refusal."""
        plan, port = self.plan, self.port
        addresses = [(ip, "external IP", self.ext) for ip in port.external_ips]
        guarded = self.fw if port.source_ranges else self.ext
        addresses += [(ip, "loadbalancer IP", guarded) for ip in port.load_balancer_ips]
        for ip, kind, target in addresses:
            match = f"-d {ip}/32 {self.match}{port.port} "
            if plan.has_any:
                self.entries.append(("nat", SERVICES, f"{match}{self.comment(kind)}-j {target}"))
            if not plan.external:
                self.refuse(EXTERNAL_SERVICES, match, has_any=plan.has_any)
            if target == self.fw:
                comment = self.comment("traffic not accepted by source ranges")
                self.entries.append(("filter", PROXY_FIREWALL, f"{match}{comment}-j DROP"))
        if port.source_ranges and port.load_balancer_ips and plan.has_any:
            self.chains[self.fw] = tuple(self.source_range_rules())
        if port.node_port:
            if plan.has_any:
                rule = f"{self.match}{port.node_port} {self.comment()}-j {self.ext}"
                self.entries.append(("nat", NODEPORTS, rule))
            if not plan.external:
                match = f"{self.match}{port.node_port} -m addrtype --dst-type LOCAL "
                self.refuse(EXTERNAL_SERVICES, match, has_any=plan.has_any)

    def refuse(self, chain: str, match: str, *, has_any: bool) -> None:
        """No endpoint at all: say so at once. None on this node (policy Local): silence, so that a load balancer's
        packet is not answered in the wrong name."""
        if has_any:
            self.entries.append(("filter", chain, f"{match}{self.comment('has no local endpoints')}-j DROP"))
        else:
            self.entries.append(("filter", chain, f"{match}{self.comment('has no endpoints')}-j REJECT"))

    def external_rules(self) -> Iterator[str]:
        """KUBE-EXT-x. Policy Cluster hides the client, because the answer must come back through this node; policy
        Local keeps it, except for clients on this node and in pods, who are served from the whole cluster."""
        if not self.port.external_local:
            yield f"{self.comment('masquerade traffic for external destinations')}-j {MARK_MASQ}"
        elif self.plan.cluster:
            if self.settings.cluster_cidr:
                yield f"-s {self.settings.cluster_cidr} {self.comment('pod traffic')}-j {self.svc}"
            local = "-m addrtype --src-type LOCAL "
            yield f"{self.comment('masquerade LOCAL traffic')}{local}-j {MARK_MASQ}"
            yield f"{self.comment('route LOCAL traffic')}{local}-j {self.svc}"
        if self.plan.external:
            yield f"-j {self.svl if self.port.external_local else self.svc}"

    def source_range_rules(self) -> Iterator[str]:
        """KUBE-FW-x: who may use the load balancer's addresses. The rest is dropped by KUBE-PROXY-FIREWALL."""
        import ipaddress

        for source in self.port.source_ranges:
            yield f"-s {source} {self.comment('loadbalancer IP')}-j {self.ext}"
        networks = [ipaddress.ip_network(r, strict=False) for r in self.port.source_ranges]
        if any(ipaddress.ip_address(ip) in n for ip in self.settings.node_ips for n in networks):
            # Locally made packets to the address may carry it as their source.
            for ip in self.port.load_balancer_ips:
                yield f"-s {ip}/32 {self.comment('loadbalancer IP')}-j {self.ext}"

    def masquerade(self, cluster_ip: str) -> Iterator[str]:
        if self.settings.masquerade_all:
            yield f"{cluster_ip}{self.comment('cluster IP')}-j {MARK_MASQ}"
        elif self.settings.cluster_cidr:
            # From outside the pods to a ClusterIP: the answer has to come back here.
            yield f"! -s {self.settings.cluster_cidr} {cluster_ip}{self.comment('cluster IP')}-j {MARK_MASQ}"

    def balance(self, endpoints: Sequence[Endpoint]) -> Iterator[str]:
        """One of `endpoints`: the one that this client had lately, if asked for; else each with equal probability."""
        chains = [(endpoint_chain(self.port.name, e), f"-> {e}") for e in endpoints]
        if self.port.affinity_s:
            for chain, text in chains:
                recent = f"-m recent --name {chain} --rcheck --seconds {self.port.affinity_s} --reap "
                yield f"{self.comment(text)}{recent}-j {chain}"
        for remaining, (chain, text) in zip(range(len(chains), 0, -1), chains, strict=True):
            chance = f"-m statistic --mode random --probability {1 / remaining:.10f} " if remaining > 1 else ""
            yield f"{self.comment(text)}{chance}-j {chain}"

    def endpoint_rules(self, endpoint: Endpoint) -> Iterator[str]:
        """KUBE-SEP-y. A pod that reaches itself through its Service must see another address than its own."""
        yield f"-s {endpoint.ip}/32 {self.comment()}-j {MARK_MASQ}"
        recent = f"-m recent --name {endpoint_chain(self.port.name, endpoint)} --set " if self.port.affinity_s else ""
        yield f"{self.comment()}{recent}-p {self.protocol} -m {self.protocol} -j DNAT --to-destination {endpoint}"
