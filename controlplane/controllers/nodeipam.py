"""Node IPAM: give each node its own piece of the cluster's pod network (`spec.podCIDR`), and take it back.

`CidrSet` is the pure part: which pieces of one range are taken. What is in use is read from the nodes themselves before
anything is given out, so a restart forgets nothing; a piece returns when its node is deleted.
"""

import ipaddress
import logging
from collections.abc import Sequence

from controlplane.client.resources import NODES
from controlplane.controllers import meta
from controlplane.controllers.reconcile import Context, Controller

log = logging.getLogger(__name__)


class RangeFull(Exception):
    """No piece of the range is free."""


class CidrSet:
    """The pieces of `prefix` length `mask` in one range."""

    def __init__(self, cidr: str, mask: int) -> None:
        """`cidr` such as 10.244.0.0/16. Raises ValueError for a bad range or a mask that does not fit into it."""
        self.range = ipaddress.ip_network(cidr)
        if not self.range.prefixlen <= mask <= self.range.max_prefixlen:
            raise ValueError(f"node_cidr_mask_size {mask} does not fit into cluster_cidr {cidr}")
        self.mask = mask
        self._shift = self.range.max_prefixlen - mask
        self._size = 1 << (mask - self.range.prefixlen)
        self._taken: set[int] = set()
        self._next = 0

    def occupy(self, cidr: str) -> None:
        """Note that `cidr` is in use; one outside of the range is not ours to note."""
        self._taken |= self._indices(cidr)

    def release(self, cidr: str) -> None:
        """`cidr` is free again."""
        self._taken -= self._indices(cidr)

    def allocate(self) -> str:
        """A free piece, which is then taken. Goes round, so that a piece just released is used again as late as
        possible. Raises RangeFull."""
        for step in range(self._size):
            index = (self._next + step) % self._size
            if index not in self._taken:
                self._taken.add(index)
                self._next = (index + 1) % self._size
                address = self.range.network_address + (index << self._shift)
                return f"{address}/{self.mask}"
        raise RangeFull(f"no free /{self.mask} in {self.range}")

    def _indices(self, cidr: str) -> set[int]:
        """The pieces that `cidr` touches (several, if nodes once had larger ones)."""
        network = ipaddress.ip_network(cidr, strict=False)
        if network.version != self.range.version or not network.overlaps(self.range):
            return set()
        base = int(self.range.network_address)
        first = max(int(network.network_address) - base, 0) >> self._shift
        last = min(int(network.broadcast_address) - base >> self._shift, self._size - 1)
        return set(range(first, last + 1))


def cidrs_of(node: meta.Object) -> list[str]:
    spec = node["spec"]
    return spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])


class NodeIpamController(Controller):
    """See the module."""

    name = "node-ipam-controller"
    workers = 1  # allocation is in memory; one at a time keeps a node from being given two

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        masks = {4: self.config.node_cidr_mask_size, 6: self.config.node_cidr_mask_size_ipv6}
        ranges = [c.strip() for c in self.config.cluster_cidr.split(",") if c.strip()]
        self.sets: Sequence[CidrSet] = [CidrSet(c, masks[ipaddress.ip_network(c).version]) for c in ranges]
        self._given: dict[str, list[str]] = {}  # node -> what it holds
        self.nodes = self.view(NODES)
        self.nodes.add_handler(added=self._node, updated=lambda old, new: self._node(new), deleted=self._gone)

    def _node(self, node: meta.Object) -> None:
        if cidrs_of(node):
            self._note(meta.name(node), cidrs_of(node))
        else:
            self.enqueue(node)

    def _note(self, name: str, cidrs: list[str]) -> None:
        if self._given.get(name) != cidrs:
            self._release(name)
            self._given[name] = cidrs
            for cidr in cidrs:
                for each in self.sets:
                    each.occupy(cidr)

    def _release(self, name: str) -> None:
        for cidr in self._given.pop(name, ()):
            for each in self.sets:
                each.release(cidr)

    def _gone(self, node: meta.Object) -> None:
        self._release(meta.name(node))

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(key)
        if node is None:
            self._release(key)
            return None
        if cidrs_of(node):
            return None
        if key not in self._given:  # else: given before, and the write failed
            try:
                cidrs = [each.allocate() for each in self.sets]
            except RangeFull as error:
                self.event(node, "CIDRNotAvailable", f"Node {key} status is now: CIDRNotAvailable", warning=True)
                log.warning("node=%s error=%s", key, error)
                return self.config.node_monitor_period_seconds
            self._given[key] = cidrs
        cidrs = self._given[key]
        await self.writer.patch(NODES, node, {"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}})
        log.info("node=%s pod_cidrs=%s", key, ",".join(cidrs))
        return None
