"""In-place resize: a running pod's containers get other CPU and memory, as `kubectl patch --subresource resize` asked.

    spec          what is wanted          (the API object)
    allocated     what the node granted   (Memory.allocated, status.containerStatuses[].allocatedResources)
    applied       what the cgroups have   (Memory.applied, status.containerStatuses[].resources)

The worker grants a change when the node has room for it (`refusal`), the plan then brings the cgroups there,
restarting containers whose resizePolicy says so. Pure. Source: kubelet's pkg/kubelet/allocation and kubernetes.io/docs,
"Resize CPU and Memory Resources assigned to Containers".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.api import quantity
from controlplane.api.podresources import effective
from nodeagent.pods import admission
from nodeagent.pods.model import CONFIG_SOURCE_ANNOTATION, Object

_RESIZABLE = ("cpu", "memory")


@dataclass(frozen=True, slots=True)
class Pending:
    """Why a resize has not been granted. `reason`: Deferred (there may be room later) or Infeasible."""

    reason: str
    message: str


def asked(pod: Object) -> dict[str, Object]:
    """The resources that the spec wants, by container name."""
    spec = pod["spec"]
    return {c["name"]: c.get("resources") or {} for c in (*spec["containers"], *(spec.get("initContainers") or ()))}


def known(pod: Object) -> dict[str, Object]:
    """What an earlier agent said that it had applied, by container name; what it did not say is as asked."""
    status = pod.get("status") or {}
    entries = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    said = {e["name"]: e["resources"] for e in entries if e.get("resources")}
    return {name: said.get(name, wanted) for name, wanted in asked(pod).items()}


def granted(pod: Object, allocated: Mapping[str, Object]) -> Object:
    """The pod with the resources that it was granted; the very same object if that is what it asks for."""
    if allocated == asked(pod):
        return pod

    def overlaid(containers: Iterable[Object]) -> list[Object]:
        return [{**c, "resources": allocated.get(c["name"], c.get("resources") or {})} for c in containers]

    spec = {**pod["spec"], "containers": overlaid(pod["spec"]["containers"])}
    if spec.get("initContainers"):
        spec["initContainers"] = overlaid(spec["initContainers"])
    return {**pod, "spec": spec}


def refusal(pod: Object, others: Iterable[Object], allocatable: Mapping[str, str]) -> Pending | None:
    """Why the node cannot grant what `pod` asks for; None if it can. `others`: the other pods here, as granted."""
    if CONFIG_SOURCE_ANNOTATION in (pod["metadata"].get("annotations") or {}):
        return Pending("Infeasible", "In-place resize of static-pods is not supported")
    for name in _RESIZABLE:
        wanted, capacity = effective(pod, "requests", name), quantity.of(allocatable.get(name, "0")).nano
        if name in allocatable and wanted > capacity:
            unit = 10**6 if name == "cpu" else 10**9
            numbers = f"requested: {wanted // unit}, capacity: {capacity // unit}"
            return Pending("Infeasible", f"Node didn't have enough capacity: {name}, {numbers}")
    verdict = admission.out_of_room(pod, list(others), {n: v for n, v in allocatable.items() if n in _RESIZABLE})
    return Pending("Deferred", verdict.message.removeprefix("Pod was rejected: ")) if verdict else None


def same(one: Object, other: Object) -> bool:
    """Whether two `resources` mean the same CPU and memory."""
    return not _changed(one, other)


def must_restart(container: Object, before: Object, after: Object) -> bool:
    """Whether this change of resources takes effect only when the container is started anew."""
    policies = {p["resourceName"]: p.get("restartPolicy") for p in container.get("resizePolicy") or ()}
    return any(policies.get(name) == "RestartContainer" for name in _changed(before, after))


def _changed(before: Object, after: Object) -> set[str]:
    return {
        name
        for name in _RESIZABLE
        for kind in ("requests", "limits")
        if _nano(before, kind, name) != _nano(after, kind, name)
    }


def _nano(resources: Object, kind: str, name: str) -> int:
    return quantity.of((resources.get(kind) or {}).get(name, 0)).nano
