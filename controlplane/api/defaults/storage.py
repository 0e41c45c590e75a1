"""Defaults of persistent volumes, claims and their classes."""

from typing import Any

from controlplane.api.defaults.volumes import claim_spec, shared_sources

Object = dict[str, Any]


def volume(obj: Object) -> None:
    """v1 PersistentVolume."""
    spec = obj.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    spec.setdefault("volumeMode", "Filesystem")
    shared_sources(spec)
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def claim(obj: Object) -> None:
    """v1 PersistentVolumeClaim."""
    claim_spec(obj.setdefault("spec", {}))
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def storage_class(obj: Object) -> None:
    """storage.k8s.io/v1 StorageClass."""
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def csi_driver(obj: Object) -> None:
    """storage.k8s.io/v1 CSIDriver."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("attachRequired", True)
    spec.setdefault("podInfoOnMount", False)
    spec.setdefault("storageCapacity", False)
    spec.setdefault("requiresRepublish", False)
    spec.setdefault("seLinuxMount", False)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


BY_KIND = {
    ("", "PersistentVolume"): volume,
    ("", "PersistentVolumeClaim"): claim,
    ("storage.k8s.io", "StorageClass"): storage_class,
    ("storage.k8s.io", "CSIDriver"): csi_driver,
}
