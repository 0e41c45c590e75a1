"""What the scheduler needs to know of a pod, worked out once.

`PodInfo` is made when a pod is first seen: requests as numbers, selectors and affinity terms compiled, everything else
left behind. `slim` is the informer's transform: it drops what no decision reads (environment, probes, annotations), so
that ten thousand pods stay small. Nothing here looks at nodes.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from controlplane.api import quantity
from controlplane.api.selectors import LabelSelector, Requirement, from_selector
from controlplane.client import key_of

Obj = dict[str, Any]

# Pods that ask for nothing are scored as if they asked for this (kube-scheduler's util.GetNonzeroRequests).
_DEFAULT_MILLICPU = 100
_DEFAULT_MEMORY = 200 << 20

_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp", "deletionTimestamp",
    "ownerReferences",
)  # fmt: skip
_CONTAINER = ("name", "image", "resources", "ports", "restartPolicy")
_STATUS = ("phase", "nominatedNodeName", "startTime")


class Term(NamedTuple):
    """A pod (anti-)affinity term, hashable: pods of one template share theirs. `namespaces` None means all."""

    topology_key: str
    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None


class Spread(NamedTuple):
    """A topology spread constraint."""

    topology_key: str
    max_skew: int
    hard: bool
    selector: LabelSelector
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


class Toleration(NamedTuple):
    key: str
    exists: bool
    value: str
    effect: str

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Whether a taint is tolerated; empty fields match everything."""
        if self.effect and self.effect != effect:
            return False
        if self.key and self.key != key:
            return False
        return self.exists or self.value == value


