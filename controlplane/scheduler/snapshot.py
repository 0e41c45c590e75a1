"""The cluster as the scheduler believes it to be: nodes with their pods, sums kept current with every change.

Adding or removing a pod changes a few numbers of one node; nothing is ever summed up again. Pods appear here when a
watch shows them bound, or when the scheduler *assumes* them bound, before the API server has answered. Questions that
span nodes (how many pods match this selector, where?) are answered from counts that are kept current from their first
use on. One event loop, no locks, no copies.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from controlplane.api.selectors import LabelSelector
from controlplane.scheduler.pod import PodInfo, Term, amount

Obj = dict[str, Any]

_COUNTED_SELECTORS = 64


class Taint(NamedTuple):
    key: str
    value: str
    effect: str


class NodeInfo:
    """A node and what is on it."""

    __slots__ = (
        "allocatable", "cpu", "free", "hard_taints", "images", "labels", "memory", "name", "node", "nonzero_cpu",
        "nonzero_memory", "pods", "ports", "soft_taints", "unschedulable",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Obj | None = None
        """The API object; None while only its pods are known."""
        self.labels: Mapping[str, str] = {}
        self.hard_taints: tuple[Taint, ...] = ()
        """NoSchedule and NoExecute."""
        self.soft_taints: tuple[Taint, ...] = ()
        """PreferNoSchedule."""
        self.unschedulable = False
        self.allocatable: dict[str, int] = {}
        self.free: dict[str, int] = {}
        """What is left of each resource, `pods` included; may be negative."""
        self.cpu = self.memory = 0
        self.nonzero_cpu = self.nonzero_memory = 0
        self.pods: dict[str, PodInfo] = {}
        self.ports: dict[tuple[str, str, int], int] = {}
        self.images: dict[str, int] = {}

    def set(self, node: Obj) -> None:
        """Take over a fresh API object."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        self.node = node
        self.labels = node["metadata"].get("labels") or {}
        taints = [Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or ()]
        self.hard_taints = tuple(t for t in taints if t.effect != "PreferNoSchedule")
        self.soft_taints = tuple(t for t in taints if t.effect == "PreferNoSchedule")
        self.unschedulable = bool(spec.get("unschedulable"))
        allocatable = status.get("allocatable") or {}
        self.allocatable = {name: amount(name, text) for name, text in allocatable.items()}
        self.cpu, self.memory = self.allocatable.get("cpu", 0), self.allocatable.get("memory", 0)
        self.images = {n: i.get("sizeBytes", 0) for i in status.get("images") or () for n in i.get("names") or ()}
        self.free = dict(self.allocatable)
        self.free["pods"] = self.free.get("pods", 0) - len(self.pods)
        for pod in self.pods.values():
            for name, value in pod.requests:
                self.free[name] = self.free.get(name, 0) - value

    def add(self, pod: PodInfo) -> None:
        """Put a pod here."""
        self._change(pod, 1)
        self.pods[pod.key] = pod

    def remove(self, key: str) -> PodInfo | None:
        """Take a pod away; None if it was not here."""
        pod = self.pods.pop(key, None)
        if pod:
            self._change(pod, -1)
        return pod

    def with_changes(self, added: Iterable[PodInfo] = (), removed: Iterable[PodInfo] = ()) -> "NodeInfo":
        """A copy to try things on."""
        copy = NodeInfo(self.name)
        for slot in NodeInfo.__slots__:
            value = getattr(self, slot)
            setattr(copy, slot, dict(value) if slot in ("free", "pods", "ports") else value)
        for pod in removed:
            copy.remove(pod.key)
        for pod in added:
            copy.add(pod)
        return copy

    def _change(self, pod: PodInfo, sign: int) -> None:
        free = self.free
        free["pods"] = free.get("pods", 0) - sign
        for name, value in pod.requests:
            free[name] = free.get(name, 0) - sign * value
        self.nonzero_cpu += sign * pod.nonzero_cpu
        self.nonzero_memory += sign * pod.nonzero_memory
        for port in pod.ports:
            count = self.ports.get(port, 0) + sign
            if count:
                self.ports[port] = count
            else:
                del self.ports[port]


class _Question(NamedTuple):
    """Which pods a count counts. `namespaces` None means every one."""

    namespaces: frozenset[str] | None
    selector: LabelSelector
    live_only: bool

    def matches(self, pod: PodInfo) -> bool:
        if self.namespaces is not None and pod.namespace not in self.namespaces:
            return False
        return not (self.live_only and pod.terminating) and self.selector.matches(pod.labels)


Counts = dict[str, int]
"""node name -> how many"""


