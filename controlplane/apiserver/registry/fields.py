"""Field selectors: which fields of which kind can be selected by, and their values. As in Kubernetes, a short list."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.api.selectors import FieldSelector, parse_fields

_ALWAYS = ("metadata.name", "metadata.namespace")
_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_BY_KIND: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
    ),
    ("", "Event"): (
        *(f"involvedObject.{each}" for each in _ABOUT), "reason", "reportingComponent", "source", "type",
    ),
    ("events.k8s.io", "Event"): (*(f"regarding.{each}" for each in _ABOUT), "reason", "reportingController", "type"),
    ("", "Secret"): ("type",),
    ("", "Namespace"): ("status.phase",),
    ("", "Node"): ("spec.unschedulable",),
    ("", "ReplicationController"): ("status.replicas",),
    ("", "Service"): ("spec.clusterIP", "spec.type"),
    ("apps", "ReplicaSet"): ("status.replicas",),
    ("batch", "Job"): ("status.successful",),
    ("certificates.k8s.io", "CertificateSigningRequest"): ("spec.signerName",),
    ("certificates.k8s.io", "ClusterTrustBundle"): ("spec.signerName",),
    ("certificates.k8s.io", "PodCertificateRequest"): ("spec.signerName", "spec.podName", "spec.nodeName"),
    ("resource.k8s.io", "ResourceSlice"): ("spec.driver", "spec.nodeName"),
}  # fmt: skip
# Events are stored in their core form, whatever they are called by.
_STORED_AS = {f"regarding.{each}": f"involvedObject.{each}" for each in _ABOUT} | {
    "reportingController": "reportingComponent",
    "status.successful": "status.succeeded",
}
_UNSET = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.replicas": "0", "status.successful": "0"}


def parse(resource: Resource, text: str) -> FieldSelector:
    """The selector in `text`. Raises StatusError 400 for bad syntax or a field that cannot be selected by."""
    try:
        selector = parse_fields(text)
    except ValueError as error:
        raise status.bad_request(f"unable to parse requirement: {error}") from None
    known = _BY_KIND.get((resource.group, resource.kind)) if resource.custom is None else resource.custom.selectable
    for requirement in selector.requirements:
        path = requirement.path
        if path in _ALWAYS or path in (known or ()):
            continue
        if known is None:  # a kind that can be selected by nothing else
            raise status.bad_request(f'"{path}" is not a known field selector: only "metadata.name", '
                                     '"metadata.namespace"')  # fmt: skip
        raise status.bad_request(f"field label not supported: {path}")
    return selector


def values(selector: FieldSelector, obj: Mapping[str, Any]) -> dict[str, str]:
    """The values in `obj` of the fields that `selector` asks for."""
    return {requirement.path: _value(obj, requirement.path) for requirement in selector.requirements}


def _value(obj: Mapping[str, Any], path: str) -> str:
    if path == "source" and obj.get("kind") == "Event":
        return str(obj.get("source", {}).get("component") or obj.get("reportingComponent", ""))
    value: Any = obj
    for part in _STORED_AS.get(path, path).split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return _UNSET.get(path, "")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""
