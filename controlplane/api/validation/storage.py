"""Rules for persistent volumes, claims and their classes."""

from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation import claims
from controlplane.api.validation.common import Object, maybe_one_of, need, not_negative, one_of
from controlplane.api.validation.placement import node_selector

_NOT_SOURCES = frozenset(
    (
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    )
)


def volume(obj: Object) -> list[Cause]:
    """v1 PersistentVolume."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    claims.access_modes(causes, spec.get("accessModes"), "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        causes.append(required("spec.capacity"))
    elif "storage" not in capacity or len(capacity) > 1:
        causes += [not_supported("spec.capacity", name, ("storage",)) for name in capacity if name != "storage"]
    causes += not_negative(capacity, "spec.capacity")
    maybe_one_of(causes, spec, "spec", "persistentVolumeReclaimPolicy", ("Retain", "Delete", "Recycle"))
    maybe_one_of(causes, spec, "spec", "volumeMode", ("Block", "Filesystem"))
    kinds = [field for field in spec if field not in _NOT_SOURCES]
    if not kinds:
        causes.append(required("spec", "must specify a volume type"))
    for kind in kinds[1:]:
        causes.append(forbidden_field(f"spec.{kind}", "may not specify more than 1 volume type"))
    if "hostPath" in spec:
        need(causes, spec["hostPath"], "spec.hostPath", "path")
    if "local" in spec:
        need(causes, spec["local"], "spec.local", "path")
        if "nodeAffinity" not in spec:
            causes.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    if "nfs" in spec:
        need(causes, spec["nfs"], "spec.nfs", "server", "path")
    if "csi" in spec:
        need(causes, spec["csi"], "spec.csi", "driver", "volumeHandle")
    if "required" in (spec.get("nodeAffinity") or {}):
        node_selector(causes, spec["nodeAffinity"]["required"], "spec.nodeAffinity.required")
    return causes


def storage_class(obj: Object) -> list[Cause]:
    """storage.k8s.io/v1 StorageClass."""
    causes: list[Cause] = []
    need(causes, obj, "", "provisioner")
    one_of(causes, obj, "", "reclaimPolicy", ("Delete", "Retain"))
    one_of(causes, obj, "", "volumeBindingMode", ("Immediate", "WaitForFirstConsumer"))
    if any(not key for key in obj.get("parameters") or ()):
        causes.append(invalid_value("parameters", "", "field can not be empty."))
    return causes


BY_KIND = {
    ("", "PersistentVolume"): volume,
    ("", "PersistentVolumeClaim"): claims.claim,
    ("storage.k8s.io", "StorageClass"): storage_class,
}
