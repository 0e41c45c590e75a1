"""The iptables rules of IPVS mode: as many for ten thousand Services as for one. Pure.

    nat     PREROUTING, OUTPUT ─> KUBE-SERVICES: mark what must be masqueraded   POSTROUTING ─> KUBE-POSTROUTING: do it
    filter  INPUT ─> KUBE-PROXY-FIREWALL (source ranges, policy Local) ─> KUBE-IPVS-FILTER: an address on kube-ipvs0 is
            this machine's own, so without it the node's sshd would answer at every ClusterIP

IPVS itself works after filter's INPUT and before filter's OUTPUT: rules in INPUT see the Service's address.
"""

from __future__ import annotations

from netproxy.iptables.rules import CANARY, FORWARD, MARK, MARK_MASQ, POSTROUTING, PROXY_FIREWALL, SERVICES, Jump
from netproxy.ipvs import sets
from netproxy.ipvs.plan import Settings

NODE_PORT, BALANCER, RANGES = "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-SOURCE-RANGES-FIREWALL"
IPVS_FILTER, IPVS_OUT_FILTER = "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"
SHARED_CHAINS: dict[str, tuple[str, ...]] = {
    "mangle": (CANARY,),
    "filter": (PROXY_FIREWALL, RANGES, IPVS_FILTER, IPVS_OUT_FILTER, NODE_PORT, FORWARD, CANARY),
    "nat": (SERVICES, BALANCER, NODE_PORT, POSTROUTING, MARK_MASQ, CANARY),
}
_NEW = "-m conntrack --ctstate NEW "
_CANARY = '-m comment --comment "netproxy looks for this rule" -j RETURN'


def jumps() -> tuple[Jump, ...]:
    """The way from the built-in chains to ours. The last one of a chain is inserted last, hence comes first."""
    portals = '-m comment --comment "kubernetes service portals" '
    firewall = '-m comment --comment "kubernetes load balancer firewall" '
    ipvs = '-m comment --comment "kubernetes ipvs access filter" '
    return (
        Jump("filter", "INPUT", f"{ipvs}-j {IPVS_FILTER}"),
        Jump("filter", "OUTPUT", f"{ipvs}-j {IPVS_OUT_FILTER}"),
        Jump("filter", "INPUT", f'-m comment --comment "kubernetes health check rules" -j {NODE_PORT}'),
        Jump("filter", "INPUT", f"{_NEW}{firewall}-j {PROXY_FIREWALL}"),
        Jump("filter", "OUTPUT", f"{_NEW}{firewall}-j {PROXY_FIREWALL}"),
        Jump("filter", "FORWARD", f'-m comment --comment "kubernetes forwarding rules" -j {FORWARD}'),
        Jump("nat", "OUTPUT", f"{portals}-j {SERVICES}"),
        Jump("nat", "PREROUTING", f"{portals}-j {SERVICES}"),
        Jump("nat", "POSTROUTING", f'-m comment --comment "kubernetes postrouting rules" -j {POSTROUTING}'),
    )


