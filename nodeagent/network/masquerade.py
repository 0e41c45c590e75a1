"""Which packets leave with the node's address, and which may be forwarded at all, as iptables chains of our own.

    nat     POSTROUTING ─> WHERRY-MASQUERADE   from a pod of this node: pods and nodes of the cluster keep seeing
                                               the pod's address, the rest of the world sees the node's
    filter  FORWARD     ─> WHERRY-FORWARD      to and from pods: accepted even where FORWARD's policy is DROP

Our jump into FORWARD is appended, because netproxy's own (which refuse connections to Services without endpoints) must
be asked first.
"""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.network.iptables import Chain, Jump

MASQUERADE = "WHERRY-MASQUERADE"
FORWARD = "WHERRY-FORWARD"

JUMPS = (
    Jump("nat", "POSTROUTING", ("-m", "comment", "--comment", "wherry pod network", "-j", MASQUERADE)),
    Jump("filter", "FORWARD", ("-m", "comment", "--comment", "wherry pod network", "-j", FORWARD)),
)


def chains(pod_cidr: str, cluster_cidr: str, node_ips: Iterable[str]) -> list[Chain]:
    """The two chains for a node with `pod_cidr` in a cluster whose pods are in `cluster_cidr` and whose nodes have
    `node_ips`. Only the first packet of a connection from a pod to outside the cluster walks all of it."""
    masquerade = [
        f"! -s {pod_cidr} -j RETURN",
        f"-d {cluster_cidr} -j RETURN",
        "-d 224.0.0.0/4 -j RETURN",
        *(f"-d {ip}/32 -j RETURN" for ip in sorted(set(node_ips))),
        "-j MASQUERADE --random-fully",
    ]
    forward = [f"-s {cluster_cidr} -j ACCEPT", f"-d {cluster_cidr} -j ACCEPT"]
    return [Chain("nat", MASQUERADE, masquerade), Chain("filter", FORWARD, forward)]
