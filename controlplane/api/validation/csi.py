"""Rules for what storage drivers and nodes say of themselves: CSIDriver, CSINode, capacities, attachments."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import IMMUTABLE, Object, at_least, complain, same, selector
from controlplane.api.validation.storage import parameters
from controlplane.api.validation.volume_sources import csi_persistent, driver_name

Each = Mapping[str, Any]
GROUP = "storage.k8s.io"
_FS_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_MODES = ("Ephemeral", "Persistent")
_LONGEST_NODE_ID = 192


def driver(obj: Object) -> list[Cause]:
    """CSIDriver, whose name is the driver's."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    driver_name(causes, (obj.get("metadata") or {}).get("name", ""), "metadata.name")
    for field in ("attachRequired", "podInfoOnMount", "storageCapacity"):
        if spec.get(field) is None:
            causes.append(required(f"spec.{field}"))
    policy = spec.get("fsGroupPolicy")
    if policy not in _FS_GROUP_POLICIES:
        causes.append(
            required("spec.fsGroupPolicy")
            if policy is None
            else not_supported("spec.fsGroupPolicy", policy, _FS_GROUP_POLICIES)
        )
    seen = set()
    for index, request in enumerate(spec.get("tokenRequests") or ()):
        at, audience, seconds = f"spec.tokenRequests[{index}]", request.get("audience", ""), None
        if audience in seen:
            causes.append(duplicate(f"{at}.audience", audience))
        seen.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            text = "may not specify a duration less than 10 minutes"
            causes.append(invalid_value(f"{at}.expirationSeconds", seconds, text))
        elif seconds is not None and seconds > 1 << 32:
            text = "may not specify a duration larger than 2^32 seconds"
            causes.append(invalid_value(f"{at}.expirationSeconds", seconds, text))
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _MODES:
            causes.append(not_supported("spec.volumeLifecycleModes", mode, _MODES))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        text = "must be greater than or equal to 10 seconds"
        causes.append(invalid_value("spec.nodeAllocatableUpdatePeriodSeconds", period, text))
    return causes


def node(obj: Object) -> list[Cause]:
    """CSINode: each driver once."""
    causes: list[Cause] = []
    seen = set()
    for index, each in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        at, name = f"spec.drivers[{index}]", each.get("name", "")
        driver_name(causes, name, f"{at}.name")
        node_id = each.get("nodeID", "")
        if not node_id:
            causes.append(required(f"{at}.nodeID"))
        elif len(node_id) > _LONGEST_NODE_ID:
            text = f"must be {_LONGEST_NODE_ID} characters or less"
            causes.append(invalid_value(f"{at}.nodeID", node_id, text))
        at_least(causes, each.get("allocatable") or {}, f"{at}.allocatable", 0, "count")
        if name in seen:
            causes.append(duplicate(f"{at}.name", name))
        seen.add(name)
        keys = each.get("topologyKeys") or []
        for place, key in enumerate(keys):
            if not key:
                causes.append(required(f"{at}.topologyKeys"))
            if key in keys[:place]:
                causes.append(duplicate(f"{at}.topologyKeys", key))
            complain(causes, f"{at}.topologyKeys", key, names.qualified_name(key))
    return causes


def capacity(obj: Object) -> list[Cause]:
    """CSIStorageCapacity."""
    causes: list[Cause] = []
    name = obj.get("storageClassName", "")
    complain(causes, "storageClassName", name, names.dns1123_subdomain(name))
    causes += selector(obj.get("nodeTopology"), "nodeTopology")
    for field in ("capacity", "maximumVolumeSize"):
        if field in obj and quantity.of(obj[field]) < quantity.ZERO:
            causes.append(invalid_value(field, obj[field], "must be greater than or equal to 0"))
    return causes


def attachment(obj: Object) -> list[Cause]:
    """VolumeAttachment: one volume to one node."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    driver_name(causes, spec.get("attacher", ""), "spec.attacher")
    source = spec.get("source") or {}
    name, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if name is None and inline is None:
        causes.append(required("spec.source", text))
    elif name is not None and inline is not None:
        causes.append(forbidden_field("spec.source", text))
    elif name is not None:
        at = "spec.source.persistentVolumeName"
        if not name:
            causes.append(required(at, "must specify non empty persistentVolumeName"))
        else:
            complain(causes, at, name, names.dns1123_subdomain(name))
    else:
        at = "spec.source.inlineVolumeSpec"
        if "csi" not in (inline or {}):
            causes.append(required(f"{at}.csi", "has to be specified in the context of inline volumes"))
        else:
            csi_persistent(causes, (inline or {})["csi"], f"{at}.csi")
    target = spec.get("nodeName", "")
    complain(causes, "spec.nodeName", target, names.dns1123_subdomain(target))
    return causes


def attributes_class(obj: Object) -> list[Cause]:
    """VolumeAttributesClass."""
    causes: list[Cause] = []
    driver_name(causes, obj.get("driverName", ""), "driverName")
    parameters(causes, obj.get("parameters") or {}, allow_empty=False)
    return causes


def _driver_changes(new: Object, old: Object) -> list[Cause]:
    causes: list[Cause] = []
    fixed = ("attachRequired", "volumeLifecycleModes")
    same(causes, new.get("spec") or {}, old.get("spec") or {}, "spec", fixed)
    return causes


def _node_changes(new: Object, old: Object) -> list[Cause]:
    """A driver's entry does not change, but for what it can hold: it goes and comes again."""

    def entries(obj: Object) -> dict[str, Object]:
        found = (obj.get("spec") or {}).get("drivers") or ()
        return {each.get("name", ""): {k: v for k, v in each.items() if k != "allocatable"} for each in found}

    before = entries(old)
    return [
        invalid_value("CSINodeDriver", each, IMMUTABLE)
        for name, each in entries(new).items()
        if name in before and before[name] != each
    ]


def _attachment_changes(new: Object, old: Object) -> list[Cause]:
    return [] if new.get("spec") == old.get("spec") else [invalid_value("spec", new.get("spec"), IMMUTABLE)]


def _capacity_changes(new: Object, old: Object) -> list[Cause]:
    causes: list[Cause] = []
    same(causes, new, old, "", ("nodeTopology", "storageClassName"))
    return causes


def _attributes_changes(new: Object, old: Object) -> list[Cause]:
    changed = [field for field in ("driverName", "parameters") if new.get(field) != old.get(field)]
    return [forbidden_field(field, f"updates to {field} are forbidden.") for field in changed]


BY_KIND = {
    (GROUP, "CSIDriver"): driver,
    (GROUP, "CSINode"): node,
    (GROUP, "CSIStorageCapacity"): capacity,
    (GROUP, "VolumeAttachment"): attachment,
    (GROUP, "VolumeAttributesClass"): attributes_class,
}
CHANGES = {
    (GROUP, "CSIDriver"): _driver_changes,
    (GROUP, "CSINode"): _node_changes,
    (GROUP, "CSIStorageCapacity"): _capacity_changes,
    (GROUP, "VolumeAttachment"): _attachment_changes,
    (GROUP, "VolumeAttributesClass"): _attributes_changes,
}