class NodeTerm(NamedTuple):
    """A node selector term: requirements on labels, and names that the node must (not) have."""

    labels: LabelSelector
    names: tuple[Requirement, ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        return self.labels.matches(labels) and all(r.matches({"metadata.name": name}) for r in self.names)


class PodInfo:
    """A pod as the scheduler sees it. Immutable, but for `obj`, which may follow the API while `same` holds."""

    __slots__ = (
        "affinity", "anti_affinity", "claims", "hard_terms", "images", "key", "labels", "name", "namespace",
        "node_selector", "node_terms", "nonzero_cpu", "nonzero_memory", "obj", "owner", "ports", "preempts",
        "preferred_affinity", "preferred_anti_affinity", "preferred_nodes", "priority", "requests", "spreads",
        "terminating", "tolerations", "uid",
    )  # fmt: skip

    def __init__(self, obj: Obj) -> None:
        metadata, spec = obj["metadata"], obj.get("spec") or {}
        self.obj = obj
        self.key = key_of(obj)
        self.name: str = metadata["name"]
        self.namespace: str = metadata.get("namespace", "")
        self.uid: str = metadata.get("uid", "")
        self.labels: Mapping[str, str] = metadata.get("labels") or {}
        self.terminating = "deletionTimestamp" in metadata
        self.owner = next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("controller")), "")
        self.priority: int = spec.get("priority") or 0
        self.preempts = spec.get("preemptionPolicy") != "Never"
        self.requests: tuple[tuple[str, int], ...] = tuple(sorted(requests_of(spec).items()))
        self.nonzero_cpu, self.nonzero_memory = _nonzero(spec)
        self.ports = _ports(spec)
        self.images: tuple[str, ...] = tuple(c.get("image", "") for c in spec.get("containers") or ())
        self.claims: tuple[str, ...] = tuple(
            v["persistentVolumeClaim"]["claimName"] for v in spec.get("volumes") or () if "persistentVolumeClaim" in v
        )
        self.tolerations = tuple(
            Toleration(t.get("key", ""), t.get("operator") == "Exists", t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        )
        self.node_selector: Mapping[str, str] = spec.get("nodeSelector") or {}
        affinity = spec.get("affinity") or {}
        nodes = affinity.get("nodeAffinity") or {}
        required = nodes.get("requiredDuringSchedulingIgnoredDuringExecution")
        self.node_terms: tuple[NodeTerm, ...] | None = (
            tuple(node_term(t) for t in required.get("nodeSelectorTerms") or ()) if required is not None else None
        )
        self.preferred_nodes = tuple(
            (int(p["weight"]), node_term(p["preference"]))
            for p in nodes.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        )
        near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        self.affinity = self._required(near)
        self.anti_affinity = self._required(far)
        self.preferred_affinity = self._preferred(near)
        self.preferred_anti_affinity = self._preferred(far)
        self.spreads = tuple(self._spread(c) for c in spec.get("topologySpreadConstraints") or ())

    def same(self, obj: Obj) -> bool:
        """Whether `obj`, a later state of this pod just bound, would make an equal PodInfo."""
        metadata = obj["metadata"]
        return (
            metadata.get("uid") == self.uid
            and (metadata.get("labels") or {}) == self.labels
            and ("deletionTimestamp" in metadata) == self.terminating
        )

    def _required(self, kind: Obj) -> tuple[Term, ...]:
        return tuple(self._term(t) for t in kind.get("requiredDuringSchedulingIgnoredDuringExecution") or ())

    def _preferred(self, kind: Obj) -> tuple[tuple[int, Term], ...]:
        terms = kind.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        return tuple((int(t["weight"]), self._term(t["podAffinityTerm"])) for t in terms)

    def _term(self, term: Obj) -> Term:
        selector = self._with_keys(from_selector(term.get("labelSelector")), term.get("matchLabelKeys"), "=")
        selector = self._with_keys(selector, term.get("mismatchLabelKeys"), "!=")
        namespaces = frozenset(term.get("namespaces") or ())
        by_label = term.get("namespaceSelector")
        if not namespaces and by_label is None:
            namespaces = frozenset((self.namespace,))
        return Term(
            term["topologyKey"], selector, namespaces, from_selector(by_label) if by_label is not None else None
        )

    def _spread(self, constraint: Obj) -> Spread:
        selector = from_selector(constraint.get("labelSelector"))
        return Spread(
            constraint["topologyKey"],
            int(constraint["maxSkew"]),
            constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
            self._with_keys(selector, constraint.get("matchLabelKeys"), "="),
            int(constraint.get("minDomains") or 1),
            constraint.get("nodeAffinityPolicy", "Honor") == "Honor",
            constraint.get("nodeTaintsPolicy", "Ignore") == "Honor",
        )

    def _with_keys(self, selector: LabelSelector, keys: list[str] | None, operator: str) -> LabelSelector:
        """`selector`, narrowed to pods whose labels `keys` are this pod's own (or not)."""
        extra = tuple(
            Requirement(k, "=" if operator == "=" else "!=", frozenset((self.labels[k],)))
            for k in keys or ()
            if k in self.labels
        )
        have = set(selector.requirements)
        extra = tuple(r for r in extra if r not in have)
        return LabelSelector(selector.requirements + extra, selector.nothing) if extra else selector


def node_term(term: Obj) -> NodeTerm:
    """A NodeSelectorTerm, compiled. An empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return NodeTerm(LabelSelector(nothing=True))
    return NodeTerm(LabelSelector(tuple(map(_node_requirement, expressions))), tuple(map(_node_requirement, fields)))


def _node_requirement(expression: Obj) -> Requirement:
    operators: dict[str, Any] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    operators |= {"Gt": "gt", "Lt": "lt"}
    return Requirement(expression["key"], operators[expression["operator"]], frozenset(expression.get("values") or ()))


@lru_cache(4096)
def amount(resource: str, text: str | int | float) -> int:
    """A quantity as the scheduler counts: thousandths of a CPU, whole units of everything else."""
    parsed = quantity.of(text)
    return parsed.milli() if resource == "cpu" else parsed.value()


def requests_of(spec: Obj) -> dict[str, int]:
    """What a pod asks for: the larger of what its containers need together and what any step of its start needs
    (init containers run one after the other, beside the sidecars started before them), plus overhead; a pod-level
    request replaces that of its resource (KEP 753, KEP 2837). Zero amounts are left out."""
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        _add(total, _requests(container))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            step = sidecars
        else:
            step = dict(sidecars)
            _add(step, own)
        for name, value in step.items():
            peak[name] = max(peak.get(name, 0), value)
    _add(total, sidecars)
    for name, value in peak.items():
        total[name] = max(total.get(name, 0), value)
    total |= _requests(spec)
    _add(total, {k: amount(k, v) for k, v in (spec.get("overhead") or {}).items()})
    return {name: value for name, value in total.items() if value}


def _requests(holder: Obj) -> dict[str, int]:
    resources = holder.get("resources")
    if not resources:
        return {}
    limits, asked = resources.get("limits") or {}, resources.get("requests") or {}
    return {name: amount(name, text) for name, text in {**limits, **asked}.items()}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _nonzero(spec: Obj) -> tuple[int, int]:
    """(millicores, bytes) for scoring: a container that asks for neither counts as a small one."""
    cpu = memory = 0
    for container in spec.get("containers") or ():
        own = _requests(container)
        cpu += own.get("cpu", _DEFAULT_MILLICPU)
        memory += own.get("memory", _DEFAULT_MEMORY)
    whole = requests_of(spec)
    return max(cpu, whole.get("cpu", 0)), max(memory, whole.get("memory", 0))


def _ports(spec: Obj) -> tuple[tuple[str, str, int], ...]:
    """(host IP, protocol, host port) of every port that the pod takes on its node."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return tuple(
        (p.get("hostIP") or "0.0.0.0", p.get("protocol", "TCP"), int(p["hostPort"]))
        for c in containers
        for p in c.get("ports") or ()
        if p.get("hostPort")
    )


def slim(obj: Obj) -> Obj:
    """A fresh copy of a pod with only what this package reads."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    kept = dict(spec)
    kept["containers"] = [_pick(c, _CONTAINER) for c in spec.get("containers") or ()]
    if "initContainers" in spec:
        kept["initContainers"] = [_pick(c, _CONTAINER) for c in spec["initContainers"] or ()]
    kept["volumes"] = [v for v in spec.get("volumes") or () if "persistentVolumeClaim" in v]
    shown = _pick(status, _STATUS)
    conditions = [c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"]
    if conditions:
        shown["conditions"] = conditions
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _pick(metadata, _METADATA), "spec": kept, "status": shown}


def _pick(obj: Obj, names: tuple[str, ...]) -> Obj:
    return {name: obj[name] for name in names if name in obj}
