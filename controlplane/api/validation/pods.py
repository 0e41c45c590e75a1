"""Rules for pods and pod templates (core validation.go, ValidatePodSpec)."""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, required
from controlplane.api.validation import amounts, annotations, metadata
from controlplane.api.validation.common import Object, complain, labels, one_of, within
from controlplane.api.validation.containers import containers, images
from controlplane.api.validation.placement import affinity, gates, spread, tolerations
from controlplane.api.validation.security import (
    MAX_ID,
    has_windows_options,
    host_processes,
    operating_system,
    pod_context,
)
from controlplane.api.validation.volumes import volumes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MOST_NAMESERVERS, _MOST_SEARCHES, _LONGEST_SEARCH_LIST = 3, 32, 2048

Each = Mapping[str, Any]
Part = Callable[[list[Cause], Each, str], None]


def pod(obj: Object) -> list[Cause]:
    """A Pod, new or changed."""
    spec, meta = obj.get("spec") or {}, obj.get("metadata") or {}
    causes: list[Cause] = []
    if "annotations" in meta:
        annotations.pod(causes, meta["annotations"] or {}, spec, "metadata.annotations", "spec")
    _pod_spec(causes, spec, "spec", meta.get("name", ""))
    images(causes, spec, "spec")
    for index, volume in enumerate(spec.get("volumes") or ()):
        if "image" in volume and not volume["image"].get("reference"):
            causes.append(required(f"spec.volumes[{index}].image.reference"))
        if "projected" in volume and not spec.get("serviceAccountName"):
            for place, source in enumerate(volume["projected"].get("sources") or ()):
                if "serviceAccountToken" in source:
                    at = f"spec.volumes[{index}].projected.sources[{place}].serviceAccountToken"
                    text = "must not be specified when serviceAccountName is not set"
                    causes.append(forbidden_field(at, text))
    return causes


def new_pod(obj: Object) -> list[Cause]:
    """A Pod that is being created: nobody debugs it yet, and nobody has placed it while it is gated."""
    causes = pod(obj)
    spec = obj.get("spec") or {}
    if spec.get("ephemeralContainers"):
        causes.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        text = "cannot be set until all schedulingGates have been cleared"
        causes.append(forbidden_field("spec.nodeName", text))
    return causes


def pod_template(obj: Object) -> list[Cause]:
    """A PodTemplate."""
    return template(obj.get("template") or {}, "template")


def template(found: Each, path: str) -> list[Cause]:
    """The pod template of a workload. (Its labels are `template.labels` in causes, as in Kubernetes.)"""
    meta, spec = found.get("metadata") or {}, found.get("spec") or {}
    causes = metadata.template(meta, path)
    if "annotations" in meta:
        annotations.pod(causes, meta["annotations"] or {}, spec, f"{path}.annotations", f"{path}.spec")
    _pod_spec(causes, spec, f"{path}.spec", "")
    if spec.get("ephemeralContainers"):
        text = "ephemeral containers not allowed in pod template"
        causes.append(forbidden_field(f"{path}.spec.ephemeralContainers", text))
    return causes


def _pod_spec(causes: list[Cause], spec: Each, path: str, name: str) -> None:
    known = volumes(causes, spec["volumes"] or (), f"{path}.volumes", name) if "volumes" in spec else {}
    containers(causes, spec, path, known)
    one_of(causes, spec, path, "restartPolicy", RESTART_POLICIES)
    one_of(causes, spec, path, "dnsPolicy", _DNS_POLICIES)
    if "activeDeadlineSeconds" in spec:
        within(causes, spec, path, 1, MAX_ID, "activeDeadlineSeconds")
    if "os" in spec:
        operating_system(causes, spec, path)
    for field in spec:
        part = _PARTS.get(field)
        if part is not None and spec[field]:
            part(causes, spec, path)
    if spec.get("dnsPolicy") == "None" and not spec.get("dnsConfig"):
        causes.append(required(f"{path}.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None"))
    if spec.get("hostUsers") is False:
        for field, at in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
            if spec.get(field):
                causes.append(forbidden_field(f"{path}.{at}", "when `pod.Spec.HostUsers` is false"))
    if has_windows_options(spec):
        host_processes(causes, spec, path)


def _name(field: str, check: Callable[[str], list[str]]) -> Part:
    def part(causes: list[Cause], spec: Each, path: str) -> None:
        if complaints := check(spec[field]):
            complain(causes, f"{path}.{field}", spec[field], complaints)

    return part


def _node_selector(causes: list[Cause], spec: Each, path: str) -> None:
    causes += labels(spec["nodeSelector"], f"{path}.nodeSelector")


def _security(causes: list[Cause], spec: Each, path: str) -> None:
    pod_context(causes, spec["securityContext"], spec, f"{path}.securityContext")


def _tolerations(causes: list[Cause], spec: Each, path: str) -> None:
    tolerations(causes, spec["tolerations"], f"{path}.tolerations")


def _affinity(causes: list[Cause], spec: Each, path: str) -> None:
    affinity(causes, spec["affinity"], f"{path}.affinity")


