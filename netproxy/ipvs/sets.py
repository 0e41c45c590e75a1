"""The ipsets of IPVS mode: names, types and how a member is written. Pure.

Where iptables mode has a rule for every Service, IPVS mode has one for every *kind* of address, and the addresses are
members of a set. All names are kube-proxy's, but for the two KUBE-NO-LOCAL sets, which are ours.
"""

from __future__ import annotations

CLUSTER_IP = "KUBE-CLUSTER-IP"
LOOP_BACK = "KUBE-LOOP-BACK"  # a pod, its port, the pod: it talks to itself through a Service
EXTERNAL_IP, EXTERNAL_IP_LOCAL = "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL"
LOAD_BALANCER, LOAD_BALANCER_LOCAL = "KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-LOCAL"
LOAD_BALANCER_FW = "KUBE-LOAD-BALANCER-FW"  # has source ranges
SOURCE_CIDR, SOURCE_IP = "KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-LOAD-BALANCER-SOURCE-IP"
NODE_PORT = {"TCP": "KUBE-NODE-PORT-TCP", "UDP": "KUBE-NODE-PORT-UDP", "SCTP": "KUBE-NODE-PORT-SCTP-HASH"}
NODE_PORT_LOCAL = {
    "TCP": "KUBE-NODE-PORT-LOCAL-TCP",
    "UDP": "KUBE-NODE-PORT-LOCAL-UDP",
    "SCTP": "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
}
HEALTH_CHECK = "KUBE-HEALTH-CHECK-NODE-PORT"
IPVS_IPS = "KUBE-IPVS-IPS"  # every address on kube-ipvs0
NO_LOCAL = "KUBE-NO-LOCAL"  # externalTrafficPolicy Local and no pod here: silence for those outside
NO_LOCAL_INTERNAL = "KUBE-NO-LOCAL-INTERNAL"  # internalTrafficPolicy Local and no pod here: silence for all

_IP_PORT, _PORT = "hash:ip,port", "bitmap:port"
SETS: dict[str, str] = {
    CLUSTER_IP: _IP_PORT,
    LOOP_BACK: "hash:ip,port,ip",
    EXTERNAL_IP: _IP_PORT,
    EXTERNAL_IP_LOCAL: _IP_PORT,
    LOAD_BALANCER: _IP_PORT,
    LOAD_BALANCER_LOCAL: _IP_PORT,
    LOAD_BALANCER_FW: _IP_PORT,
    SOURCE_CIDR: "hash:ip,port,net",
    SOURCE_IP: "hash:ip,port,ip",
    NODE_PORT["TCP"]: _PORT,
    NODE_PORT["UDP"]: _PORT,
    NODE_PORT["SCTP"]: _IP_PORT,
    NODE_PORT_LOCAL["TCP"]: _PORT,
    NODE_PORT_LOCAL["UDP"]: _PORT,
    NODE_PORT_LOCAL["SCTP"]: _IP_PORT,
    HEALTH_CHECK: _PORT,
    IPVS_IPS: "hash:ip",
    NO_LOCAL: _IP_PORT,
    NO_LOCAL_INTERNAL: _IP_PORT,
}
"""Type by name."""


def ip_port(ip: str, protocol: str, port: int, other: str = "") -> str:
    """A member of a hash:ip,port set; with `other`, of hash:ip,port,ip or hash:ip,port,net."""
    member = f"{ip},{protocol.lower()}:{port}"
    return f"{member},{other}" if other else member
