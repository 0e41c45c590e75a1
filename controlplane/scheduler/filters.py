"""May this pod run on that node? One pure function a reason, in kube-scheduler's order and words.

A filter returns the reasons against the node; none means that it may. `applies` lets a filter be left out for a pod
(or a cluster) that it cannot say no to, which is the usual case for most. `helpable` says whether removing other pods
could help, which is what preemption wants to know.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.snapshot import NodeInfo, Snapshot
from controlplane.scheduler.topology import Survey, fits_affinity, untolerated

Reasons = tuple[str, ...]


class Volumes(Protocol):
    """The door for volumes: what claims have to say about nodes."""

    def reasons(self, pod: PodInfo, node: NodeInfo) -> Reasons:
        """Why the pod's volumes keep it from the node."""
        ...


class NoOpinion:
    """Volumes that are everywhere."""

    def reasons(self, pod: PodInfo, node: NodeInfo) -> Reasons:
        """Nothing."""
        return ()


class Context(NamedTuple):
    """What a filter may look at besides pod and node."""

    snapshot: Snapshot
    survey: Survey
    volumes: Volumes


class Filter(NamedTuple):
    name: str
    applies: Callable[[PodInfo, Context], object]
    reasons: Callable[[PodInfo, NodeInfo, Context], Reasons]
    helpable: bool


def node_unschedulable(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """Cordoned nodes take only pods that tolerate it."""
    if not node.unschedulable:
        return ()
    if any(t.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule") for t in pod.tolerations):
        return ()
    return ("node(s) were unschedulable",)


def taint_toleration(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """Taints of effect NoSchedule and NoExecute must be tolerated."""
    if not node.hard_taints:
        return ()
    taint = untolerated(pod, node)
    return (f"node(s) had untolerated taint {{{taint[0]}: {taint[1]}}}",) if taint else ()


def node_affinity(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """nodeSelector and required node affinity."""
    return () if fits_affinity(pod, node) else ("node(s) didn't match Pod's node affinity/selector",)


def node_ports(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """A host port is taken once per address and protocol; 0.0.0.0 takes it on every address."""
    for ip, protocol, port in pod.ports:
        for taken_ip, taken_protocol, taken_port in node.ports:
            same = port == taken_port and protocol == taken_protocol
            if same and (ip == taken_ip or "0.0.0.0" in (ip, taken_ip)):
                return ("node(s) didn't have free ports for the requested pod ports",)
    return ()


def resources_fit(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """What the pod requests must be left of what the node can give, the number of pods included."""
    free = node.free
    if free["pods"] > 0:
        for name, value in pod.requests:
            if value > free.get(name, 0):
                break
        else:
            return ()
    lacking = ("Too many pods",) if free["pods"] <= 0 else ()
    return lacking + tuple(f"Insufficient {name}" for name, value in pod.requests if value > free.get(name, 0))


def volumes_fit(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """What the claims' volumes admit."""
    return context.volumes.reasons(pod, node)


def topology_spread(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """Hard spread constraints: no domain may be ahead of the emptiest by more than maxSkew."""
    for table in context.survey.hard:
        value = node.labels.get(table.constraint.topology_key)
        if value is None:
            return ("node(s) didn't match pod topology spread constraints (missing required label)",)
        if table.counts.get(value, 0) + table.itself - table.least > table.constraint.max_skew:
            return ("node(s) didn't match pod topology spread constraints",)
    return ()


def pod_affinity(pod: PodInfo, node: NodeInfo, context: Context) -> Reasons:
    """Required affinity and anti-affinity of this pod, and anti-affinity of the pods that are there."""
    survey, labels = context.survey, node.labels
    for key, values in survey.seeks:
        if labels.get(key) not in values and not (survey.first and key in labels):
            return ("node(s) didn't match pod affinity rules",)
    for key, values in survey.avoids:
        if labels.get(key) in values:
            return ("node(s) didn't match pod anti-affinity rules",)
    for key, values in survey.repelled:
        if labels.get(key) in values:
            return ("node(s) didn't satisfy existing pods anti-affinity rules",)
    return ()


FILTERS = (
    Filter("NodeUnschedulable", lambda p, c: c.snapshot.unschedulable, node_unschedulable, helpable=False),
    Filter("TaintToleration", lambda p, c: c.snapshot.hard_tainted, taint_toleration, helpable=False),
    Filter("NodeAffinity", lambda p, c: p.node_selector or p.node_terms is not None, node_affinity, helpable=False),
    Filter("NodePorts", lambda p, c: p.ports, node_ports, helpable=True),
    Filter("NodeResourcesFit", lambda p, c: True, resources_fit, helpable=True),
    Filter("VolumeBinding", lambda p, c: p.claims, volumes_fit, helpable=False),
    Filter("PodTopologySpread", lambda p, c: c.survey.hard, topology_spread, helpable=True),
    Filter(
        "InterPodAffinity",
        lambda p, c: c.survey.seeks or c.survey.avoids or c.survey.repelled,
        pod_affinity,
        helpable=True,
    ),
)


class Rejection(NamedTuple):
    """Why one node is out of the question."""

    filter: Filter
    reasons: Reasons


def feasible(
    pod: PodInfo, nodes: Iterable[NodeInfo], context: Context, wanted: int
) -> tuple[list[NodeInfo], dict[str, Rejection]]:
    """The nodes that may take the pod (enough when there are `wanted`), and why the others may not."""
    applying = [f for f in FILTERS if f.applies(pod, context)]
    nominated = context.snapshot.nominated
    passed: list[NodeInfo] = []
    rejected: dict[str, Rejection] = {}
    for node in nodes:
        seen = node
        if nominated and node.name in nominated:
            ahead = [p for p in nominated[node.name].values() if p.priority >= pod.priority and p.key != pod.key]
            seen = node.with_changes(added=ahead) if ahead else node
        for each in applying:
            reasons = each.reasons(pod, seen, context)
            if reasons:
                rejected[node.name] = Rejection(each, reasons)
                break
        else:
            passed.append(node)
            if len(passed) >= wanted:
                break
    return passed, rejected


def explain(rejected: dict[str, Rejection], total: int) -> str:
    """`0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient cpu.`"""
    if not total:
        return "no nodes available to schedule pods"
    counts: dict[str, int] = {}
    for rejection in rejected.values():
        for reason in rejection.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    return f"0/{total} nodes are available: " + ", ".join(sorted(f"{n} {reason}" for reason, n in counts.items())) + "."
