"""What the agent tells of itself and the node, small: /metrics and /stats/summary. (Containers' usage comes later.)"""

from __future__ import annotations

import resource
from collections import Counter

from controlplane import clock
from nodeagent.pods.manager import PodManager
from nodeagent.pods.model import Object
from nodeagent.pods.node import NodeFacts


def metrics(pods: PodManager) -> str:
    """Prometheus' text format, with kubelet's names."""
    phases = Counter((p.get("status") or {}).get("phase", "Unknown") for p in pods.pods())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    lines = [
        "# TYPE kubelet_running_pods gauge",
        f"kubelet_running_pods {phases['Running']}",
        "# TYPE kubelet_desired_pods gauge",
        f"kubelet_desired_pods {pods.count}",
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}",
        "# TYPE process_resident_memory_bytes gauge",
        f"process_resident_memory_bytes {_resident()}",
    ]
    return "\n".join(lines) + "\n"


def summary(node: NodeFacts, pods: PodManager) -> Object:
    """The shape of kubelet's Summary: the node, and the pods by reference."""
    import psutil

    memory = psutil.virtual_memory()
    now = clock.rfc3339()
    references = [
        {"podRef": {k: p["metadata"].get(k, "") for k in ("name", "namespace", "uid")}, "containers": []}
        for p in pods.pods()
    ]
    usage = psutil.cpu_times()
    busy = int((usage.user + usage.system) * 1e9)
    return {
        "node": {
            "nodeName": node.name,
            "cpu": {"time": now, "usageCoreNanoSeconds": busy},
            "memory": {"time": now, "availableBytes": memory.available, "usageBytes": memory.used},
        },
        "pods": references,
    }


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
