"""Requests and limits as cgroup settings, and where a pod's cgroup hangs in the tree of QoS classes. Pure.

    kubepods/pod<uid>              Guaranteed
    kubepods/burstable/pod<uid>
    kubepods/besteffort/pod<uid>

Formulas: kubelet's cm/helpers_linux.go (shares, quota, pod cgroup) and qos/policy.go (oom_score_adj).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.api import quantity
from controlplane.api.podresources import effective
from nodeagent.pods.model import Object, qos_class
from nodeagent.runtime.interface import LinuxResources

PERIOD_US = 100_000
MINIMUM_QUOTA_US = 1_000
MINIMUM_SHARES = 2
MAXIMUM_SHARES = 262_144


def cgroup_parent(pod: Object) -> str:
    """The pod's cgroup, relative to the node's root cgroup."""
    uid = pod["metadata"]["uid"]
    qos = qos_class(pod)
    return f"kubepods/pod{uid}" if qos == "Guaranteed" else f"kubepods/{qos.lower()}/pod{uid}"


def container_resources(pod: Object, container: Object, memory_capacity_bytes: int) -> LinuxResources:
    """The cgroup settings of one container."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    cpu_request = requests["cpu"] if "cpu" in requests else limits.get("cpu", 0)
    memory_limit = _value(limits.get("memory", 0))
    memory_request = _value(requests["memory"]) if "memory" in requests else memory_limit
    return LinuxResources(
        cpu_shares=shares(_milli(cpu_request)),
        cpu_quota_us=quota(_milli(limits.get("cpu", 0))),
        cpu_period_us=PERIOD_US,
        memory_limit_bytes=memory_limit,
        oom_score_adj=oom_score_adj(qos_class(pod), memory_request, memory_capacity_bytes),
    )


def pod_resources(pod: Object, pids_limit: int = 0) -> LinuxResources:
    """The settings of the pod's own cgroup: the sum of its containers, unlimited where one of them is."""
    spec = pod["spec"]
    cpu = effective(pod, "requests", "cpu")
    cpu_limit, memory_limit = effective(pod, "limits", "cpu"), effective(pod, "limits", "memory")
    containers = [*spec["containers"], *(spec.get("initContainers") or ())]
    own = ((spec.get("resources") or {}).get("limits")) or {}

    def limited(name: str) -> bool:
        return name in own or all(name in ((c.get("resources") or {}).get("limits") or {}) for c in containers)

    return LinuxResources(
        cpu_shares=shares(-(-cpu // 10**6)),
        cpu_quota_us=quota(-(-cpu_limit // 10**6)) if limited("cpu") else 0,
        cpu_period_us=PERIOD_US,
        memory_limit_bytes=memory_limit // 10**9 if limited("memory") else 0,
        pids_limit=pids_limit,
    )


def hugepages(container: Object, allocatable: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """What the container may have of each size of huge pages that the node has: what it asks for, else nothing."""
    limits = (container.get("resources") or {}).get("limits") or {}
    found = []
    for name in sorted(allocatable):
        size = name.removeprefix("hugepages-")
        if size != name and _value(allocatable[name]):
            found.append((_kernel_size(_value(size)), _value(limits.get(name, 0))))
    return tuple(found)


def _kernel_size(size: int) -> str:
    """A page size as the hugetlb controller's files have it."""
    return f"{size >> 30}GB" if size >= 1 << 30 else f"{size >> 20}MB" if size >= 1 << 20 else f"{size >> 10}KB"


def requested_names(pods: Iterable[Object]) -> set[str]:
    """Every resource name that some container asks for."""
    names: set[str] = set()
    for pod in pods:
        for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())):
            resources = container.get("resources") or {}
            names.update(resources.get("requests") or (), resources.get("limits") or ())
    return names


def shares(milli_cpu: int) -> int:
    """CFS shares of so many thousandths of a CPU."""
    return min(max(milli_cpu * 1024 // 1000, MINIMUM_SHARES), MAXIMUM_SHARES)


def quota(milli_cpu: int) -> int:
    """CFS quota in microseconds a period; 0 for no limit."""
    return max(milli_cpu * PERIOD_US // 1000, MINIMUM_QUOTA_US) if milli_cpu > 0 else 0


def oom_score_adj(qos: str, memory_request_bytes: int, memory_capacity_bytes: int) -> int:
    """Who dies first when the node is out of memory: BestEffort, then who uses more than it asked for."""
    if qos == "Guaranteed":
        return -997
    if qos == "BestEffort":
        return 1000
    score = 1000 - 1000 * memory_request_bytes // max(memory_capacity_bytes, 1)
    return min(max(score, 3), 999)


def _nano(value: Any) -> int:
    return quantity.of(value).nano


def _milli(value: Any) -> int:
    return quantity.of(value).milli()


def _value(value: Any) -> int:
    return quantity.of(value).value()