class Snapshot:
    """All nodes, all pods that are on one, and the pods that are promised one (nominated)."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        """Nodes that exist, by name."""
        self.namespaces: dict[str, Mapping[str, str]] = {}
        """Labels of each namespace."""
        self.unschedulable = 0
        """Number of nodes that are cordoned; likewise tainted ones. They let filters be skipped altogether."""
        self.hard_tainted = 0
        self.soft_tainted = 0
        self.anti_affinity: dict[Term, Counts] = {}
        """Required anti-affinity terms of the pods that are placed, and where these are."""
        self.weighted: dict[tuple[int, Term], Counts] = {}
        """Terms with the weight by which a placed pod attracts (or repels) matching ones."""
        self.owners: dict[str, Counts] = {}
        """Where the pods of each controller are."""
        self.nominated: dict[str, dict[str, PodInfo]] = {}
        """node name -> pods that preempted others there and wait for the room."""
        self._homeless: dict[str, NodeInfo] = {}
        self._where: dict[str, NodeInfo] = {}
        self._counts: OrderedDict[_Question, Counts] = OrderedDict()

    # --- nodes

    def set_node(self, node: Obj) -> None:
        """A node appeared or changed."""
        name = node["metadata"]["name"]
        info = self.nodes.get(name)
        if info is None:
            info = self.nodes[name] = self._homeless.pop(name, NodeInfo(name))
        else:
            self._tally(info, -1)
        info.set(node)
        self._tally(info, 1)

    def remove_node(self, name: str) -> None:
        """A node is gone; its pods are still there until the API server says otherwise."""
        info = self.nodes.pop(name, None)
        if info is None:
            return
        self._tally(info, -1)
        info.node = None
        if info.pods:
            self._homeless[name] = info

    def _tally(self, info: NodeInfo, sign: int) -> None:
        self.unschedulable += sign * info.unschedulable
        self.hard_tainted += sign * bool(info.hard_taints)
        self.soft_tainted += sign * bool(info.soft_taints)

    # --- pods

    def node_of(self, key: str) -> str:
        """Where a pod is; empty if nowhere."""
        info = self._where.get(key)
        return info.name if info else ""

    def pod(self, key: str) -> PodInfo | None:
        """A pod that is placed."""
        info = self._where.get(key)
        return info.pods[key] if info else None

    def add_pod(self, pod: PodInfo, node: str) -> None:
        """A pod is on `node` (or is assumed to be). Replaces what was known of it."""
        self.remove_pod(pod.key)
        info = self.nodes.get(node) or self._homeless.get(node)
        if info is None:
            info = self._homeless[node] = NodeInfo(node)
        info.add(pod)
        self._where[pod.key] = info
        self._count(pod, node, 1)

    def remove_pod(self, key: str) -> PodInfo | None:
        """A pod is gone (or was never bound after all)."""
        info = self._where.pop(key, None)
        if info is None:
            return None
        pod = info.remove(key)
        assert pod is not None
        self._count(pod, info.name, -1)
        if not info.pods:
            self._homeless.pop(info.name, None)
        return pod

    def nominate(self, pod: PodInfo, node: str) -> None:
        """Promise `pod` the room that its victims leave on `node`."""
        self.withdraw(pod.key)
        self.nominated.setdefault(node, {})[pod.key] = pod

    def promised(self, key: str) -> str:
        """The node that is promised to a pod; empty if none."""
        return next((node for node, pods in self.nominated.items() if key in pods), "")

    def withdraw(self, key: str) -> None:
        """Forget a promise."""
        for node, pods in list(self.nominated.items()):
            if pods.pop(key, None) is not None and not pods:
                del self.nominated[node]

    # --- counts

    def matching(
        self, namespaces: frozenset[str] | None, selector: LabelSelector, *, live_only: bool = False
    ) -> Counts:
        """How many placed pods of these namespaces match, by node. Cheap from the second time on."""
        question = _Question(namespaces, selector, live_only)
        counts = self._counts.get(question)
        if counts is not None:
            self._counts.move_to_end(question)
            return counts
        counts = {}
        for info in (*self.nodes.values(), *self._homeless.values()):
            found = sum(1 for pod in info.pods.values() if question.matches(pod))
            if found:
                counts[info.name] = found
        self._counts[question] = counts
        if len(self._counts) > _COUNTED_SELECTORS:
            self._counts.popitem(last=False)
        return counts

    def namespaces_of(self, term: Term) -> frozenset[str] | None:
        """The namespaces that a term speaks of."""
        if term.namespace_selector is None:
            return term.namespaces
        if term.namespace_selector.empty:
            return None
        chosen = {name for name, labels in self.namespaces.items() if term.namespace_selector.matches(labels)}
        return term.namespaces | chosen

    def _count(self, pod: PodInfo, node: str, sign: int) -> None:
        for question, counts in self._counts.items():
            if question.matches(pod):
                _bump(counts, node, sign)
        if pod.owner:
            _bump_in(self.owners, pod.owner, node, sign)
        for term in pod.anti_affinity:
            _bump_in(self.anti_affinity, term, node, sign)
        for term in pod.affinity:
            _bump_in(self.weighted, (1, term), node, sign)  # kube-scheduler's hardPodAffinityWeight
        for weight, term in pod.preferred_affinity:
            _bump_in(self.weighted, (weight, term), node, sign)
        for weight, term in pod.preferred_anti_affinity:
            _bump_in(self.weighted, (-weight, term), node, sign)


def _bump(counts: Counts, node: str, by: int) -> None:
    value = counts.get(node, 0) + by
    if value:
        counts[node] = value
    else:
        counts.pop(node, None)


def _bump_in(table: dict[Any, Counts], key: Any, node: str, by: int) -> None:
    counts = table.setdefault(key, {})
    _bump(counts, node, by)
    if not counts:
        del table[key]
