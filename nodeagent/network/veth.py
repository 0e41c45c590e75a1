"""A pod's wire: one veth pair, its far end `eth0` inside the pod's namespace, in two sends.

    on the node    create the pair with the peer already in the namespace, our end on the bridge, hairpin, up
    in the pod     lo and eth0 up · address · route to the gateway · default route through it

The pod's address has no prefix route: all it sends goes to the gateway's MAC, so the node routes between its own pods
too, and a Service's rewritten reply always passes the node's connection tracking. Our end is never deleted: that waits
23 ms for the kernel's RCU, while closing the namespace takes both ends along for nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re

from nodeagent.network import inventory
from nodeagent.network import netlink as nl
from nodeagent.network.bridge import mac_for, remove_link
from nodeagent.network.netlink import Message, Netlink, NetlinkError, attribute, text, u8, u32

POD_DEVICE = "eth0"
_LOOPBACK_INDEX = 1  # in every network namespace


def host_device(sandbox_id: str) -> str:
    """The name of our end: `veth` and the first eleven digits of the sandbox's id (15 characters is the kernel's
    limit)."""
    if not re.fullmatch(r"[0-9a-f]{11,}", sandbox_id):
        sandbox_id = hashlib.sha256(sandbox_id.encode()).hexdigest()
    return "veth" + sandbox_id[:11]


def connect(
    netlink: Netlink,
    netns_fd: int,
    device: str,
    bridge_index: int,
    mtu: int,
    address: bytes,
    gateway: bytes,
    length: int,
) -> None:
    """Wire the namespace `netns_fd`: afterwards it has `address`/`length` and a default route by `gateway`. `device`
    names our end. Repeating it is harmless. Raises OSError."""
    try:
        _create_pair(netlink, netns_fd, device, bridge_index, mtu, address)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        # A repeated attach; or half of an earlier one, or a dying namespace still holds the name: then the slow way
        # out is the right one.
        if not _is_wired(netns_fd, address):
            remove_link(netlink, device)
            _create_pair(netlink, netns_fd, device, bridge_index, mtu, address)
    _configure(netns_fd, address, gateway, length)


def _create_pair(netlink: Netlink, netns_fd: int, device: str, bridge_index: int, mtu: int, address: bytes) -> None:
    peer = (
        nl.link_body()  # not up yet: an end cannot be opened before it knows the other (ENOTCONN)
        + text(nl.IFLA_IFNAME, POD_DEVICE)
        + u32(nl.IFLA_NET_NS_FD, netns_fd)
        + u32(nl.IFLA_MTU, mtu)
        + attribute(nl.IFLA_ADDRESS, mac_for(address))
    )
    info = text(nl.IFLA_INFO_KIND, "veth") + attribute(nl.IFLA_INFO_DATA, attribute(nl.VETH_INFO_PEER, peer))
    create = nl.link_body() + text(nl.IFLA_IFNAME, device) + u32(nl.IFLA_MTU, mtu)
    hairpin = text(nl.IFLA_INFO_SLAVE_KIND, "bridge") + attribute(nl.IFLA_INFO_SLAVE_DATA, u8(nl.IFLA_BRPORT_MODE, 1))
    # No link-local address on our end: nobody speaks IPv6 to a bridge port, and each costs detection and multicast.
    quiet = attribute(nl.AF_INET6, u8(nl.IFLA_INET6_ADDR_GEN_MODE, nl.ADDR_GEN_MODE_NONE))
    by_name = text(nl.IFLA_IFNAME, device)
    netlink.send(
        [
            Message(
                f"create veth {device}",
                nl.RTM_NEWLINK,
                create + u32(nl.IFLA_MASTER, bridge_index) + attribute(nl.IFLA_LINKINFO, info),
                nl.NLM_F_CREATE | nl.NLM_F_EXCL,
            ),
            Message(
                f"set up veth {device}",
                nl.RTM_NEWLINK,
                nl.link_body(flags=nl.IFF_UP, change=nl.IFF_UP)
                + by_name
                + attribute(nl.IFLA_AF_SPEC, quiet)
                + attribute(nl.IFLA_LINKINFO, hairpin),
            ),
        ]
    )


def _configure(netns_fd: int, address: bytes, gateway: bytes, length: int) -> None:
    family, bits = nl.family_of(address), len(address) * 8
    inside, index = nl.open_in(netns_fd, POD_DEVICE)
    out = u32(nl.RTA_OIF, index)
    replace = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
    own = attribute(nl.IFA_LOCAL, address) + attribute(nl.IFA_ADDRESS, address)
    no_prefix = u32(nl.IFA_FLAGS, nl.IFA_F_NOPREFIXROUTE | nl.IFA_F_NODAD)
    to_gateway = nl.route_body(family, bits, scope=nl.RT_SCOPE_LINK) + attribute(nl.RTA_DST, gateway) + out
    default = nl.route_body(family, 0) + attribute(nl.RTA_GATEWAY, gateway) + out
    lo, eth0 = (nl.link_body(i, flags=nl.IFF_UP, change=nl.IFF_UP) for i in (_LOOPBACK_INDEX, index))
    with inside:
        inside.send(
            [
                Message("bring up lo in the pod", nl.RTM_NEWLINK, lo),
                Message("bring up eth0 in the pod", nl.RTM_NEWLINK, eth0),
                Message(
                    f"add {length}-bit address in the pod",
                    nl.RTM_NEWADDR,
                    nl.addr_body(index, address, length) + own + no_prefix,
                    replace,
                ),
                Message("add route to the gateway in the pod", nl.RTM_NEWROUTE, to_gateway, replace),
                Message("add default route in the pod", nl.RTM_NEWROUTE, default, replace),
            ]
        )


def _is_wired(netns_fd: int, address: bytes) -> bool:
    """Whether the namespace already has an eth0 with the MAC of `address` (an attach that is repeated)."""
    try:
        inside, _ = nl.open_in(netns_fd, POD_DEVICE)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    with inside:
        found = inventory.link(inside, POD_DEVICE)
        if found is None:
            return False
        if found.mac != mac_for(address):
            raise OSError(errno.EEXIST, f"{POD_DEVICE} is in the pod already and not ours: {os.strerror(errno.EEXIST)}")
        return True
