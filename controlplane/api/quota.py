"""ResourceQuota: what an object counts for, and which quotas it counts against. Pure.

Amounts are Quantities by the names that a quota's `hard` uses: `count/deployments.apps`, `pods`, `requests.cpu`,
`services.nodeports`, `gold.storageclass.storage.k8s.io/requests.storage`. The API server asks before it stores, the
controller counts again what is there: both with these functions.
Source: k8s.io/kubernetes/pkg/quota/v1/evaluator/core and kubernetes.io/docs, "Resource Quotas".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.api import podresources, quantity
from controlplane.api.quantity import Quantity

Object = dict[str, Any]
Amounts = dict[str, Quantity]

BARE = frozenset(
    ("pods", "services", "secrets", "configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas")
)
_ONE = quantity.of(1)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_CLASS = ".storageclass.storage.k8s.io/"


def usage(group_resource: str, obj: Object) -> Amounts:
    """What `obj` of `group_resource` (`pods`, `deployments.apps`) counts for."""
    found: Amounts = {f"count/{group_resource}": _ONE}
    if group_resource == "pods":
        return found | _pod(obj)
    if group_resource == "services":
        return found | _service(obj)
    if group_resource == "persistentvolumeclaims":
        return found | _claim(obj)
    if group_resource in BARE:
        found[group_resource] = _ONE
    return found


def _pod(pod: Object) -> Amounts:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    found: Amounts = {"pods": _ONE}
    for name in podresources.names(pod, "requests") | podresources.names(pod, "limits"):
        for kind in ("requests", "limits"):
            nano = podresources.effective(pod, kind, name)
            if kind == "limits" and name not in podresources.names(pod, "limits"):
                continue
            amount = Quantity(nano, "binary" if name in ("memory", "ephemeral-storage") else "decimal")
            found[f"{kind}.{name}"] = amount
            if kind == "requests" and (name in _COMPUTE or name.startswith("hugepages-")):
                found[name] = amount
    return found


def _service(service: Object) -> Amounts:
    spec = service.get("spec") or {}
    found: Amounts = {"services": _ONE}
    kind, ports = spec.get("type") or "ClusterIP", spec.get("ports") or ()
    if kind == "NodePort":
        found["services.nodeports"] = quantity.of(len(ports))
    elif kind == "LoadBalancer":
        found["services.loadbalancers"] = _ONE
        allocated = len(ports) if spec.get("allocateLoadBalancerNodePorts", True) else _given(ports)
        found["services.nodeports"] = quantity.of(allocated)
    return found


def _given(ports: Iterable[Object]) -> int:
    return sum(1 for port in ports if port.get("nodePort"))


def _claim(claim: Object) -> Amounts:
    spec = claim.get("spec") or {}
    storage = quantity.of(((spec.get("resources") or {}).get("requests") or {}).get("storage", 0))
    found: Amounts = {"persistentvolumeclaims": _ONE, "requests.storage": storage}
    name = spec.get("storageClassName")
    if name:
        found[f"{name}{_CLASS}persistentvolumeclaims"] = _ONE
        found[f"{name}{_CLASS}requests.storage"] = storage
    return found


def covers(quota: Object, group_resource: str, obj: Object) -> bool:
    """Whether `quota` is about such an object: its scopes fit. They only ever fit pods (and claims by their class)."""
    spec = quota.get("spec") or {}
    wanted = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    wanted += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not wanted:
        return True
    if group_resource == "persistentvolumeclaims":
        return all(r["scopeName"] == "VolumeAttributesClass" and _claim_scope(r, obj) for r in wanted)
    return group_resource == "pods" and all(_pod_scope(requirement, obj) for requirement in wanted)


def _pod_scope(requirement: Mapping[str, Any], pod: Object) -> bool:
    spec, name = pod["spec"], requirement["scopeName"]
    if name in ("Terminating", "NotTerminating"):
        return bool((spec.get("activeDeadlineSeconds") is not None) == (name == "Terminating"))
    if name in ("BestEffort", "NotBestEffort"):
        asks = any(podresources.names(pod, kind) & {"cpu", "memory"} for kind in ("requests", "limits"))
        return bool(asks == (name == "NotBestEffort"))
    if name == "CrossNamespacePodAffinity":
        return _crosses(spec.get("affinity") or {})
    if name == "PriorityClass":
        return _selected(requirement, spec.get("priorityClassName") or "")
    return False


def _claim_scope(requirement: Mapping[str, Any], claim: Object) -> bool:
    return _selected(requirement, (claim.get("spec") or {}).get("volumeAttributesClassName") or "")


def _selected(requirement: Mapping[str, Any], value: str) -> bool:
    operator, values = requirement.get("operator"), requirement.get("values") or ()
    if operator == "Exists":
        return bool(value)
    if operator == "DoesNotExist":
        return not value
    return (value in values) == (operator == "In")


def _crosses(affinity: Object) -> bool:
    """Whether some affinity term looks into other namespaces."""
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [each.get("podAffinityTerm") or {} for each in preferred]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def unspecified(quota: Object, pod: Object) -> str:
    """What a quota on compute resources wants every container to say and some do not, in Kubernetes' words; empty if
    nothing is missing: `limits.memory for: a,b; requests.cpu for: a`."""
    missing: dict[str, list[str]] = {}
    for name in (quota.get("spec") or {}).get("hard") or {}:
        long = name.startswith(("requests.", "limits."))
        kind, _, resource = name.rpartition(".") if long else ("requests", "", name)
        if resource not in ("cpu", "memory"):
            continue
        if (((pod["spec"].get("resources") or {}).get(kind)) or {}).get(resource) is not None:
            continue
        for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())):
            if ((container.get("resources") or {}).get(kind) or {}).get(resource) is None:
                missing.setdefault(name, []).append(container["name"])
    return "; ".join(f"{name} for: {','.join(containers)}" for name, containers in sorted(missing.items()))


def exceeded(hard: Mapping[str, str], used: Mapping[str, str], more: Amounts) -> Sequence[str]:
    """The names in `hard` that `used` with `more` would go beyond."""
    return [
        name
        for name, amount in sorted(more.items())
        if name in hard and amount.nano > 0
        and quantity.parse(hard[name]) < quantity.parse(used.get(name, "0")) + amount
    ]  # fmt: skip


def add(amounts: Iterable[Amounts]) -> Amounts:
    """The sum of what several objects count for."""
    total: Amounts = {}
    for each in amounts:
        for name, amount in each.items():
            total[name] = total[name] + amount if name in total else amount
    return total
