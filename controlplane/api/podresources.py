"""What a pod asks for as a whole: its containers' requests and limits, put together. Pure.

Source: k8s.io/kubernetes/pkg/api/v1/resource/helpers.go and KEP-753 (sidecars).
"""

from __future__ import annotations

from typing import Any

from controlplane.api import quantity

Object = dict[str, Any]


def effective(pod: Object, kind: str, name: str) -> int:
    """What a pod asks for as a whole, in nano-units: main containers and sidecars together, or the greediest moment of
    the init containers (with the sidecars that run beside it); plus overhead. `kind`: requests or limits."""
    spec = pod["spec"]
    whole = ((spec.get("resources") or {}).get(kind) or {}).get(name)
    overhead = _nano((spec.get("overhead") or {}).get(name, 0))
    if whole is not None:
        return _nano(whole) + overhead
    total = sum(_of(c, kind, name) for c in spec["containers"])
    sidecars = peak = 0
    for container in spec.get("initContainers") or ():
        amount = _of(container, kind, name)
        if container.get("restartPolicy") == "Always":
            sidecars += amount
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount)
    return max(total + sidecars, peak) + overhead


def _of(container: Object, kind: str, name: str) -> int:
    resources = container.get("resources") or {}
    value = (resources.get(kind) or {}).get(name)
    if value is None and kind == "requests":
        value = (resources.get("limits") or {}).get(name)
    return _nano(value or 0)


def names(pod: Object, kind: str) -> set[str]:
    """The resources that some container names under `kind` (requests or limits)."""
    containers = (*pod["spec"].get("containers", ()), *(pod["spec"].get("initContainers") or ()))
    found = {name for c in containers for name in (c.get("resources") or {}).get(kind) or ()}
    return found | set((pod["spec"].get("resources") or {}).get(kind) or ())


def _nano(value: Any) -> int:
    return quantity.of(value).nano
