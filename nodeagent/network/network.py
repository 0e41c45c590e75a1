"""The pod network of one node: bridge, addresses, wires, routes to the other nodes, the way out.

`LinuxPodNetwork` implements `PodNetwork` (runtime/interface.py) for whichever network namespace the agent runs in; a
lab corner is as good as a machine. All kernel work happens on one thread of its own: netlink calls may wait for the
kernel's RTNL lock, `setns(2)` must not move the event loop, and one thread is all the mutual exclusion that is needed.

State on disk (address leases, host ports) is found again by the next `setup()`; everything in the kernel is made
idempotently, so an agent may be killed between any two lines here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from nodeagent.network import hostports, masquerade, peers, veth
from nodeagent.network.bridge import ensure_bridge, find_uplink, remove_link, write_sysctl
from nodeagent.network.hostports import HostPorts, PortTaken
from nodeagent.network.ipam import AddressPool, PoolExhausted
from nodeagent.network.iptables import Chain, Iptables, IptablesError
from nodeagent.network.netlink import Netlink
from nodeagent.network.netns import open_namespace
from nodeagent.network.routes import VXLAN_OVERHEAD, Peer, Routes
from nodeagent.runtime.interface import PortMapping, RuntimeFailure

log = logging.getLogger(__name__)
T = TypeVar("T")
_RETRY_S = 5.0
_STUCK_S = 180.0  # longer than the longest timeout of anything that the thread does, several times


class NetworkFailure(RuntimeFailure):
    """The pod network could not do what was asked; the message names the step and the kernel's reason."""

    def __init__(self, message: str, reason: str = "NetworkPluginNotReady") -> None:
        super().__init__(message, reason)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Settings of a node's pod network."""

    state_directory: str
    """Where leases and host ports are kept, e.g. <data>/network."""
    cluster_cidr: str = "10.244.0.0/16"
    """All pods of the cluster; traffic inside it is never masqueraded."""
    bridge: str = "wherry-br0"
    """At most 15 characters."""
    vxlan: str = "wherry-vxlan"
    """The tunnel device, made only if a node is not on our link."""
    mtu: int = 0
    """Of pods, in bytes; 0: the uplink's, less VXLAN's overhead when some node needs a tunnel at set-up."""
    always_tunnel_mtu: bool = False
    """Take VXLAN's overhead off the pods' MTU from the start, for clusters whose nodes are on several links."""
    manage_iptables: bool = True
    """Masquerade, forward and hostPort rules. Off: the administrator does it."""