def _spread(causes: list[Cause], spec: Each, path: str) -> None:
    spread(causes, spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")


def _gates(causes: list[Cause], spec: Each, path: str) -> None:
    gates(causes, spec["schedulingGates"], f"{path}.schedulingGates")


def _readiness(causes: list[Cause], spec: Each, path: str) -> None:
    for index, gate in enumerate(spec["readinessGates"]):
        kind = gate.get("conditionType", "")
        complain(causes, f"{path}.readinessGates[{index}].conditionType", kind, names.qualified_name(kind))


def _aliases(causes: list[Cause], spec: Each, path: str) -> None:
    for index, alias in enumerate(spec["hostAliases"]):
        at = f"{path}.hostAliases[{index}]"
        complain(causes, f"{at}.ip", alias.get("ip", ""), names.ip(alias.get("ip", "")))
        for place, name in enumerate(alias.get("hostnames") or ()):
            complain(causes, f"{at}.hostnames[{place}]", name, names.dns1123_subdomain(name))


def _preemption(causes: list[Cause], spec: Each, path: str) -> None:
    one_of(causes, spec, path, "preemptionPolicy", ("PreemptLowerPriority", "Never"))


def _shared_processes(causes: list[Cause], spec: Each, path: str) -> None:
    if spec.get("hostPID"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        causes.append(invalid_value(f"{path}.securityContext.shareProcessNamespace", True, text))


def _overhead(causes: list[Cause], spec: Each, path: str) -> None:
    amounts.requirements(causes, {"limits": spec["overhead"]}, f"{path}.overhead")


def _resources(causes: list[Cause], spec: Each, path: str) -> None:
    amounts.pod_level(causes, spec, f"{path}.resources")


def _claims(causes: list[Cause], spec: Each, path: str) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(spec["resourceClaims"]):
        at, name = f"{path}.resourceClaims[{index}]", claim.get("name", "")
        if not name:
            causes.append(required(f"{at}.name"))
        elif name in seen:
            causes.append(duplicate(f"{at}.name", name))
        else:
            complain(causes, f"{at}.name", name, names.dns1123_label(name))
        seen.add(name)
        own, made = claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")
        if own is not None and made is not None:
            text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            causes.append(invalid_value(at, claim, text))
        elif own is None and made is None:
            text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            causes.append(invalid_value(at, claim, text))
        for field, value in (("resourceClaimName", own), ("resourceClaimTemplateName", made)):
            if value is not None:
                complain(causes, f"{at}.{field}", value, names.dns1123_subdomain(value))


def _hostname_override(causes: list[Cause], spec: Each, path: str) -> None:
    value = spec["hostnameOverride"]
    if len(value) > 64:
        causes.append(invalid_value(f"{path}.hostnameOverride", value, "must be no more than 64 characters"))
    complain(causes, f"{path}.hostnameOverride", value, names.dns1123_subdomain(value))
    if spec.get("hostNetwork"):
        text = "must not be set when hostNetwork is true"
        causes.append(forbidden_field(f"{path}.hostnameOverride", text))


def _dns(causes: list[Cause], spec: Each, path: str) -> None:
    config, at = spec["dnsConfig"], f"{path}.dnsConfig"
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if spec.get("dnsPolicy") == "None" and not servers:
        text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        causes.append(required(f"{at}.nameservers", text))
        return
    if len(servers) > _MOST_NAMESERVERS:
        text = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        causes.append(invalid_value(f"{at}.nameservers", servers, text))
    for index, server in enumerate(servers):
        complain(causes, f"{at}.nameservers[{index}]", server, names.ip(server))
    if len(searches) > _MOST_SEARCHES:
        text = f"must not have more than {_MOST_SEARCHES} search paths"
        causes.append(invalid_value(f"{at}.searches", searches, text))
    if len(" ".join(searches)) > _LONGEST_SEARCH_LIST:
        text = f"must not have more than {_LONGEST_SEARCH_LIST} characters (including spaces) in the search list"
        causes.append(invalid_value(f"{at}.searches", searches, text))
    for index, search in enumerate(searches):
        domain = search.removesuffix(".")
        if search != ".":
            complain(causes, f"{at}.searches[{index}]", domain, names.dns1123_subdomain_with_underscore(domain))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            causes.append(required(f"{at}.options[{index}]", "must not be empty"))


# What is looked at only where it is set.
_PARTS: dict[str, Part] = {
    "nodeSelector": _node_selector,
    "securityContext": _security,
    "affinity": _affinity,
    "dnsConfig": _dns,
    "readinessGates": _readiness,
    "schedulingGates": _gates,
    "topologySpreadConstraints": _spread,
    "serviceAccountName": _name("serviceAccountName", names.dns1123_subdomain),
    "nodeName": _name("nodeName", names.dns1123_subdomain),
    "hostname": _name("hostname", names.dns1123_label),
    "hostnameOverride": _hostname_override,
    "subdomain": _name("subdomain", names.dns1123_label),
    "tolerations": _tolerations,
    "hostAliases": _aliases,
    "priorityClassName": _name("priorityClassName", names.dns1123_subdomain),
    "runtimeClassName": _name("runtimeClassName", names.dns1123_subdomain),
    "preemptionPolicy": _preemption,
    "shareProcessNamespace": _shared_processes,
    "overhead": _overhead,
    "resources": _resources,
    "resourceClaims": _claims,
}

BY_KIND = {("", "Pod"): pod, ("", "PodTemplate"): pod_template}
