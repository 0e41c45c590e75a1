"""Prometheus' text format, with the names that the field's dashboards and autoscalers ask for. Pure.

    agent()      /metrics            the agent itself (kubelet_*, process_*)
    resources()  /metrics/resource   what metrics-server reads
    cadvisor()   /metrics/cadvisor   containers in detail (container_*, machine_*)

Names: kubernetes.io/docs/reference/instrumentation/metrics, and cAdvisor's docs/storage/prometheus.md.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.machine import Machine
from nodeagent.pods.model import Object
from nodeagent.runtime.interface import ContainerStatus
from nodeagent.server.stats.sample import ContainerSample, PodSample, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


@dataclass(slots=True)
class Text:
    """Families with their samples, in the order in which they were begun."""

    _lines: list[str] = field(default_factory=list)

    def family(self, name: str, kind: str, explanation: str, samples: Iterator[tuple[Labels, float]]) -> None:
        """`kind`: counter or gauge. A family without samples is left out."""
        lines = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
        if lines:
            self._lines += [f"# HELP {name} {explanation}", f"# TYPE {name} {kind}", *lines]

    def one(self, name: str, kind: str, explanation: str, value: float, labels: Labels | None = None) -> None:
        self.family(name, kind, explanation, iter([(labels or {}, value)]))

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items()) + "}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def agent(name: str, pods: Sequence[Object], containers: Sequence[ContainerStatus], started_at: float) -> str:
    """The agent's own metrics. `pods`: with their status. `started_at`: of the agent."""
    text = Text()
    phases = Counter((p.get("status") or {}).get("phase", "Unknown") for p in pods)
    states = Counter(c.state.removeprefix("CONTAINER_").lower() for c in containers)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    text.one("kubelet_node_name", "gauge", "The node's name. The count is always 1.", 1, {"node": name})
    text.one("kubelet_desired_pods", "gauge", "Pods that this node has been told to run.", len(pods))
    text.one("kubelet_running_pods", "gauge", "Pods that have a running sandbox.", phases["Running"])
    text.family(
        "kubelet_running_containers", "gauge", "Containers by state.",
        (({"container_state": state}, count) for state, count in sorted(states.items())),
    )  # fmt: skip
    text.one("process_cpu_seconds_total", "counter", "CPU time of the agent.", usage.ru_utime + usage.ru_stime)
    text.one("process_resident_memory_bytes", "gauge", "Memory of the agent.", _resident())
    text.one("process_start_time_seconds", "gauge", "When the agent started.", started_at)
    return str(text)


def resources(sample: Sample) -> str:
    """CPU, memory and start times, as metrics-server wants them."""
    text = Text()
    each = [(_names(p, c), c) for p in sample.pods for c in p.containers]
    text.family(
        "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds",
        ((names, c.usage.cpu_ns / 1e9) for names, c in each),
    )  # fmt: skip
    text.family(
        "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes",
        ((names, c.usage.working_set_bytes) for names, c in each),
    )  # fmt: skip
    text.family(
        "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds",
        ((names, c.status.started_at) for names, c in each),
    )  # fmt: skip
    words = "Cumulative cpu time consumed by the node in core-seconds"
    text.one("node_cpu_usage_seconds_total", "counter", words, sample.usage.cpu_ns / 1e9)
    words = "Current working set of the node in bytes"
    text.one("node_memory_working_set_bytes", "gauge", words, sample.usage.working_set_bytes)
    text.family(
        "pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds",
        ((_pod_names(p), p.usage.cpu_ns / 1e9) for p in sample.pods),
    )  # fmt: skip
    text.family(
        "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes",
        ((_pod_names(p), p.usage.working_set_bytes) for p in sample.pods),
    )  # fmt: skip
    text.one("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics", 0)
    return str(text)


def cadvisor(sample: Sample, machine: Machine) -> str:
    """Containers in detail, and the machine."""
    text = Text()
    text.one("machine_cpu_cores", "gauge", "Number of logical CPU cores.", machine.cpus)
    text.one("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", machine.memory_bytes)
    each = [(_full_names(p, c), c) for p in sample.pods for c in p.containers]
    for name, kind, explanation, value in _CONTAINER:
        text.family(name, kind, explanation, ((names, value(c)) for names, c in each))
    text.family(
        "container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.",
        (
            ({**names, "failure_type": fault, "scope": "container"}, count)
            for names, c in each
            for fault, count in (("pgfault", c.usage.page_faults), ("pgmajfault", c.usage.major_page_faults))
        ),
    )  # fmt: skip
    for (resource_name, kind), name in _PSI.items():
        text.family(
            name, "counter", f"Time in seconds that tasks waited ({kind}) for {resource_name}.",
            (
                (names, c.usage.psi[resource_name, kind].total_us / 1e6)
                for names, c in each
                if (resource_name, kind) in c.usage.psi
            ),
        )  # fmt: skip
    text.family(
        "container_fs_usage_bytes", "gauge", "Number of bytes that the container has written and holds.",
        (
            (_names(p, c), p.storage.of_container(c.status.name))
            for p in sample.pods if p.storage is not None
            for c in p.containers
        ),
    )  # fmt: skip
    for direction, words in (("receive", "received"), ("transmit", "transmitted")):
        side = direction[0]
        for what in ("bytes", "packets", "errors", "packets_dropped"):
            attribute = ("rx_" if side == "r" else "tx_") + what.removeprefix("packets_")
            text.family(
                f"container_network_{direction}_{what}_total", "counter", f"Cumulative count of {what} {words}.",
                (
                    ({**_pod_names(p), "interface": i.name}, getattr(i, attribute))
                    for p in sample.pods
                    for i in p.interfaces
                ),
            )  # fmt: skip
    return str(text)


_CONTAINER: tuple[tuple[str, str, str, Callable[[ContainerSample], float]], ...] = (
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.",
     lambda c: c.usage.cpu_ns / 1e9),
    ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.",
     lambda c: c.usage.memory_bytes),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.",
     lambda c: c.usage.working_set_bytes),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", lambda c: c.usage.rss_bytes),
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container; 0 for none.",
     lambda c: c.usage.limit_bytes),
    ("container_processes", "gauge", "Number of processes running inside the container.", lambda c: c.usage.pids),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.",
     lambda c: c.status.started_at),
)  # fmt: skip

_PSI = {
    ("cpu", "some"): "container_pressure_cpu_waiting_seconds_total",
    ("cpu", "full"): "container_pressure_cpu_stalled_seconds_total",
    ("memory", "some"): "container_pressure_memory_waiting_seconds_total",
    ("memory", "full"): "container_pressure_memory_stalled_seconds_total",
    ("io", "some"): "container_pressure_io_waiting_seconds_total",
    ("io", "full"): "container_pressure_io_stalled_seconds_total",
}


def _pod_names(pod: PodSample) -> Labels:
    meta = pod.pod["metadata"]
    return {"namespace": meta.get("namespace", ""), "pod": meta["name"]}


def _names(pod: PodSample, container: ContainerSample) -> Labels:
    return {"container": container.status.name, **_pod_names(pod)}


def _full_names(pod: PodSample, container: ContainerSample) -> Labels:
    return {**_names(pod, container), "id": container.status.id, "image": container.status.image}


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
