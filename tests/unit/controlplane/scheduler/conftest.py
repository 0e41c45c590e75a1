"""Nodes and pods, briefly."""

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.snapshot import Snapshot

Obj = dict[str, Any]


def make_node(name: str, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **spec: Any) -> Obj:
    labels = {"kubernetes.io/hostname": name, **spec.pop("labels", {})}
    images = spec.pop("images", [])
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods, **spec.pop("allocatable", {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "images": images},
    }


def make_pod(name: str, cpu: str = "", memory: str = "", labels: Obj | None = None, **spec: Any) -> Obj:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    container = {"name": "c", "image": "example", "resources": {"requests": requests}}
    metadata: Obj = {"name": name, "namespace": spec.pop("namespace", "default"), "labels": labels or {}}
    metadata["uid"] = f"uid-{name}"
    owner = spec.pop("owner", "")
    if owner:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}]
    if ports := spec.pop("ports", None):
        container["ports"] = ports
    status = spec.pop("status", {"phase": "Pending"})
    spec.setdefault("containers", [container])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


@pytest.fixture
def node() -> Callable[..., Obj]:
    return make_node


@pytest.fixture
def pod() -> Callable[..., Obj]:
    return make_pod


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    """`snapshot(nodes, {node name: [pods]})`."""

    def build(nodes: list[Obj], placed: dict[str, list[Obj]] | None = None) -> Snapshot:
        made = Snapshot()
        made.namespaces["default"] = {"team": "a"}
        for each in nodes:
            made.set_node(each)
        for name, pods in (placed or {}).items():
            for each in pods:
                made.add_pod(PodInfo(each), name)
        return made

    return build
