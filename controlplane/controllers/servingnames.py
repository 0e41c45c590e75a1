"""Which names a node's serving certificate may have.

Every certificate here is of one CA, so a node that got one for the API server's address could stand between clients
and the API. A node also writes its own addresses into its Node, so these prove nothing alone. Therefore: an address is
good if the request came from it (the API server writes that down, csr.PEER_ADDRESS), or if nobody else has it and it
does not contradict the Node. Kubernetes leaves this to people or add-ons; they check much the same.
"""

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from controlplane.controllers import csr, meta

_NO_NODES = ("kubernetes", "localhost")  # names that the API server's certificate has


@dataclass(frozen=True, slots=True)
class Known:
    """Nodes by name, and the API server's addresses."""

    nodes: Mapping[str, meta.Object]
    apiserver: Collection[str]


def serving_breach(read: csr.Csr, peer: Collection[str], known: Known) -> str:
    """Why `read`, a node's request for a serving certificate, has names that it should not have; empty if not."""
    name = read.request.common_name.removeprefix(csr.NODE_PREFIX)
    node = known.nodes.get(name)
    own = _addresses(node)
    if name in _NO_NODES:
        return f"{name} is no name for a node"
    for dns in read.request.dns_names:
        if dns != name and not (dns.startswith(name + ".") and dns in own):
            return f"{dns} is not the name of the node"
    others = {a for other, each in known.nodes.items() if other != name for a in _addresses(each)}
    for address in read.request.ip_addresses:
        text = str(address)
        if text in peer:
            continue
        if text in others:
            return f"{text} is another node's address"
        if text in known.apiserver:
            return f"{text} is the API server's address"
        if not _ordinary(address):
            return f"{text} is no address of a machine"
        if node is not None and text not in own:
            return f"{text} is not an address of the node"
    return ""


def _addresses(node: meta.Object | None) -> set[str]:
    return {a["address"] for a in meta.status(node).get("addresses") or ()} if node is not None else set()


def _ordinary(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local)
