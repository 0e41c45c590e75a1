"""The pod network with a foreign runtime: the runtime attaches pods by CNI; routes between nodes stay ours.

`CniNetwork` is what the agent drives (agent.NodeNetwork). Without anybody's CNI configuration it makes the bridge,
routes and masquerading as always (network/) and writes a configuration that puts pods on that bridge. With one, it does
nothing: whoever installed that network does everything. Either way it is ready when the runtime says NetworkReady.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from nodeagent.cri import cni
from nodeagent.network.network import LinuxPodNetwork, NetworkFailure

_READY_WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.1


class CniNetwork:
    """`own`: the node's part; `bridge`: its bridge. `trouble_of()`: why the runtime's network is not ready, or ""."""

    def __init__(
        self, own: LinuxPodNetwork, bridge: str, conf_dir: str, state_directory: str,
        trouble_of: Callable[[], Awaitable[str]],
    ) -> None:  # fmt: skip
        self._own, self._bridge = own, bridge
        self._conf_dir, self._state_directory = conf_dir, state_directory
        self._trouble_of = trouble_of

    async def setup(self, pod_cidr: str, node_ip: str) -> None:
        """Raises NetworkFailure."""
        try:
            text = cni.conflist(pod_cidr, self._bridge, 0, self._state_directory)
            if not cni.others(self._conf_dir):
                await self._own.setup(pod_cidr, node_ip)
                cni.ensure(self._conf_dir, text)
        except (OSError, ValueError) as error:
            raise NetworkFailure(f"write a CNI configuration: {error}") from error
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN_S
        while trouble := await self._trouble_of():
            if asyncio.get_running_loop().time() > deadline:
                raise NetworkFailure(f"the container runtime's network is not ready: {trouble}")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        """Addresses are the runtime's: it releases them with their sandboxes."""

    def follow(self, informer: Any) -> None:
        if not cni.others(self._conf_dir):
            self._own.follow(informer)

    def trouble(self) -> str:
        return self._own.trouble()

    async def close(self) -> None:
        await self._own.close()
