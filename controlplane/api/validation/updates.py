"""What may not change: rules about a new object in place of an old one, kind by kind.

They see whole objects that already passed the rules for new ones, and are asked only when more than metadata and status
differs. Bindings, scale and the other subresources go past them: the API server writes those fields itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api.status import Cause, forbidden_field, invalid_value
from controlplane.api.validation import batch, csi, networking, pod_updates, quotas, services, storage
from controlplane.api.validation.common import IMMUTABLE, Object, same

Each = Mapping[str, Any]


def _fixed(*fields: str) -> Callable[[Object, Object], list[Cause]]:
    """Fields of the spec that do not change."""

    def check(new: Object, old: Object) -> list[Cause]:
        causes: list[Cause] = []
        same(causes, new.get("spec") or {}, old.get("spec") or {}, "spec", fields)
        return causes

    return check


def stateful_set(new: Object, old: Object) -> list[Cause]:
    """A StatefulSet's claims, selector and service name do not change."""
    free = (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
    after = {key: value for key, value in (new.get("spec") or {}).items() if key not in free}
    before = {key: value for key, value in (old.get("spec") or {}).items() if key not in free}
    if after == before:
        return []
    text = (
        "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
        "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
    )
    return [forbidden_field("spec", text)]


def config_map(new: Object, old: Object) -> list[Cause]:
    """An immutable ConfigMap does not change, and stays immutable."""
    return _immutable(new, old, ("data", "binaryData"))


def secret(new: Object, old: Object) -> list[Cause]:
    """A Secret keeps its type; an immutable one its data."""
    causes: list[Cause] = []
    same(causes, new, old, "", ("type",))
    return causes + _immutable(new, old, ("data",))


def _immutable(new: Object, old: Object, fields: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    changed = [field for field in fields if (new.get(field) or {}) != (old.get(field) or {})]
    causes = [forbidden_field(field, text) for field in changed]
    if not new.get("immutable"):
        causes.append(forbidden_field("immutable", text))
    return causes


def binding(new: Object, old: Object) -> list[Cause]:
    """A binding's role does not change."""
    if new.get("roleRef") == old.get("roleRef"):
        return []
    return [invalid_value("roleRef", new.get("roleRef"), "cannot change roleRef")]


def priority_class(new: Object, old: Object) -> list[Cause]:
    """A PriorityClass's value does not change."""
    causes = []
    if new.get("value") != old.get("value"):
        causes.append(forbidden_field("value", "may not be changed in an update."))
    same(causes, new, old, "", ("preemptionPolicy",))
    return causes


def endpoint_slice(new: Object, old: Object) -> list[Cause]:
    """An EndpointSlice's address type does not change."""
    causes: list[Cause] = []
    same(causes, new, old, "", ("addressType",))
    return causes


def node(new: Object, old: Object) -> list[Cause]:
    """A node's pod CIDRs and provider ID are set once."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    causes = []
    if before.get("podCIDRs") and after.get("podCIDRs") != before["podCIDRs"]:
        text = 'node updates may not change podCIDR except from "" to valid'
        causes.append(forbidden_field("spec.podCIDRs", text))
    if before.get("providerID") and after.get("providerID") != before["providerID"]:
        text = 'node updates may not change providerID except from "" to valid'
        causes.append(forbidden_field("spec.providerID", text))
    return causes


def runtime_class(new: Object, old: Object) -> list[Cause]:
    """A RuntimeClass's handler does not change."""
    causes: list[Cause] = []
    same(causes, new, old, "", ("handler",))
    return causes


def controller_revision(new: Object, old: Object) -> list[Cause]:
    """A ControllerRevision's data does not change."""
    if new.get("data") == old.get("data"):
        return []
    return [invalid_value("data", None, IMMUTABLE)]


BY_KIND: dict[tuple[str, str], Callable[[Object, Object], list[Cause]]] = {
    ("", "Pod"): pod_updates.pod,
    ("", "Service"): services.changes,
    ("", "ConfigMap"): config_map,
    ("", "Secret"): secret,
    ("", "Node"): node,
    ("", "ResourceQuota"): quotas.quota_changes,
    **storage.CHANGES,
    **csi.CHANGES,
    ("apps", "Deployment"): _fixed("selector"),
    ("apps", "ReplicaSet"): _fixed("selector"),
    ("apps", "DaemonSet"): _fixed("selector"),
    ("apps", "StatefulSet"): stateful_set,
    ("apps", "ControllerRevision"): controller_revision,
    ("batch", "Job"): batch.job_changes,
    ("networking.k8s.io", "IngressClass"): networking.ingress_class_changes,
    ("rbac.authorization.k8s.io", "RoleBinding"): binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): binding,
    ("scheduling.k8s.io", "PriorityClass"): priority_class,
    ("certificates.k8s.io", "CertificateSigningRequest"): _fixed(
        "request", "signerName", "usages", "username", "groups"
    ),
    ("discovery.k8s.io", "EndpointSlice"): endpoint_slice,
    ("node.k8s.io", "RuntimeClass"): runtime_class,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _fixed("group", "scope"),
}
