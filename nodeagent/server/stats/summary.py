"""kubelet's Summary (`/stats/summary`) of a sample. Pure. Shape: k8s.io/kubelet/pkg/apis/stats/v1alpha1."""

from __future__ import annotations

from controlplane import clock
from nodeagent.linux.cgroups.usage import Usage
from nodeagent.pods.model import Object
from nodeagent.runtime.interface import DiskUsage
from nodeagent.server.stats.sample import ContainerSample, Interface, PodSample, Sample


def summary(sample: Sample, *, started_at: float) -> Object:
    """The whole Summary. `started_at`: of the machine, seconds since the epoch."""
    now, left = clock.rfc3339(sample.at), sample.left
    disk = _node_disk(sample, now)
    node = {
        "nodeName": sample.name,
        "startTime": clock.rfc3339(started_at),
        "cpu": _cpu(sample.usage, sample.nano_cores, now),
        "memory": _memory(sample.usage, now),
        "network": _network(sample.interfaces, now),
        "fs": disk,
        "runtime": {"imageFs": disk, "containerFs": disk},
        "rlimit": {"time": now, "maxpid": left.pids, "curproc": left.pids - left.pids_free},
    }
    return {"node": node, "pods": [_pod(p, sample, now) for p in sample.pods]}


def _pod(pod: PodSample, sample: Sample, now: str) -> Object:
    meta = pod.pod["metadata"]
    entry: Object = {
        "podRef": {key: meta.get(key, "") for key in ("name", "namespace", "uid")},
        "startTime": (pod.pod.get("status") or {}).get("startTime") or now,
        "containers": [_container(c, pod, sample, now) for c in pod.containers],
        "cpu": _cpu(pod.usage, pod.nano_cores, now),
        "memory": _memory(pod.usage, now),
        "process_stats": {"process_count": pod.usage.pids},
    }
    if pod.interfaces:
        entry["network"] = _network(pod.interfaces, now)
    if pod.storage is not None:
        entry["volume"] = [{"name": n, **_disk(u, sample, now)} for n, u in pod.storage.volumes.items()]
        entry["ephemeral-storage"] = _disk(pod.storage.total, sample, now)
    return entry


def _container(container: ContainerSample, pod: PodSample, sample: Sample, now: str) -> Object:
    entry: Object = {
        "name": container.status.name,
        "startTime": clock.rfc3339(container.status.started_at),
        "cpu": _cpu(container.usage, container.nano_cores, now),
        "memory": _memory(container.usage, now),
    }
    if pod.storage is not None:
        name = container.status.name
        entry["rootfs"] = _disk(pod.storage.layers.get(name, DiskUsage()), sample, now)
        entry["logs"] = _disk(pod.storage.logs.get(name, DiskUsage()), sample, now)
    return entry


def _cpu(usage: Usage, nano_cores: int | None, now: str) -> Object:
    entry: Object = {"time": now, "usageCoreNanoSeconds": usage.cpu_ns}
    if nano_cores is not None:
        entry["usageNanoCores"] = nano_cores
    return entry | _psi(usage, "cpu")


def _memory(usage: Usage, now: str) -> Object:
    entry: Object = {
        "time": now,
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    }
    if usage.limit_bytes:
        entry["availableBytes"] = max(usage.limit_bytes - usage.working_set_bytes, 0)
    return entry | _psi(usage, "memory")


def _psi(usage: Usage, resource: str) -> Object:
    found = {
        kind: {"total": p.total_us * 1000, "avg10": p.avg10, "avg60": p.avg60, "avg300": p.avg300}
        for (name, kind), p in usage.psi.items()
        if name == resource
    }
    return {"psi": found} if found else {}


def _network(interfaces: tuple[Interface, ...], now: str) -> Object:
    entries = [
        {"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes, "txErrors": i.tx_errors}
        for i in interfaces
    ]
    main = next((e for e in entries if e["name"] == "eth0"), entries[0] if entries else {})
    return {"time": now, **main, "interfaces": entries}


def _disk(used: DiskUsage, sample: Sample, now: str) -> Object:
    left = sample.left
    return {
        "time": now, "availableBytes": left.disk_available, "capacityBytes": left.disk_capacity,
        "usedBytes": used.bytes, "inodesFree": left.inodes_free, "inodes": left.inodes, "inodesUsed": used.inodes,
    }  # fmt: skip


def _node_disk(sample: Sample, now: str) -> Object:
    left = sample.left
    used = DiskUsage(left.disk_capacity - left.disk_available, left.inodes - left.inodes_free)
    return _disk(used, sample, now)
