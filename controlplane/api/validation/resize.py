"""What a resize may change of a pod: CPU and memory of its containers, and nothing that they are grouped by.

Source: k8s.io/kubernetes/pkg/apis/core/validation, ValidatePodResize.
"""

from typing import Any

from controlplane.api.status import Cause, forbidden_field, invalid_value

Object = dict[str, Any]
_RESIZABLE = ("cpu", "memory")


def resized(new: Object, old: Object, *, qos: str, qos_before: str) -> list[Cause]:
    """What is wrong with the pod spec `new` in place of `old`, which differs in containers' resources only."""
    causes: list[Cause] = []
    if qos != qos_before:
        causes.append(invalid_value("spec", qos, "Pod QOS Class may not change as a result of resizing"))
    for kind in ("initContainers", "containers"):
        before = {c["name"]: c for c in old.get(kind) or ()}
        for index, container in enumerate(new.get(kind) or ()):
            path = f"spec.{kind}[{index}].resources"
            was, now = before[container["name"]].get("resources") or {}, container.get("resources") or {}
            if was != now and kind == "initContainers" and container.get("restartPolicy") != "Always":
                causes.append(forbidden_field(path, "resources for non-sidecar init containers are immutable"))
            causes += _container(was, now, path)
    return causes


def _container(was: Object, now: Object, path: str) -> list[Cause]:
    causes = []
    for part in ("limits", "requests"):
        old, new = was.get(part) or {}, now.get(part) or {}
        for name in {**old, **new}:
            if name not in _RESIZABLE and old.get(name) != new.get(name):
                causes.append(forbidden_field(f"{path}.{part}", "only cpu and memory resources are mutable"))
            elif name in old and name not in new and name in _RESIZABLE:
                causes.append(forbidden_field(f"{path}.{part}", f"resource {part} cannot be removed"))
    return causes
