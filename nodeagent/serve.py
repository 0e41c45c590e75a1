"""The daemon: which runtime, images and network this machine's agent gets, as its settings say.

`agent.py` is the agent over whatever has their interfaces; here they are made: our own (the default), or a CRI runtime
at `--container-runtime-endpoint`. What is not used is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane import daemon
from controlplane.client.rest import from_kubeconfig
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.runtime.interface import ImageService, Runtime

if TYPE_CHECKING:
    from nodeagent.cri.server.service import CriServer


async def serve(config: Config, ready: Callable[[], None]) -> None:
    """The node agent on this machine, until cancelled."""
    if config.container_runtime_endpoint:
        await _serve_with_foreign_runtime(config, ready)
    else:
        await _serve_with_own_runtime(config, ready)


async def _serve_with_foreign_runtime(config: Config, ready: Callable[[], None]) -> None:
    from nodeagent.cri import foreign

    try:
        parts = foreign.connect(
            config.container_runtime_endpoint, cgroup_root=config.cgroup_root, root_dir=config.root_dir,
            cluster_cidr=config.cluster_cidr, cni_conf_dir=config.cni_conf_dir,
        )  # fmt: skip
    except ValueError as error:
        raise daemon.ConfigError(str(error)) from None
    client = from_kubeconfig(config.kubeconfig, "wherry-nodeagent")
    await Agent(config, client, parts.runtime, parts.images, parts.network).run(ready)


async def _serve_with_own_runtime(config: Config, ready: Callable[[], None]) -> None:
    from nodeagent.images.door import Door
    from nodeagent.images.endpoints import Registries
    from nodeagent.images.service import LocalImages
    from nodeagent.network.network import LinuxPodNetwork, NetworkConfig
    from nodeagent.runtime.service import LinuxRuntime

    root = Path(config.root_dir)
    network = LinuxPodNetwork(NetworkConfig(str(root / "network"), config.cluster_cidr))
    mirrors: dict[str, Sequence[str]] = {}
    for entry in config.registry_mirrors:
        registry, _, url = entry.partition("=")
        mirrors[registry] = [*mirrors.get(registry, ()), url]
    images = LocalImages(
        root / "images",
        preload=Path(config.image_preload_dir) if config.image_preload_dir else None,
        registries=Registries(mirrors, config.insecure_registries, config_dir=config.registry_config_dir),
    )
    runtime = LinuxRuntime(
        config.root_dir, config.state_dir, config.runtime_socket, images, network, cgroup_root=config.cgroup_root
    )
    client = from_kubeconfig(config.kubeconfig, "wherry-nodeagent")

    async def prepare() -> None:
        await images.start()
        if config.images_socket:
            door.open()

    async def started() -> None:
        if served is not None:
            await served.listen(config.cri_socket)

    agent = Agent(config, client, runtime, images, network, prepare, started)
    served = _cri_server(config, runtime, images, lambda: agent.readiness.network) if config.cri_socket else None
    door = Door(images, config.images_socket, agent.image_use.now, agent.images.changed)
    try:
        await agent.run(ready)
    finally:
        if served is not None:
            await served.close()
        await door.close()
        await images.close()


def _cri_server(config: Config, runtime: Runtime, images: ImageService, network: Callable[[], str]) -> CriServer:
    from nodeagent.cri.server.service import CriServer

    version = config.kubernetes_version.lstrip("v").partition("+")[0]
    return CriServer(runtime, images, config.root_dir, version=version, network=network)
