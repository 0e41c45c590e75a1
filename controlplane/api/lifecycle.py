"""Which API versions are on their way out, and how a client is told: the text of a Warning header.

Versions before the first stable one live by a rule: deprecated three releases after they came, gone after six
(kubernetes.io/docs/reference/using-api/deprecation-policy); the table says when they came, and the exceptions. Custom
resources say it of themselves.
"""

from typing import NamedTuple

from controlplane.api.resources import Resource, ResourceTable

_DEPRECATED_AFTER, _REMOVED_AFTER = 3, 6


class Lifecycle(NamedTuple):
    """Minor releases of Kubernetes 1; `removed` is 0 if that is not planned."""

    deprecated: int
    removed: int = 0
    replacement: str = ""


_REGISTRATION, _RESOURCE = "admissionregistration.k8s.io", "resource.k8s.io"
# The minor release in which a version of a kind, or of all kinds of a group, came.
_CAME: dict[tuple[str, str, str], int] = {
    (_REGISTRATION, "v1alpha1", "ValidatingAdmissionPolicy"): 26,
    (_REGISTRATION, "v1alpha1", "ValidatingAdmissionPolicyBinding"): 26,
    (_REGISTRATION, "v1beta1", "ValidatingAdmissionPolicy"): 28,
    (_REGISTRATION, "v1beta1", "ValidatingAdmissionPolicyBinding"): 28,
    (_REGISTRATION, "v1alpha1", "MutatingAdmissionPolicy"): 32,
    (_REGISTRATION, "v1alpha1", "MutatingAdmissionPolicyBinding"): 32,
    (_REGISTRATION, "v1beta1", "MutatingAdmissionPolicy"): 34,
    (_REGISTRATION, "v1beta1", "MutatingAdmissionPolicyBinding"): 34,
    ("authentication.k8s.io", "v1alpha1", ""): 26,
    ("authentication.k8s.io", "v1beta1", ""): 27,
    ("certificates.k8s.io", "v1beta1", "ClusterTrustBundle"): 33,
    ("certificates.k8s.io", "v1beta1", "PodCertificateRequest"): 35,
    ("coordination.k8s.io", "v1alpha2", ""): 32,
    ("coordination.k8s.io", "v1beta1", ""): 33,
    ("flowcontrol.apiserver.k8s.io", "v1beta3", ""): 26,
    ("networking.k8s.io", "v1alpha1", ""): 27,
    ("networking.k8s.io", "v1beta1", ""): 31,
    (_RESOURCE, "v1alpha3", ""): 31,
    (_RESOURCE, "v1alpha3", "DeviceTaintRule"): 33,
    (_RESOURCE, "v1alpha3", "ResourcePoolStatusRequest"): 36,
    (_RESOURCE, "v1beta1", ""): 32,
    (_RESOURCE, "v1beta2", ""): 33,
    (_RESOURCE, "v1beta2", "DeviceTaintRule"): 36,
    ("storage.k8s.io", "v1alpha1", ""): 29,
    ("storage.k8s.io", "v1beta1", ""): 31,
    ("storagemigration.k8s.io", "v1alpha1", ""): 30,
    ("storagemigration.k8s.io", "v1beta1", ""): 35,
}
_SAID: dict[tuple[str, str, str], Lifecycle] = {
    ("", "v1", "ComponentStatus"): Lifecycle(19),
    ("", "v1", "Endpoints"): Lifecycle(33, replacement="discovery.k8s.io/v1 EndpointSlice"),
    ("certificates.k8s.io", "v1alpha1", "ClusterTrustBundle"): Lifecycle(34, 37),
}


def lifecycle(resource: Resource, table: ResourceTable) -> Lifecycle | None:
    """Of a built-in kind in one version; None for one that stays. A stable version in `table` is its replacement."""
    said = _SAID.get((resource.group, resource.version, resource.kind))
    if said is not None:
        return said
    came = _CAME.get((resource.group, resource.version, resource.kind))
    if came is None:
        came = _CAME.get((resource.group, resource.version, ""))
    if came is None:
        return None
    best = table.preferred(resource.group, resource.plural)
    stable = best is not None and "alpha" not in best.version and "beta" not in best.version
    replacement = f"{best.api_version} {best.kind}" if best is not None and stable else ""
    return Lifecycle(came + _DEPRECATED_AFTER, came + _REMOVED_AFTER, replacement)


def warning(resource: Resource, table: ResourceTable, served: str) -> tuple[str, str]:
    """What to tell a client of `resource` when Kubernetes `served` ("1.37") is, and the release that removes it; two
    empty texts if there is nothing to say."""
    if resource.custom is not None:
        return resource.custom.deprecation, ""
    found = lifecycle(resource, table)
    if found is None or int(served.partition(".")[2]) < found.deprecated:
        return "", ""
    text = f"{resource.api_version} {resource.kind} is deprecated in v1.{found.deprecated}+"
    if found.removed:
        text += f", unavailable in v1.{found.removed}+"
    if found.replacement:
        text += f"; use {found.replacement}"
    return text, f"1.{found.removed}" if found.removed else ""
