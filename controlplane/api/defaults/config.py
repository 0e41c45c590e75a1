"""Defaults of what configures workloads: secrets, namespaces, limit ranges, roles, priorities."""

from base64 import b64encode
from typing import Any

Object = dict[str, Any]

RBAC = "rbac.authorization.k8s.io"


def secret(obj: Object) -> None:
    """v1 Secret. `stringData` is for writing only: it goes into `data`, and wins over what is there."""
    if not obj.get("type"):
        obj["type"] = "Opaque"
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        for key, value in plain.items():
            data[key] = b64encode(value.encode()).decode()


def namespace(obj: Object) -> None:
    """v1 Namespace: a label with its own name, so that selectors can name it."""
    obj.setdefault("spec", {})
    obj.setdefault("status", {}).setdefault("phase", "Active")
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]


def limit_range(obj: Object) -> None:
    """v1 LimitRange: for containers, default limits come from max, default requests from those and from min."""
    for item in obj.get("spec", {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits = {**item.get("max", {}), **item.get("default", {})}
        requests = {**item.get("min", {}), **limits, **item.get("defaultRequest", {})}
        if limits:
            item["default"] = limits
        if requests:
            item["defaultRequest"] = requests


def binding(obj: Object) -> None:
    """rbac.authorization.k8s.io/v1 RoleBinding and ClusterRoleBinding."""
    role = obj.get("roleRef")
    if role is not None and not role.get("apiGroup"):
        role["apiGroup"] = RBAC
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = RBAC


def priority_class(obj: Object) -> None:
    """scheduling.k8s.io/v1 PriorityClass."""
    obj.setdefault("value", 0)
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


BY_KIND = {
    ("", "Secret"): secret,
    ("", "Namespace"): namespace,
    ("", "LimitRange"): limit_range,
    (RBAC, "RoleBinding"): binding,
    (RBAC, "ClusterRoleBinding"): binding,
    ("scheduling.k8s.io", "PriorityClass"): priority_class,
}
