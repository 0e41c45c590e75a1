"""The node's bridge: the gateway of its pods, and the uplink that its MTU comes from.

Pods are not on one segment: each has its address with a host route to the gateway only (see veth.py), so every packet
between pods of this node is routed by the node, meets the node's rules, and needs no br_netfilter. The bridge's MAC is
derived from its address and therefore survives its re-creation; without one the kernel would change it with every port.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from nodeagent.network import inventory
from nodeagent.network import netlink as nl
from nodeagent.network.netlink import Message, Netlink, attribute, text, u32


@dataclass(frozen=True, slots=True)
class Uplink:
    """The device that carries the node's own address."""

    index: int
    name: str
    mtu: int


def mac_for(address: bytes, prefix: bytes = b"\x0a\x58") -> bytes:
    """The MAC of the device with `address`: locally administered, the address's last four bytes in it. An address that
    is reused keeps its MAC, so no neighbour's ARP entry can be wrong."""
    return prefix + address[-4:]


def find_uplink(netlink: Netlink, node_ip: bytes) -> Uplink:
    """The device with `node_ip`. Raises LookupError if the node does not have that address."""
    for index, address, _ in inventory.addresses(netlink):
        if address == node_ip:
            for device in inventory.links(netlink):
                if device.index == index:
                    return Uplink(index, device.name, device.mtu)
    raise LookupError("no device of this node has its InternalIP")


def ensure_bridge(netlink: Netlink, name: str, address: bytes, prefix_length: int, mtu: int) -> inventory.Link:
    """The bridge `name` with exactly this address, up. Idempotent. Raises NetlinkError, and FileExistsError if a device
    of that name is not a bridge."""
    mac = mac_for(address)
    found = inventory.link(netlink, name)
    if found is not None and found.kind != "bridge":
        raise FileExistsError(f"{name} exists and is not a bridge but {found.kind or 'hardware'}")
    if found is None:
        kind = attribute(nl.IFLA_LINKINFO, text(nl.IFLA_INFO_KIND, "bridge"))
        body = nl.link_body() + text(nl.IFLA_IFNAME, name) + attribute(nl.IFLA_ADDRESS, mac) + kind
        netlink.send(
            [Message(f"create bridge {name}", nl.RTM_NEWLINK, body, nl.NLM_F_CREATE | nl.NLM_F_EXCL, (errno.EEXIST,))]
        )
        found = inventory.link(netlink, name)
        assert found is not None
    stale = [
        (old, length)
        for index, old, length in inventory.addresses(netlink)
        if index == found.index and len(old) == len(address) and (old, length) != (address, prefix_length)
    ]
    addresses = attribute(nl.IFA_LOCAL, address) + attribute(nl.IFA_ADDRESS, address)
    netlink.send(
        [
            *(
                Message(
                    f"remove old address of {name}",
                    nl.RTM_DELADDR,
                    nl.addr_body(found.index, old, length) + attribute(nl.IFA_LOCAL, old),
                )
                for old, length in stale
            ),
            Message(
                f"set up bridge {name}",
                nl.RTM_NEWLINK,
                nl.link_body(found.index, flags=nl.IFF_UP, change=nl.IFF_UP)
                + attribute(nl.IFLA_ADDRESS, mac)
                + u32(nl.IFLA_MTU, mtu),
            ),
            Message(
                f"add address to bridge {name}",
                nl.RTM_NEWADDR,
                nl.addr_body(found.index, address, prefix_length) + addresses,
                nl.NLM_F_CREATE | nl.NLM_F_REPLACE,
            ),
        ]
    )
    return found


def remove_link(netlink: Netlink, name: str) -> None:
    """Delete the device `name`. No error if it is not there. Raises NetlinkError."""
    body = nl.link_body() + text(nl.IFLA_IFNAME, name)
    netlink.send([Message(f"delete {name}", nl.RTM_DELLINK, body, accept=(errno.ENODEV,))])


def write_sysctl(name: str, value: str) -> None:
    """Set `net.ipv4.ip_forward` and its like for this process's network namespace, unless it has that value already
    (a container's /proc/sys may be read-only). Raises OSError."""
    path = "/proc/sys/" + name.replace(".", "/")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.read(fd, 64).decode().strip() == value:
            return
    finally:
        os.close(fd)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
