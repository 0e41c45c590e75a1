"""What pods must know of their node: names, addresses, directories, sizes. One frozen value, made by the agent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.pods.hosts import DnsSettings
from nodeagent.runtime.interface import LinuxResources


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """`allocatable` as in the Node's status; directories are absolute."""

    name: str
    ips: Sequence[str]
    root_directory: str
    log_directory: str = "/var/log/pods"
    allocatable: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    dns: DnsSettings = field(default_factory=DnsSettings)
    pids_limit: int = 0
    all_pods: LinuxResources | None = None  # what all pods together may have; None: whatever there is
    allowed_unsafe_sysctls: Sequence[str] = ()

    def pod_directory(self, uid: str) -> str:
        return os.path.join(self.root_directory, "pods", uid)

    def secret_directory(self, uid: str) -> str:
        """A pod's files that must never touch a disk."""
        return os.path.join(self.root_directory, "memory", uid)

    def pod_logs(self, namespace: str, name: str, uid: str) -> str:
        return os.path.join(self.log_directory, f"{namespace}_{name}_{uid}")

    @property
    def seccomp_root(self) -> str:
        return os.path.join(self.root_directory, "seccomp")
