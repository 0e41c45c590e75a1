"""Local storage: how much each pod holds, and who holds more than its own limits allow.

A pod's local storage is what its containers wrote to their layers, their logs, and its volumes on the node's disk
(emptyDir, and the small files of configMaps). Measuring means walking trees, so it is done on a thread, and regularly
only for pods that have a limit. Rules and words: kubelet's eviction_manager.go, localStorageEviction.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.api import quantity
from controlplane.api.podresources import effective
from nodeagent.linux.disk import tree_usage
from nodeagent.pods.memory import Verdict
from nodeagent.pods.model import Object
from nodeagent.pods.node import NodeFacts
from nodeagent.runtime.interface import DiskUsage

_EMPTY_DIRS = "volumes/kubernetes.io~empty-dir"


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """`layers`, `logs`: by container name. `volumes`: by volume name, those on disk."""

    layers: Mapping[str, DiskUsage] = field(default_factory=dict)
    logs: Mapping[str, DiskUsage] = field(default_factory=dict)
    volumes: Mapping[str, DiskUsage] = field(default_factory=dict)

    def of_container(self, name: str) -> int:
        """Bytes that count against a container's own limit: its layer and its logs."""
        return self.layers.get(name, DiskUsage()).bytes + self.logs.get(name, DiskUsage()).bytes

    @property
    def total(self) -> DiskUsage:
        parts = [*self.layers.values(), *self.logs.values(), *self.volumes.values()]
        return sum(parts, DiskUsage())


def has_limits(pod: Object) -> bool:
    """Whether anything limits the pod's local storage."""
    if any(_size_limit(v) for v in pod["spec"].get("volumes") or ()):
        return True
    return any(_limit(c) for c in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())))


def measure(node: NodeFacts, pod: Object, layers: Mapping[str, DiskUsage]) -> LocalStorage:
    """Walk the pod's logs and volumes (its containers' layers are the runtime's to measure). Blocks: for a thread."""
    meta = pod["metadata"]
    logs = node.pod_logs(meta.get("namespace", ""), meta["name"], meta["uid"])
    named = {c["name"]: DiskUsage(*tree_usage(os.path.join(logs, c["name"]))) for c in _containers(pod)}
    base = os.path.join(node.pod_directory(meta["uid"]), _EMPTY_DIRS)
    volumes = {
        v["name"]: DiskUsage(*tree_usage(os.path.join(base, v["name"])))
        for v in pod["spec"].get("volumes") or ()
        if v.get("emptyDir") is not None and v["emptyDir"].get("medium") != "Memory"
    }
    return LocalStorage(layers, named, volumes)


def judge(pod: Object, used: LocalStorage) -> Verdict | None:
    """Why the pod must go, if it holds more than it may."""
    for volume in pod["spec"].get("volumes") or ():
        limit = _size_limit(volume)
        if limit and used.volumes.get(volume["name"], DiskUsage()).bytes > quantity.of(limit).value():
            return _over(f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". ')
    for container in _containers(pod):
        limit = _limit(container)
        if limit and used.of_container(container["name"]) > quantity.of(limit).value():
            return _over(f'Container {container["name"]} exceeded its local ephemeral storage limit "{limit}". ')
    if all(_limit(c) for c in pod["spec"]["containers"]):
        whole = effective(pod, "limits", "ephemeral-storage") // 10**9
        if whole and used.total.bytes > whole:
            text = quantity.of(str(whole))
            return _over(f"Pod ephemeral local storage usage exceeds the total limit of containers {text}. ")
    return None


def _over(message: str) -> Verdict:
    return Verdict("Failed", "Evicted", message, 1, disruption="TerminationByKubelet")


def _containers(pod: Object) -> Sequence[Object]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def _limit(container: Object) -> str:
    return str(((container.get("resources") or {}).get("limits") or {}).get("ephemeral-storage") or "")


def _size_limit(volume: Object) -> str:
    """An emptyDir's limit on disk; in memory the kernel itself enforces it."""
    source = volume.get("emptyDir") or {}
    return "" if source.get("medium") == "Memory" else str(source.get("sizeLimit") or "")
