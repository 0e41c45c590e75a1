"""Field selectors: which fields of which kind can be selected by, and their values. As in Kubernetes, a short list."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.api.selectors import FieldSelector, parse_fields

_ALWAYS = ("metadata.name", "metadata.namespace")
_EVENT = (
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
    "reportingComponent", "source", "type",
)  # fmt: skip
_BY_KIND: Mapping[str, tuple[str, ...]] = {
    "Pod": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    "Event": _EVENT,
    "Secret": ("type",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
    "ReplicaSet": ("status.replicas",),
    "ReplicationController": ("status.replicas",),
    "Job": ("status.successful",),
    "CertificateSigningRequest": ("spec.signerName",),
    "Service": ("spec.clusterIP", "spec.type"),
    "ResourceSlice": ("spec.driver", "spec.nodeName"),
}  # fmt: skip


def parse(resource: Resource, text: str) -> FieldSelector:
    """The selector in `text`. Raises StatusError 400 for bad syntax or a field that cannot be selected by."""
    try:
        selector = parse_fields(text)
    except ValueError as error:
        raise status.bad_request(f"unable to parse requirement: {error}") from None
    known = _BY_KIND.get(resource.kind, ()) if resource.custom is None else resource.custom.selectable
    for requirement in selector.requirements:
        if requirement.path not in known and requirement.path not in _ALWAYS:
            raise status.bad_request(f'Unable to find "{resource.group_resource}" that match label selector "", field '
                                     f'selector "{text}": field label not supported: {requirement.path}')  # fmt: skip
    return selector


def values(selector: FieldSelector, obj: Mapping[str, Any]) -> dict[str, str]:
    """The values in `obj` of the fields that `selector` asks for."""
    return {requirement.path: _value(obj, requirement.path) for requirement in selector.requirements}


def _value(obj: Mapping[str, Any], path: str) -> str:
    if path == "source" and obj.get("kind") == "Event":
        return str(obj.get("source", {}).get("component") or obj.get("reportingComponent", ""))
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