def rules(settings: Settings) -> dict[tuple[str, str], tuple[str, ...]]:
    """Every rule, by (table, chain)."""
    return {
        **{(table, CANARY): (_CANARY,) for table in SHARED_CHAINS},
        ("nat", SERVICES): tuple(_services(settings)),
        ("nat", BALANCER): (f"{_member(sets.LOAD_BALANCER_LOCAL)}-j RETURN", f"-j {MARK_MASQ}"),
        ("nat", NODE_PORT): tuple(_node_ports()),
        ("nat", MARK_MASQ): (f"-j MARK --or-mark {MARK}",),
        ("nat", POSTROUTING): (
            # A pod that reaches itself through its Service must see another address than its own.
            f"{_member(sets.LOOP_BACK, 'dst,dst,src')}-j MASQUERADE",
            f"-m mark ! --mark {MARK}/{MARK} -j RETURN",
            f"-j MARK --xor-mark {MARK}",
            '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
        ),
        ("filter", PROXY_FIREWALL): tuple(_firewall(settings)),
        ("filter", RANGES): (
            f"{_member(sets.SOURCE_CIDR, 'dst,dst,src')}-j RETURN",
            f"{_member(sets.SOURCE_IP, 'dst,dst,src')}-j RETURN",
            "-j DROP",
        ),
        ("filter", IPVS_FILTER): _access(),
        ("filter", IPVS_OUT_FILTER): _access(),
        ("filter", NODE_PORT): (f"-p tcp {_member(sets.HEALTH_CHECK, 'dst')}-j ACCEPT",),
        ("filter", FORWARD): (
            f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {MARK}/{MARK} -j ACCEPT',
            '-m comment --comment "kubernetes forwarding conntrack rule" '
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
    }


def text(settings: Settings) -> str:
    """What iptables-restore gets: a transaction a table."""
    written = rules(settings)
    lines: list[str] = []
    for table, chains in SHARED_CHAINS.items():
        lines += [f"*{table}", *(f":{chain} - [0:0]" for chain in chains)]
        lines += [f"-A {chain} {rule}" for chain in chains for rule in written[table, chain]]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def _member(name: str, directions: str = "dst,dst") -> str:
    return f"-m set --match-set {name} {directions} "


def _services(settings: Settings) -> list[str]:
    cluster_ip = _member(sets.CLUSTER_IP)
    if settings.masquerade_all:
        masquerade = f"{cluster_ip}-j {MARK_MASQ}"
    elif settings.cluster_cidr:
        # From outside the pods: the answer has to come back here. A connection from this node is among them: its
        # source is the ClusterIP itself, since that is the address of this machine nearest to it.
        masquerade = f"! -s {settings.cluster_cidr} {cluster_ip}-j {MARK_MASQ}"
    else:
        masquerade = f"{_member(sets.CLUSTER_IP, 'src,dst')}-j {MARK_MASQ}"
    local = "-m addrtype --src-type LOCAL "
    return [
        masquerade,
        f"{_member(sets.EXTERNAL_IP)}-j {MARK_MASQ}",
        f"{_member(sets.EXTERNAL_IP_LOCAL)}{local}-j {MARK_MASQ}",
        f"{_member(sets.LOAD_BALANCER_LOCAL)}{local}-j {MARK_MASQ}",
        f"{_member(sets.LOAD_BALANCER)}-j {BALANCER}",
        f"-m addrtype --dst-type LOCAL -j {NODE_PORT}",
    ]


def _node_ports() -> list[str]:
    lines = []
    for protocol, name in sets.NODE_PORT.items():
        directions = "dst,dst" if protocol == "SCTP" else "dst"
        match = f"-p {protocol.lower()} "
        lines.append(f"{match}{_member(sets.NODE_PORT_LOCAL[protocol], directions)}-j RETURN")
        lines.append(f"{match}{_member(name, directions)}-j {MARK_MASQ}")
    return lines


def _firewall(settings: Settings) -> list[str]:
    pods = f"! -s {settings.cluster_cidr} " if settings.cluster_cidr else ""
    return [
        f"{_member(sets.NO_LOCAL_INTERNAL)}-j DROP",
        f"{pods}{_member(sets.NO_LOCAL)}-m addrtype ! --src-type LOCAL -j DROP",
        f"{_member(sets.LOAD_BALANCER_FW)}-j {RANGES}",
    ]


def _access() -> tuple[str, ...]:
    """Refuse new connections to a Service's address at a port that is not the Service's. Pings are answered."""
    known = (sets.CLUSTER_IP, sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL, sets.LOAD_BALANCER)
    return (
        *(f"{_member(name)}-j RETURN" for name in known),
        "-p icmp -m icmp --icmp-type 8 -j RETURN",
        f"{_NEW}{_member(sets.IPVS_IPS, 'dst')}-j REJECT",
    )
