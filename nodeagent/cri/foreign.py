"""The agent's runtime, images and network when another runtime does the work: `--container-runtime-endpoint`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nodeagent.cri.client import Client, endpoint_path
from nodeagent.cri.grpc.client import Channel
from nodeagent.cri.images import CriImages
from nodeagent.cri.network import CniNetwork
from nodeagent.cri.runtime import CriRuntime
from nodeagent.network.network import LinuxPodNetwork, NetworkConfig


@dataclass(frozen=True, slots=True)
class Parts:
    runtime: CriRuntime
    images: CriImages
    network: CniNetwork


def connect(endpoint: str, *, cgroup_root: str, root_dir: str, cluster_cidr: str, cni_conf_dir: str) -> Parts:
    """Nothing is asked yet. Raises ValueError for an endpoint that is none."""
    client = Client(Channel(endpoint_path(endpoint)))
    runtime = CriRuntime(client, cgroup_root=cgroup_root)
    directory = os.path.join(root_dir, "network")
    settings = NetworkConfig(directory, cluster_cidr)
    network = CniNetwork(
        LinuxPodNetwork(settings), settings.bridge, cni_conf_dir, os.path.join(directory, "cni"),
        lambda: runtime.condition("NetworkReady"),
    )  # fmt: skip
    return Parts(runtime, CriImages(client), network)
