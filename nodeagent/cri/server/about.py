"""The runtime about itself, by CRI: version, status, configuration."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable

from nodeagent.cri.codec import Message
from nodeagent.runtime.interface import HANDLERS, Runtime

NAME, API_VERSION, KUBELET_API_VERSION = "wherry", "v1", "0.1.0"
_FEATURES = {"recursive_read_only_mounts": True, "user_namespaces": True}


class About:
    """`network()`: why the pod network is not ready, or "". `configure(pod_cidr)`: the node's pods get these addresses;
    None if that is not for a client of the CRI to say."""

    def __init__(
        self, runtime: Runtime, version: str, network: Callable[[], str],
        configure: Callable[[str], Awaitable[None]] | None,
    ) -> None:  # fmt: skip
        self._runtime, self._version, self._network, self._configure = runtime, version, network, configure

    async def version(self, request: Message) -> Message:
        return {
            "version": KUBELET_API_VERSION,
            "runtime_name": NAME,
            "runtime_version": self._version,
            "runtime_api_version": API_VERSION,
        }

    async def status(self, request: Message) -> Message:
        conditions = [
            _condition("RuntimeReady", "RuntimeNotReady", await self._runtime.status()),
            _condition("NetworkReady", "NetworkPluginNotReady", self._network()),
        ]
        info = {"config": json.dumps({"cgroupDriver": "cgroupfs"})} if request["verbose"] else {}
        return {
            "status": {"conditions": conditions},
            "info": info,
            "runtime_handlers": [{"name": name, "features": _FEATURES} for name in HANDLERS],
            "features": {"supplemental_groups_policy": True},
        }

    async def configure(self, request: Message) -> Message:
        network = (request.get("runtime_config") or {}).get("network_config") or {}
        cidr = network.get("pod_cidr", "")
        if cidr:
            ipaddress.ip_network(cidr)  # ValueError is the client's fault
            if self._configure is not None:
                await self._configure(cidr)
        return {}

    async def runtime_config(self, request: Message) -> Message:
        return {"linux": {"cgroup_driver": "CGROUPFS"}}


def _condition(kind: str, reason: str, trouble: str) -> Message:
    return {"type": kind, "status": not trouble, "reason": reason if trouble else "", "message": trouble}
