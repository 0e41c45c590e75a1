"""How this node reaches the others' pods: a route for each node's pod CIDR, VXLAN where a route is not enough.

    same link (the node's address needs no gateway)    10.244.2.0/24 via 10.77.0.12 dev eth0
    behind a router, which would not know pod CIDRs    10.244.2.0/24 via 10.244.2.0 dev wherry-vxlan onlink

Routes of ours carry a protocol number of their own (`ip route show proto 87`), which is how stale ones are found after
a restart. A VXLAN neighbour's inner address and MAC follow from its pod CIDR, so nodes need not tell each other
anything but what their Node objects say. Both sides must see each other as remote, which a router between them ensures.

`plan()` is pure; `Routes.sync()` carries it out.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nodeagent.network import inventory
from nodeagent.network import netlink as nl
from nodeagent.network.bridge import mac_for, remove_link
from nodeagent.network.inventory import Route
from nodeagent.network.netlink import Message, Netlink, NetlinkError, attribute, text, u8, u16be, u32

PROTOCOL = 87  # "W"; not taken in /etc/iproute2/rt_protos
VXLAN_PORT, VXLAN_ID = 8472, 1  # the port that flannel and Linux use
VXLAN_OVERHEAD = 50  # outer Ethernet, IP, UDP and VXLAN headers, in bytes
_VTEP_MAC = b"\x0a\x59"
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15  # linux/if_link.h


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: its name, its InternalIP and the pod CIDRs that it holds."""

    name: str
    address: str
    pod_cidrs: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A VXLAN neighbour: pods of `network` behind the node at `address`."""

    network: bytes
    prefix_length: int
    address: bytes


def plan(peers: Iterable[Peer], on_link: dict[bytes, int]) -> tuple[list[Route], list[Tunnel]]:
    """The routes and tunnels to `peers`. `on_link`: for each packed address that needs no gateway, the device's index;
    a peer that is not in it gets a tunnel."""
    routes, tunnels = [], []
    for peer in peers:
        address = ipaddress.ip_address(peer.address).packed
        for cidr in peer.pod_cidrs:
            network = ipaddress.ip_network(cidr)
            if network.version != (4 if len(address) == 4 else 6):
                continue  # dual stack: the other family's InternalIP carries it
            packed, length = network.network_address.packed, network.prefixlen
            if address in on_link:
                routes.append(Route(packed, length, address, on_link[address], PROTOCOL))
            else:
                tunnels.append(Tunnel(packed, length, address))
    return routes, tunnels


class Routes:
    """The routes to other nodes' pods, kept equal to what the Node objects say."""

    def __init__(self, netlink: Netlink, vxlan_device: str) -> None:
        self._netlink = netlink
        self._vxlan = vxlan_device

    def sync(self, peers: Sequence[Peer], own_cidr: str, node_ip: str, mtu: int) -> tuple[int, int]:
        """Make the kernel's routes those of `peers`; returns how many were added and removed. `mtu` is the uplink's.
        Raises NetlinkError for the first peer that failed, after trying all others."""
        on_link = {}
        for address in {ipaddress.ip_address(peer.address).packed for peer in peers}:
            try:
                route = inventory.route_to(self._netlink, address)
            except NetlinkError:
                continue
            if not route.gateway:
                on_link[address] = route.index
        wanted, tunnels = plan(peers, on_link)
        if tunnels:
            index = self._ensure_vxlan(own_cidr, node_ip, mtu)
            self._sync_neighbours(index, tunnels)
            wanted += [Route(t.network, t.prefix_length, t.network, index, PROTOCOL) for t in tunnels]
        else:
            remove_link(self._netlink, self._vxlan)
        return self._sync_routes(wanted)

    def fence(self, cluster: str) -> None:
        """Pods that no node has a route for are unreachable, instead of being looked for on the way out."""
        self._fence(cluster, nl.RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_REPLACE)

    def _fence(self, cluster: str, operation: int, flags: int) -> None:
        network = ipaddress.ip_network(cluster)
        packed = network.network_address.packed
        body = nl.route_body(
            nl.family_of(packed), network.prefixlen, protocol=PROTOCOL, kind=nl.RTN_UNREACHABLE
        ) + attribute(nl.RTA_DST, packed)
        self._netlink.send([Message(f"fence {cluster}", operation, body, flags, accept=(errno.ESRCH,))])

    def clear(self, cluster: str) -> None:
        """Remove all routes of ours and the VXLAN device."""
        self._sync_routes([])
        self._fence(cluster, nl.RTM_DELROUTE, 0)
        remove_link(self._netlink, self._vxlan)

    def _sync_routes(self, wanted: Sequence[Route]) -> tuple[int, int]:
        found = {r for r in inventory.routes(self._netlink) if r.protocol == PROTOCOL}
        missing, stale = set(wanted) - found, found - set(wanted)
        replaced = {(r.destination, r.prefix_length) for r in missing}
        gone = [r for r in stale if (r.destination, r.prefix_length) not in replaced]
        flags = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
        self._netlink.send(
            [Message(f"remove route to {_show(r)}", nl.RTM_DELROUTE, _pack(r), accept=(errno.ESRCH,)) for r in gone]
            + [Message(f"add route to {_show(r)}", nl.RTM_NEWROUTE, _pack(r), flags) for r in missing]
        )
        return len(missing), len(gone)

    def _ensure_vxlan(self, own_cidr: str, node_ip: str, mtu: int) -> int:
        """The VXLAN device's index; the device is made anew if its MAC (hence our pod CIDR) is another."""
        own = ipaddress.ip_network(own_cidr).network_address.packed
        mac = mac_for(own, _VTEP_MAC)
        found = inventory.link(self._netlink, self._vxlan)
        if found is not None and found.mac != mac:
            remove_link(self._netlink, self._vxlan)
            found = None
        if found is None:
            data = (
                u32(_VXLAN_ID, VXLAN_ID)
                + attribute(_VXLAN_LOCAL, ipaddress.ip_address(node_ip).packed)
                + u16be(_VXLAN_PORT, VXLAN_PORT)
                + u8(_VXLAN_LEARNING, 0)
            )
            info = text(nl.IFLA_INFO_KIND, "vxlan") + attribute(nl.IFLA_INFO_DATA, data)
            body = (
                nl.link_body(flags=nl.IFF_UP, change=nl.IFF_UP)
                + text(nl.IFLA_IFNAME, self._vxlan)
                + attribute(nl.IFLA_ADDRESS, mac)
                + u32(nl.IFLA_MTU, mtu - VXLAN_OVERHEAD)
                + attribute(nl.IFLA_LINKINFO, info)
            )
            flags = nl.NLM_F_CREATE | nl.NLM_F_EXCL
            self._netlink.send([Message(f"create {self._vxlan}", nl.RTM_NEWLINK, body, flags)])
            found = inventory.link(self._netlink, self._vxlan)
            assert found is not None
        address = nl.addr_body(found.index, own, 32) + attribute(nl.IFA_LOCAL, own) + attribute(nl.IFA_ADDRESS, own)
        flags = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
        self._netlink.send([Message(f"add address to {self._vxlan}", nl.RTM_NEWADDR, address, flags)])
        return found.index

    def _sync_neighbours(self, index: int, tunnels: Sequence[Tunnel]) -> None:
        """For each tunnel: who has the inner address (ARP), and which node carries that MAC (forwarding database).
        Entries of nodes that are gone stay until the device goes; without a route nothing uses them."""
        messages = []
        flags = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
        for tunnel in tunnels:
            mac = attribute(nl.NDA_LLADDR, mac_for(tunnel.network, _VTEP_MAC))
            arp = nl.neigh_body(nl.family_of(tunnel.network), index) + attribute(nl.NDA_DST, tunnel.network) + mac
            carrier = nl.neigh_body(socket.AF_BRIDGE, index, flags=nl.NTF_SELF) + attribute(nl.NDA_DST, tunnel.address)
            messages += [
                Message("add VXLAN neighbour", nl.RTM_NEWNEIGH, arp, flags),
                Message("add VXLAN forwarding entry", nl.RTM_NEWNEIGH, carrier + mac, flags),
            ]
        self._netlink.send(messages)


def _pack(route: Route) -> bytes:
    onlink = nl.RTNH_F_ONLINK if route.gateway == route.destination else 0
    return (
        nl.route_body(nl.family_of(route.destination), route.prefix_length, protocol=route.protocol, flags=onlink)
        + attribute(nl.RTA_DST, route.destination)
        + attribute(nl.RTA_GATEWAY, route.gateway)
        + u32(nl.RTA_OIF, route.index)
    )


def _show(route: Route) -> str:
    return f"{ipaddress.ip_address(route.destination)}/{route.prefix_length}"
