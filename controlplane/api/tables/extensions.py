"""Rows of what extends or steers the API itself: admission policies, flow control, devices, trust, migrations."""

from typing import Any

from controlplane.api.tables.columns import AGE, NAME, Column, at, joined

Object = dict[str, Any]


def _count(*path: str) -> Any:
    look = at(*path, default=())
    return lambda obj, now: len(look(obj, now))


def _param_kind(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("paramKind")
    return f"{found.get('apiVersion', '')}/{found.get('kind', '')}" if found else "<unset>"


def _param_ref(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("paramRef")
    if not found:
        return "<unset>"
    name = found.get("name") or "*"
    return f"{found['namespace']}/{name}" if found.get("namespace") else str(name)


def _missing_level(obj: Object, now: float) -> str:
    for each in obj.get("status", {}).get("conditions") or ():
        if each.get("type") == "Dangling":
            return str(each.get("status", "?"))
    return "?"


def _level(field: str) -> Any:
    """A number of a priority level: its own, or one of its queuing."""

    def cell(obj: Object, now: float) -> Any:
        spec = obj.get("spec", {})
        found = spec.get("limited") or spec.get("exempt") or {}
        queuing = found.get("limitResponse", {}).get("queuing") or {}
        return found.get(field, queuing.get(field, "<none>"))

    return cell


def _common_encoding(obj: Object, now: float) -> str:
    return str(obj.get("status", {}).get("commonEncodingVersion") or "<unset>")


def _storage_versions(obj: Object, now: float) -> str:
    found = obj.get("status", {}).get("storageVersions") or ()
    return joined((f"{each.get('apiServerID', '')}={each.get('encodingVersion', '')}" for each in found), "<unset>", 3)


def _claim_state(obj: Object, now: float) -> str:
    found = obj.get("status", {})
    states = []
    if obj["metadata"].get("deletionTimestamp"):
        states.append("deleted")
    if found.get("allocation") is not None:
        states.append("allocated")
        if found.get("reservedFor"):
            states.append("reserved")
    else:
        states.append("pending")
    return ",".join(states)


def _slice_node(obj: Object, now: float) -> str:
    spec = obj.get("spec", {})
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    if spec.get("allNodes"):
        return "All"
    if spec.get("perDeviceNodeSelection"):
        return "Per-device"
    return "Selected" if spec.get("nodeSelector") else "<none>"


def _request_state(obj: Object, now: float) -> str:
    for each in obj.get("status", {}).get("conditions") or ():
        if each.get("type") in ("Denied", "Failed", "Issued") and each.get("status") == "True":
            return str(each["type"])
    return "Pending"


def _migrated(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("resource") or {}
    return ".".join(part for part in (found.get("resource"), found.get("version"), found.get("group")) if part)


def _capacity(obj: Object, now: float) -> str:
    return str(obj.get("capacity") or "<unset>")


_POLICY_BINDING = (NAME, Column("PolicyName", at("spec", "policyName")), Column("ParamRef", _param_ref), AGE)
_REGISTRATION = "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
BY_KIND: dict[tuple[str, str], tuple[Column, ...]] = {
    (_REGISTRATION, "ValidatingAdmissionPolicy"): (
        NAME,
        Column("Validations", _count("spec", "validations"), "integer"),
        Column("ParamKind", _param_kind),
        AGE,
    ),
    (_REGISTRATION, "MutatingAdmissionPolicy"): (
        NAME,
        Column("Mutations", _count("spec", "mutations"), "integer"),
        Column("ParamKind", _param_kind),
        AGE,
    ),
    (_REGISTRATION, "ValidatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_REGISTRATION, "MutatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_FLOW, "FlowSchema"): (
        NAME,
        Column("PriorityLevel", at("spec", "priorityLevelConfiguration", "name")),
        Column("MatchingPrecedence", at("spec", "matchingPrecedence", default=0), "integer"),
        Column("DistinguisherMethod", at("spec", "distinguisherMethod", "type")),
        AGE,
        Column("MissingPL", _missing_level),
    ),
    (_FLOW, "PriorityLevelConfiguration"): (
        NAME,
        Column("Type", at("spec", "type")),
        Column("NominalConcurrencyShares", _level("nominalConcurrencyShares")),
        Column("Queues", _level("queues")),
        Column("HandSize", _level("handSize")),
        Column("QueueLengthLimit", _level("queueLengthLimit")),
        AGE,
    ),
    ("internal.apiserver.k8s.io", "StorageVersion"): (
        NAME,
        Column("CommonEncodingVersion", _common_encoding),
        Column("StorageVersions", _storage_versions),
        AGE,
    ),
    ("storagemigration.k8s.io", "StorageVersionMigration"): (NAME, Column("Resource", _migrated)),
    ("storage.k8s.io", "VolumeAttributesClass"): (NAME, Column("DriverName", at("driverName")), AGE),
    ("storage.k8s.io", "CSIStorageCapacity"): (
        NAME,
        Column("StorageClassName", at("storageClassName", default="")),
        Column("Capacity", _capacity),
    ),
    ("resource.k8s.io", "DeviceClass"): (NAME, AGE),
    ("resource.k8s.io", "ResourceClaim"): (NAME, Column("State", _claim_state), AGE),
    ("resource.k8s.io", "ResourceClaimTemplate"): (NAME, AGE),
    ("resource.k8s.io", "ResourceSlice"): (
        NAME,
        Column("Node", _slice_node),
        Column("Driver", at("spec", "driver")),
        Column("Pool", at("spec", "pool", "name", default="")),
        AGE,
    ),
    ("certificates.k8s.io", "ClusterTrustBundle"): (NAME, Column("SignerName", at("spec", "signerName"))),
    ("certificates.k8s.io", "PodCertificateRequest"): (
        NAME,
        Column("PodName", at("spec", "podName")),
        Column("ServiceAccountName", at("spec", "serviceAccountName")),
        Column("NodeName", at("spec", "nodeName")),
        Column("SignerName", at("spec", "signerName")),
        Column("State", _request_state),
        AGE,
    ),
    ("coordination.k8s.io", "LeaseCandidate"): (
        NAME,
        Column("LeaseName", at("spec", "leaseName")),
        Column("BinaryVersion", at("spec", "binaryVersion")),
        Column("EmulationVersion", at("spec", "emulationVersion", default="")),
        Column("Strategy", at("spec", "strategy", default="")),
        AGE,
    ),
}
