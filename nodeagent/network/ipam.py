"""Which pod has which address: leases on the node's pod CIDR, kept as symbolic links.

    <directory>/10.244.1.7          -> <sandbox id>     leased
    <directory>/freed/10.244.1.5    -> <sandbox id>     free again; its ctime says since when

One `symlink(2)` takes an address: it either happens with its owner's name in it or not at all, so a `kill -9` between
any two steps leaves neither a nameless lease nor an address that two pods believe to be theirs (the kernel refuses the
second link). A freed address is renamed, not deleted, and goes to the end of the queue: a peer's open connection or
ARP entry should not meet a stranger. Nothing is synced: after a power cut the pods are gone too.

One `AddressPool` is one address family; a dual-stack node has two.
"""

from __future__ import annotations

import ipaddress
import os
from collections import deque
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PoolExhausted(Exception):
    """Every address of the pod CIDR is leased."""


class AddressPool:
    """The addresses of `network` except its first (the network itself), second (the bridge) and, in IPv4, its last."""

    def __init__(self, directory: str, network: Network) -> None:
        """Finds the leases of an earlier life in `directory`, which is made if missing. Raises OSError."""
        self.network = network
        self.gateway = network[1]
        self._directory = os.path.join(directory, str(network).replace("/", "-").replace(":", "_"))
        self._freed_directory = os.path.join(self._directory, "freed")
        os.makedirs(self._freed_directory, mode=0o700, exist_ok=True)
        self._last = min(network.num_addresses - (1 if network.version == 4 else 0), 1 << 16)
        self._leases = self._read_leases()
        taken = set(self._leases.values())
        freed = [address for address in self._read_freed() if address not in taken]
        self._freed = deque(freed)
        self._unused = deque(a for a in self._usable() if a not in taken and a not in set(freed))

    def lookup(self, sandbox_id: str) -> str | None:
        """The address that `sandbox_id` holds."""
        return self._leases.get(sandbox_id)

    def leases(self) -> dict[str, str]:
        """Every lease, as sandbox id → address."""
        return dict(self._leases)

    def lease(self, sandbox_id: str) -> str:
        """An address for `sandbox_id`: the one it has, else one never used, else the one that is free for longest.
        Raises PoolExhausted, OSError."""
        held = self._leases.get(sandbox_id)
        if held is not None:
            return held
        while self._unused or self._freed:
            address = self._unused.popleft() if self._unused else self._freed.popleft()
            try:
                os.symlink(sandbox_id, os.path.join(self._directory, address))
            except FileExistsError:  # another process on this directory was quicker
                continue
            self._leases[sandbox_id] = address
            return address
        raise PoolExhausted(f"no free address in {self.network}: {len(self._leases)} leased")

    def release(self, sandbox_id: str) -> str | None:
        """Give the address back; returns it, or None if there was none. Raises OSError."""
        address = self._leases.pop(sandbox_id, None)
        if address is None:
            return None
        os.replace(os.path.join(self._directory, address), os.path.join(self._freed_directory, address))
        self._freed.append(address)
        return address

    def retain(self, sandbox_ids: Iterable[str]) -> list[str]:
        """Release what belongs to no sandbox of `sandbox_ids`; returns the ids that lost their address."""
        alive = set(sandbox_ids)
        gone = [sandbox_id for sandbox_id in self._leases if sandbox_id not in alive]
        for sandbox_id in gone:
            self.release(sandbox_id)
        return gone

    def _usable(self) -> Iterable[str]:
        base = int(self.network.network_address)
        kind = ipaddress.IPv4Address if self.network.version == 4 else ipaddress.IPv6Address
        return (str(kind(base + offset)) for offset in range(2, self._last))

    def _read_leases(self) -> dict[str, str]:
        leases: dict[str, str] = {}
        for entry in os.scandir(self._directory):
            if entry.is_symlink():
                leases[os.readlink(entry.path)] = entry.name
        return leases

    def _read_freed(self) -> list[str]:
        """Freed addresses, the one that is free for longest first. Renaming a link sets its ctime."""
        entries = [(e.stat(follow_symlinks=False).st_ctime_ns, e.name) for e in os.scandir(self._freed_directory)]
        return [name for _, name in sorted(entries)]
