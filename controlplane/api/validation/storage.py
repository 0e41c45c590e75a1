"""Rules for persistent volumes and their classes. Claims: claims.py; what drivers say of themselves: csi.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required, too_long
from controlplane.api.validation import claims, volume_sources
from controlplane.api.validation.common import IMMUTABLE, Object, complain, maybe_one_of, one_of, same
from controlplane.api.validation.placement import node_selector

Each = Mapping[str, Any]
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
_SOURCES = {
    **volume_sources.SHARED,
    "local": ("local", volume_sources.local),
    "csi": ("csi", volume_sources.csi_persistent),
}
_ORDER = {kind: index for index, kind in enumerate(_SOURCES)}
_MOST_PARAMETERS, _PARAMETERS_BYTES = 512, 256 * 1024


def volume(obj: Object) -> list[Cause]:
    """v1 PersistentVolume."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    claims.access_modes(causes, spec.get("accessModes"), "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        causes.append(required("spec.capacity"))
    if "storage" not in capacity or len(capacity) > 1:
        causes.append(not_supported("spec.capacity", capacity, ("storage",)))
    for name, amount in capacity.items():
        if quantity.parse(amount) < quantity.ZERO:
            whole = quantity.parse(amount).value()
            causes.append(invalid_value(f"spec.capacity[{name}]", whole, "must be a valid resource quantity"))
        claims.positive(causes, amount, f"spec.capacity[{name}]")
    maybe_one_of(causes, spec, "spec", "persistentVolumeReclaimPolicy", ("Delete", "Recycle", "Retain"))
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        if "required" in affinity:
            node_selector(causes, affinity["required"], "spec.nodeAffinity.required")
        else:
            causes.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
    _source(causes, spec)
    if spec.get("storageClassName"):
        value = spec["storageClassName"]
        complain(causes, "spec.storageClassName", value, names.dns1123_subdomain(value))
    maybe_one_of(causes, spec, "spec", "volumeMode", claims.VOLUME_MODES)
    attributes = spec.get("volumeAttributesClassName")
    if attributes is not None:
        if not attributes:
            causes.append(required("spec.volumeAttributesClassName", "an empty string is disallowed"))
        else:
            complain(causes, "spec.volumeAttributesClassName", attributes, names.dns1123_subdomain(attributes))
        if "csi" not in spec:
            causes.append(required("spec.csi", "has to be specified when using volumeAttributesClassName"))
    return causes


def _source(causes: list[Cause], spec: Each) -> None:
    kinds = sorted((field for field in spec if field not in _NOT_SOURCES), key=lambda kind: _ORDER.get(kind, 0))
    if not kinds:
        causes.append(required("spec", "must specify a volume type"))
    for kind in kinds[:1]:
        where, check = _SOURCES[kind]
        check(causes, spec[kind], f"spec.{where}")
    for kind in kinds[1:]:
        causes.append(forbidden_field(f"spec.{kind}", "may not specify more than 1 volume type"))
    if kinds[:1] == ["local"] and "nodeAffinity" not in spec:
        causes.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    recycled = spec.get("persistentVolumeReclaimPolicy") == "Recycle"
    if recycled and "hostPath" in spec and volume_sources.is_root(spec["hostPath"].get("path", "")):
        text = "may not be 'recycle' for a hostPath mount of '/'"
        causes.append(forbidden_field("spec.persistentVolumeReclaimPolicy", text))


def volume_changes(new: Object, old: Object) -> list[Cause]:
    """A volume's source, mode and node affinity do not change once they are set."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    causes: list[Cause] = []
    if _sources(after, before) != _sources(before, before):
        text = "spec.persistentvolumesource is immutable after creation"
        causes.append(forbidden_field("spec.persistentvolumesource", text))
    same(causes, after, before, "", ("volumeMode",))
    if "nodeAffinity" in before and after.get("nodeAffinity") != before["nodeAffinity"]:
        text = f"{IMMUTABLE}, except for updating from beta label to GA"
        causes.append(invalid_value("nodeAffinity", after.get("nodeAffinity"), text))
    if before.get("volumeAttributesClassName") is not None and after.get("volumeAttributesClassName") is None:
        text = "update from non-nil value to nil is forbidden"
        causes.append(forbidden_field("spec.volumeAttributesClassName", text))
    return causes


def _sources(spec: Each, before: Each) -> Object:
    found = {kind: source for kind, source in spec.items() if kind not in _NOT_SOURCES}
    if "csi" in found and "controllerExpandSecretRef" not in before.get("csi", {}):  # it may be added later
        found["csi"] = {key: value for key, value in found["csi"].items() if key != "controllerExpandSecretRef"}
    return found


def storage_class(obj: Object) -> list[Cause]:
    """storage.k8s.io/v1 StorageClass."""
    causes: list[Cause] = []
    provisioner = obj.get("provisioner", "")
    if not provisioner:
        causes.append(required("provisioner"))
    else:
        complain(causes, "provisioner", provisioner, names.qualified_name(provisioner.lower()))
    parameters(causes, obj.get("parameters") or {}, allow_empty=True)
    one_of(causes, obj, "", "reclaimPolicy", ("Delete", "Retain"))
    one_of(causes, obj, "", "volumeBindingMode", ("Immediate", "WaitForFirstConsumer"))
    if obj.get("allowedTopologies"):
        topologies(causes, obj["allowedTopologies"], "allowedTopologies")
    return causes


def parameters(causes: list[Cause], found: Mapping[str, str], *, allow_empty: bool) -> None:
    """What a provisioner is told: not too many, and with keys."""
    if not found and not allow_empty:
        causes.append(required("parameters", "must contain at least one key/value pair"))
    if len(found) > _MOST_PARAMETERS:
        causes.append(too_long("parameters", _MOST_PARAMETERS))
        return
    if "" in found:
        causes.append(invalid_value("parameters", "", "field can not be empty."))
    if sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) > _PARAMETERS_BYTES:
        causes.append(too_long("parameters", _PARAMETERS_BYTES))


def topologies(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """TopologySelectorTerms, none of them twice."""
    seen: list[dict[str, frozenset[str]]] = []
    for index, term in enumerate(found):
        at, keys = f"{path}[{index}].matchLabelExpressions", dict[str, frozenset[str]]()
        for place, each in enumerate(term.get("matchLabelExpressions") or ()):
            key, values = each.get("key", ""), each.get("values") or []
            if not values:
                causes.append(required(f"{at}[{place}].values"))
            for number, value in enumerate(values):
                if value in values[:number]:
                    causes.append(duplicate(f"{at}[{place}].values[{number}]", value))
            complain(causes, f"{at}[{place}].key", key, names.qualified_name(key))
            if key in keys:
                causes.append(duplicate(f"{at}[{place}].key", key))
            keys[key] = frozenset(values)
        if keys in seen:
            causes.append(duplicate(at, ""))
        seen.append(keys)


def storage_class_changes(new: Object, old: Object) -> list[Cause]:
    """A StorageClass's parameters, provisioner and policies do not change."""
    causes = []
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if new.get(field) != old.get(field):
            causes.append(forbidden_field(field, f"updates to {field} are forbidden."))
    same(causes, new, old, "", ("volumeBindingMode",))
    return causes


BY_KIND = {
    ("", "PersistentVolume"): volume,
    ("", "PersistentVolumeClaim"): claims.claim,
    ("storage.k8s.io", "StorageClass"): storage_class,
}
CHANGES = {
    ("", "PersistentVolume"): volume_changes,
    ("", "PersistentVolumeClaim"): claims.changes,
    ("storage.k8s.io", "StorageClass"): storage_class_changes,
}
