"""Whether this node takes a pod that was bound to it: enough left, the right node. Pure.

The scheduler has checked this already; its view may be stale, and a pod can be bound without it. Reasons and messages:
kubelet's pkg/kubelet/lifecycle/predicate.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from controlplane.api import quantity
from controlplane.api.podresources import effective
from nodeagent.pods.eviction.ranking import SYSTEM_CRITICAL_PRIORITY
from nodeagent.pods.memory import Verdict
from nodeagent.pods.model import CONFIG_SOURCE_ANNOTATION, Object, qos_class
from nodeagent.pods.resources import requested_names

_CHECKED = ("cpu", "memory", "ephemeral-storage")


def refuse(
    pod: Object, others: Iterable[Object], allocatable: Mapping[str, str], labels: Mapping[str, str]
) -> Verdict | None:
    """Why the node refuses `pod`, given the other pods that hold resources here; None if it takes it."""
    if not selects(pod, labels):
        return Verdict("Failed", "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed", 0)
    return out_of_room(pod, list(others), allocatable)


def unfit(pod: Object, others: Iterable[Object]) -> Verdict | None:
    """Why the node cannot run `pod` at all, or not beside `others`: another operating system, a port that is taken."""
    if ((pod["spec"].get("os") or {}).get("name") or "linux") != "linux":
        message = "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS"
        return Verdict("Failed", "PodOSNotSupported", message, 0)
    wanted = list(_host_ports(pod))
    if wanted and any(_conflict(a, b) for other in others for b in _host_ports(other) for a in wanted):
        return Verdict("Failed", "NodePorts", "Pod was rejected: Predicate NodePorts failed", 0)
    return None


def _host_ports(pod: Object) -> Iterable[tuple[str, int, str]]:
    """(protocol, port, address) of every host port that the pod takes for as long as it lives."""
    sidecars = [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*sidecars, *pod["spec"]["containers"]):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("protocol") or "TCP", port["hostPort"], port.get("hostIP") or "0.0.0.0"


def _conflict(one: tuple[str, int, str], other: tuple[str, int, str]) -> bool:
    return one[:2] == other[:2] and (one[2] == other[2] or "0.0.0.0" in (one[2], other[2]))


def out_of_room(pod: Object, running: Sequence[Object], allocatable: Mapping[str, str]) -> Verdict | None:
    """Why there is not enough left for `pod` beside the `running` ones; None if there is."""
    room = int(allocatable.get("pods", "0") or 0)
    if room and len(running) + 1 > room:
        return _out_of("pods", 1, len(running), room)
    for name in (*_CHECKED, *sorted(requested_names([pod]) - {*_CHECKED})):
        asked = effective(pod, "requests", name)
        if not asked or name not in allocatable:
            continue
        has = quantity.of(allocatable[name]).nano
        used = sum(effective(other, "requests", name) for other in running)
        if used + asked > has:
            unit = 10**6 if name == "cpu" else 10**9
            return _out_of(name, asked // unit, used // unit, has // unit)
    return None


def _out_of(name: str, requested: int, used: int, capacity: int) -> Verdict:
    message = f"Pod was rejected: Node didn't have enough resource: {name}, "
    message += f"requested: {requested}, used: {used}, capacity: {capacity}"
    return Verdict("Failed", f"OutOf{name}", message, 0)


PREEMPTED = "Preempted in order to admit critical pod"


def critical(pod: Object) -> bool:
    """Whether the node must run the pod if it can: a static one, or one of a system priority."""
    static = CONFIG_SOURCE_ANNOTATION in (pod["metadata"].get("annotations") or {})
    return static or (pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL_PRIORITY


def victims(pod: Object, running: Sequence[Object], allocatable: Mapping[str, str]) -> list[Object]:
    """The pods that must go for a critical one for which there is no room; none if it is not critical, or if all of
    them would not do. Those whom the node promised least go first, of these the least important: as kubelet's
    pkg/kubelet/preemption, which also weighs how much each would give back."""
    if not critical(pod):
        return []
    lesser = [p for p in running if not critical(p)]
    lesser.sort(key=lambda p: (_PROMISED[qos_class(p)], p["spec"].get("priority") or 0))
    doomed: list[Object] = []
    kept = list(running)
    for other in lesser:
        if out_of_room(pod, kept, allocatable) is None:
            break
        kept.remove(other)
        doomed.append(other)
    if out_of_room(pod, kept, allocatable) is not None:
        return []
    for other in list(doomed):  # the last one may have been large enough to make earlier ones needless
        if out_of_room(pod, [*kept, other], allocatable) is None:
            doomed.remove(other)
            kept.append(other)
    return doomed


_PROMISED = {"BestEffort": 0, "Burstable": 1, "Guaranteed": 2}


def selects(pod: Object, labels: Mapping[str, str]) -> bool:
    """Whether nodeSelector and required node affinity match a node with these labels."""
    spec = pod["spec"]
    if any(labels.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_term(term, labels) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Object, labels: Mapping[str, str]) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": labels.get("kubernetes.io/hostname", "")}
    return all(_expression(e, labels) for e in expressions) and all(_expression(e, names) for e in fields)


_COMPARE: dict[str, Callable[[int, int], bool]] = {"Gt": int.__gt__, "Lt": int.__lt__}


def _expression(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    values: list[str] = expression.get("values") or []
    operator = expression["operator"]
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        return value is not None and _COMPARE[operator](int(value), int(values[0]))
    except (KeyError, ValueError, IndexError):
        return False
