"""Rows of volumes, claims and classes."""

from typing import Any

from controlplane.api.tables.columns import AGE, NAME, Column, at, joined

Object = dict[str, Any]

_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    return joined((_SHORT.get(mode, mode) for mode in modes or ()), "")


def _capacity(obj: Object, now: float) -> str:
    return str(obj.get("spec", {}).get("capacity", {}).get("storage", ""))


def _claim(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("claimRef")
    return f"{found.get('namespace', '')}/{found.get('name', '')}" if found else ""


def _phase(obj: Object, now: float) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(obj.get("status", {}).get("phase", ""))


def _claim_capacity(obj: Object, now: float) -> str:
    if not obj.get("spec", {}).get("volumeName"):
        return ""
    return str(obj.get("status", {}).get("capacity", {}).get("storage", ""))


def _claim_modes(obj: Object, now: float) -> str:
    return _modes(obj.get("status", {}).get("accessModes")) if obj.get("spec", {}).get("volumeName") else ""


def _default_class(obj: Object, now: float) -> str:
    annotations = obj["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return f"{obj['metadata'].get('name', '')} (default)" if default else obj["metadata"].get("name", "")


def _drivers(obj: Object, now: float) -> int:
    return len(obj.get("spec", {}).get("drivers") or ())


def _text(*path: str) -> Any:
    look = at(*path, default="")
    return lambda obj, now: str(look(obj, now))


ATTRIBUTES = Column("VolumeAttributesClass", at("spec", "volumeAttributesClassName", default="<unset>"))
BY_KIND = {
    ("", "PersistentVolume"): (
        NAME,
        Column("Capacity", _capacity),
        Column("Access Modes", lambda obj, now: _modes(obj.get("spec", {}).get("accessModes"))),
        Column("Reclaim Policy", _text("spec", "persistentVolumeReclaimPolicy")),
        Column("Status", _phase),
        Column("Claim", _claim),
        Column("StorageClass", _text("spec", "storageClassName")),
        ATTRIBUTES,
        Column("Reason", _text("status", "reason")),
        AGE,
        Column("VolumeMode", at("spec", "volumeMode", default="<unset>"), wide=True),
    ),
    ("", "PersistentVolumeClaim"): (
        NAME,
        Column("Status", _phase),
        Column("Volume", _text("spec", "volumeName")),
        Column("Capacity", _claim_capacity),
        Column("Access Modes", _claim_modes),
        Column("StorageClass", _text("spec", "storageClassName")),
        ATTRIBUTES,
        AGE,
        Column("VolumeMode", at("spec", "volumeMode", default="<unset>"), wide=True),
    ),
    ("storage.k8s.io", "StorageClass"): (
        NAME._replace(cell=_default_class),
        Column("Provisioner", at("provisioner")),
        Column("ReclaimPolicy", at("reclaimPolicy", default="Delete")),
        Column("VolumeBindingMode", at("volumeBindingMode", default="Immediate")),
        Column("AllowVolumeExpansion", at("allowVolumeExpansion", default=False), "boolean"),
        AGE,
    ),
    ("storage.k8s.io", "VolumeAttachment"): (
        NAME,
        Column("Attacher", at("spec", "attacher")),
        Column("PV", at("spec", "source", "persistentVolumeName", default="")),
        Column("Node", at("spec", "nodeName")),
        Column("Attached", at("status", "attached", default=False), "boolean"),
        AGE,
    ),
    ("storage.k8s.io", "CSIDriver"): (
        NAME,
        Column("AttachRequired", at("spec", "attachRequired", default=True), "boolean"),
        Column("PodInfoOnMount", at("spec", "podInfoOnMount", default=False), "boolean"),
        Column("StorageCapacity", at("spec", "storageCapacity", default=False), "boolean"),
        Column("TokenRequests", lambda obj, now: _audiences(obj)),
        Column("RequiresRepublish", at("spec", "requiresRepublish", default=False), "boolean"),
        Column("Modes", lambda obj, now: joined(obj.get("spec", {}).get("volumeLifecycleModes") or ())),
        AGE,
    ),
    ("storage.k8s.io", "CSINode"): (NAME, Column("Drivers", _drivers, "integer"), AGE),
}


def _audiences(obj: Object) -> str:
    return joined((each.get("audience", "") for each in obj.get("spec", {}).get("tokenRequests") or ()), "<unset>")
