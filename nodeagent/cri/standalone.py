"""The runtime without the agent: images, network and containers behind a CRI socket, what containerd is to kubelet.

The agent with `cri_socket` shows its pods to crictl, but ends what it does not know, as kubelet would; so a foreign
kubelet wants a runtime of its own. The pods' addresses come from that kubelet (UpdateRuntimeConfig), or from
`--pod-cidr`. The zygote (`python -m nodeagent.runtime`) must run beside it, as beside the agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent import machine
from nodeagent.cri.server.service import CriServer
from nodeagent.runtime.interface import RuntimeFailure
from pki.layout import DEFAULT

log = logging.getLogger(__name__)

_NO_CIDR = "the pod network is not set up yet: no pod CIDR"
_RETRY_S = 1.0


@dataclass(slots=True)
class Config:
    """Wherry's container runtime behind a CRI socket (what containerd is to Kubernetes)."""

    cri_socket: str = str(DEFAULT.run / "cri.sock")
    """Where the CRI is served; for root only."""
    root_dir: str = str(DEFAULT.data / "cri")
    """Images, containers' layers, address leases."""
    state_dir: str = str(DEFAULT.run / "cri-sandboxes")
    """State that must not survive a reboot."""
    runtime_socket: str = str(DEFAULT.runtime_socket)
    """Where the runtime's zygote listens."""
    cgroup_root: str = "/"
    """The cgroup that clients' cgroup parents are below, relative to the top of the cgroup mounts."""
    pod_cidr: str = ""
    """The pods' addresses on this node; empty: a client says it."""
    cluster_cidr: str = "10.244.0.0/16"
    """All pod addresses of the cluster: never masqueraded."""
    node_ip: str = ""
    """This machine's address in the cluster; empty: the one that it reaches others from."""
    registry_config_dir: str = str(DEFAULT.registry_config)
    """Settings of single registries: <registry>/hosts.toml, as with containerd."""
    insecure_registries: list[str] = field(default_factory=list)
    """Registries (host[:port]) that may be asked over plain HTTP."""
    image_preload_dir: str = ""
    """Image archives and layouts that are loaded at start; empty: none."""
    log_level: str = "info"
    """debug, info, warning or error."""


async def serve(config: Config, ready: Callable[[], None]) -> None:
    """Until cancelled. Raises RuntimeFailure if this machine cannot run containers, OSError."""
    from nodeagent.images.endpoints import Registries
    from nodeagent.images.service import LocalImages
    from nodeagent.network.network import LinuxPodNetwork, NetworkConfig
    from nodeagent.runtime.service import LinuxRuntime

    root = Path(config.root_dir)
    network = LinuxPodNetwork(NetworkConfig(str(root / "network"), config.cluster_cidr))
    registries = Registries({}, config.insecure_registries, config_dir=config.registry_config_dir)
    preload = Path(config.image_preload_dir) if config.image_preload_dir else None
    images = LocalImages(root / "images", preload=preload, registries=registries)
    runtime = LinuxRuntime(
        config.root_dir, config.state_dir, config.runtime_socket, images, network, cgroup_root=config.cgroup_root
    )

    async def configure(pod_cidr: str) -> None:
        if pod_cidr != network.pod_cidr:
            await network.setup(pod_cidr, config.node_ip or machine.address_towards("192.0.2.1", 9))
            await network.retain([sandbox.id for sandbox in await runtime.sandboxes()])

    server = CriServer(
        runtime, images, config.root_dir, network=lambda: "" if network.ready else _NO_CIDR, configure=configure
    )
    try:
        await images.start()
        await _started(runtime.start)
        if config.pod_cidr:
            await configure(config.pod_cidr)
        await server.listen(config.cri_socket)
        ready()
        await asyncio.Event().wait()
    finally:
        await server.close()
        await runtime.close()
        await network.close()
        await images.close()


async def _started(start: Callable[[], Awaitable[None]]) -> None:
    """Until the zygote is there."""
    while True:
        try:
            await start()
            return
        except RuntimeFailure as failure:
            log.warning("runtime_not_ready error=%s", failure)
            await asyncio.sleep(_RETRY_S)