class LinuxPodNetwork:
    """See the module. `await setup(...)` first, `update_nodes` or `follow` whenever nodes change, `close()` at the end
    (which leaves everything working); `cleanup()` removes all that was made."""

    def __init__(self, config: NetworkConfig, thread: ThreadPoolExecutor | None = None) -> None:
        """`thread`: an executor of one thread, inside the network namespace that is the node's; by default a new one in
        the process's own."""
        self._config = config
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._netlink: Netlink | None = None
        self._iptables = Iptables()
        self._pool: AddressPool | None = None
        self._hostports: HostPorts | None = None
        self._bridge_index = 0
        self._mtu = 0
        self._uplink_mtu = 0
        self._pod_cidr = ""
        self._node_ip = ""
        self._peers: tuple[Peer, ...] = ()
        self._heard = False  # of other nodes, in this process: until then the routes of the last one stay
        self._attached: set[str] = set()  # sandboxes, by this object
        self._asked = 0
        self._running: dict[int, float] = {}  # what the thread was asked for and has not done, by when
        self._chains: list[Chain] = []  # as last written
        self._sync: asyncio.Task[None] | None = None
        self._again = False

    @property
    def ready(self) -> bool:
        """Whether pods can be attached."""
        return self._bridge_index != 0

    @property
    def pod_cidr(self) -> str:
        """The CIDR that `setup` was given; empty before."""
        return self._pod_cidr

    async def setup(self, pod_cidr: str, node_ip: str) -> None:
        """Make the node ready for pods of `pod_cidr`; `node_ip` is its InternalIP. Idempotent; call it again when
        either changes. Raises NetworkFailure."""
        peers = self._peers
        await self._run(lambda: self._setup(pod_cidr, node_ip), "set up the pod network")
        if self._peers is not peers:  # nodes were heard of meanwhile
            await self._run(self._sync_nodes, "update routes")

    async def attach(self, sandbox_id: str, netns_path: str, ports: Sequence[PortMapping] = ()) -> Sequence[str]:
        """See PodNetwork.attach. Raises NetworkFailure (NetworkPluginNotReady, FailedCreatePodSandBox)."""
        if not self.ready:
            raise NetworkFailure("the pod network is not set up yet: this node has no pod CIDR")
        return await self._run(lambda: self._attach(sandbox_id, netns_path, ports), f"attach sandbox {sandbox_id[:12]}")

    async def detach(self, sandbox_id: str, netns_path: str = "") -> None:
        """See PodNetwork.detach. The wire itself goes with the namespace."""
        await self._run(lambda: self._detach(sandbox_id), f"detach sandbox {sandbox_id[:12]}")

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        """Detach every sandbox that is not in `sandbox_ids`: what a killed agent left behind. Whatever this object has
        attached itself is spared, as it may be younger than the caller's list."""
        alive = set(sandbox_ids)
        await self._run(lambda: self._retain(alive | self._attached), "release stale sandboxes")

    async def update_nodes(self, nodes: Iterable[dict[str, Any]]) -> None:
        """Make routes and masquerading fit these Node objects (this node may be among them). Raises NetworkFailure."""
        found = (peers.peer(node) for node in nodes)
        self._peers = tuple(p for p in found if p is not None)
        self._heard = True
        if self.ready:
            await self._run(self._sync_nodes, "update routes")

    def follow(self, informer: peers.NodeInformer) -> None:
        """Keep routes equal to what `informer` knows; failures are logged and tried again."""

        def changed(*_: object) -> None:
            self._again = True
            if self._sync is None or self._sync.done():
                self._sync = asyncio.ensure_future(self._follow(informer))

        def updated(old: dict[str, Any], new: dict[str, Any]) -> None:
            if peers.relevant(old, new):
                changed()

        informer.add_handler(added=changed, updated=updated, deleted=changed)

    async def cleanup(self) -> None:
        """Remove every device, route, rule and file of ours. Wires go with their pods' namespaces."""
        await self._run(self._cleanup, "clean up the pod network")

    async def close(self) -> None:
        """Let go of thread and socket; pods keep their network."""
        if self._sync is not None:
            self._sync.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sync
        if self._own_thread:
            self._thread.shutdown(wait=True)
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    # On the event loop.

    async def _run(self, work: Callable[[], T], what: str) -> T:
        loop = asyncio.get_running_loop()
        self._asked += 1
        number = self._asked
        self._running[number] = loop.time()
        try:
            return await loop.run_in_executor(self._thread, work)
        except PortTaken as error:
            raise NetworkFailure(f"{what}: {error}", "HostPortConflict") from error
        except (OSError, IptablesError, LookupError, PoolExhausted, ValueError) as error:
            raise NetworkFailure(f"{what}: {error}", "FailedCreatePodSandBox") from error
        finally:
            del self._running[number]

    def trouble(self) -> str:
        """What is wrong that only a new start would mend: the thread is busy with one thing for minutes. Or ""."""
        loop = asyncio.get_running_loop()
        oldest = min(self._running.values(), default=loop.time())
        return "the network thread does not answer" if loop.time() - oldest > _STUCK_S else ""

    async def _follow(self, informer: peers.NodeInformer) -> None:
        while self._again:
            self._again = False
            try:
                await self.update_nodes(informer.items())
            except NetworkFailure as error:
                log.warning("routes failed retry_s=%g error=%r", _RETRY_S, str(error))
                self._again = True
                await asyncio.sleep(_RETRY_S)

    # On the network thread.

    def _setup(self, pod_cidr: str, node_ip: str) -> None:
        config = self._config
        netlink = self._netlink = self._netlink or Netlink()
        network = ipaddress.ip_network(pod_cidr)
        pool = AddressPool(os.path.join(config.state_directory, "addresses"), network)
        host_ports = HostPorts(os.path.join(config.state_directory, "hostports"), self._iptables)
        uplink = find_uplink(netlink, ipaddress.ip_address(node_ip).packed)
        mtu = config.mtu or uplink.mtu - (VXLAN_OVERHEAD if config.always_tunnel_mtu else 0)
        bridge = ensure_bridge(netlink, config.bridge, pool.gateway.packed, network.prefixlen, mtu)
        write_sysctl("net.ipv4.ip_forward", "1")
        # Pods of one node reach each other through the gateway on purpose; it must not tell them of a shorter way.
        write_sysctl("net.ipv4.conf.all.send_redirects", "0")
        write_sysctl(f"net.ipv4.conf.{config.bridge}.send_redirects", "0")
        self._pool, self._hostports = pool, host_ports
        self._mtu, self._uplink_mtu = mtu, uplink.mtu
        self._pod_cidr, self._node_ip = pod_cidr, node_ip
        self._chains = []
        Routes(netlink, config.vxlan).fence(config.cluster_cidr)
        self._sync_nodes()
        if config.manage_iptables:
            for jump in masquerade.JUMPS:
                self._iptables.ensure(jump)
            if host_ports.sandboxes():
                host_ports.sync()
        self._bridge_index = bridge.index
        log.info(
            "pod network ready pod_cidr=%s bridge=%s mtu=%d uplink=%s leases=%d",
            pod_cidr, config.bridge, mtu, uplink.name, len(pool.leases()),
        )  # fmt: skip

    def _attach(self, sandbox_id: str, netns_path: str, ports: Sequence[PortMapping]) -> Sequence[str]:
        assert self._pool is not None and self._hostports is not None and self._netlink is not None
        self._attached.add(sandbox_id)
        known = self._pool.lookup(sandbox_id) is not None
        address = self._pool.lease(sandbox_id)
        try:
            fd = open_namespace(netns_path)
            try:
                veth.connect(
                    self._netlink,
                    fd,
                    veth.host_device(sandbox_id),
                    self._bridge_index,
                    self._mtu,
                    ipaddress.ip_address(address).packed,
                    self._pool.gateway.packed,
                    self._pool.network.prefixlen,
                )
            finally:
                os.close(fd)
            if ports:
                self._hostports.publish(sandbox_id, address, ports)
        except BaseException:
            if not known:
                self._detach(sandbox_id)
            raise
        return (address,)

    def _detach(self, sandbox_id: str) -> None:
        self._attached.discard(sandbox_id)
        if self._pool is None or self._hostports is None:
            return
        self._hostports.withdraw(sandbox_id)
        self._pool.release(sandbox_id)

    def _retain(self, alive: set[str]) -> None:
        if self._pool is None or self._hostports is None:
            return
        gone = self._pool.retain(alive)
        for sandbox_id in {*gone, *self._hostports.sandboxes()} - alive:
            self._hostports.withdraw(sandbox_id)
        if gone:
            log.info("released stale sandboxes count=%d", len(gone))

    def _sync_nodes(self) -> None:
        assert self._netlink is not None
        others = [p for p in self._peers if p.address != self._node_ip and self._pod_cidr not in p.pod_cidrs]
        if self._config.manage_iptables:
            ips = [self._node_ip, *(p.address for p in self._peers)]
            chains = masquerade.chains(self._pod_cidr, self._config.cluster_cidr, ips)
            if chains != self._chains:
                self._iptables.replace(chains)
                self._chains = chains
        if not self._heard:
            return
        routes = Routes(self._netlink, self._config.vxlan)
        added, removed = routes.sync(others, self._pod_cidr, self._node_ip, self._uplink_mtu)
        if added or removed:
            log.info("routes synced nodes=%d added=%d removed=%d", len(others), added, removed)

    def _cleanup(self) -> None:
        netlink = self._netlink = self._netlink or Netlink()
        self._bridge_index = 0
        Routes(netlink, self._config.vxlan).clear(self._config.cluster_cidr)
        remove_link(netlink, self._config.bridge)
        if self._config.manage_iptables:
            mine = [*masquerade.chains("0.0.0.0/0", "0.0.0.0/0", ()), *_EMPTY_HOSTPORTS]
            self._iptables.remove([*masquerade.JUMPS, *hostports.JUMPS], mine)
        for top in ("addresses", "hostports"):
            _remove_tree(os.path.join(self._config.state_directory, top))
        self._pool = self._hostports = None
        log.info("pod network removed bridge=%s", self._config.bridge)


_EMPTY_HOSTPORTS = (Chain("nat", hostports.HOSTPORTS), Chain("nat", hostports.HOSTPORT_MASQ))


def _remove_tree(path: str) -> None:
    import shutil

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
