"""Rules for pods and pod templates (core validation.go, ValidatePodSpec)."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, required, too_many
from controlplane.api.validation import metadata
from controlplane.api.validation.common import Object, at_least, labels, maybe_one_of, named, one_of
from controlplane.api.validation.containers import containers
from controlplane.api.validation.placement import affinity, gates, spread, tolerations
from controlplane.api.validation.volumes import volumes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_ID = 2**31 - 1


def pod(obj: Object) -> list[Cause]:
    """A Pod."""
    spec = obj.get("spec") or {}
    causes = pod_spec(spec, "spec")
    if spec.get("ephemeralContainers") and not (obj.get("metadata") or {}).get("uid"):
        causes.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    return causes


def pod_template(obj: Object) -> list[Cause]:
    """A PodTemplate."""
    return template(obj.get("template") or {}, "template")


def template(found: Mapping[str, Any], path: str) -> list[Cause]:
    """The pod template of a workload."""
    causes = metadata.template(found.get("metadata") or {}, f"{path}.metadata")
    spec = found.get("spec") or {}
    causes += pod_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        causes.append(
            forbidden_field(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
        )
    return causes


def pod_spec(spec: Mapping[str, Any], path: str) -> list[Cause]:
    """The spec of a pod, at `path`."""
    causes: list[Cause] = []
    known = volumes(causes, spec.get("volumes") or (), f"{path}.volumes")
    containers(causes, spec, path, known)
    one_of(causes, spec, path, "restartPolicy", RESTART_POLICIES)
    one_of(causes, spec, path, "dnsPolicy", _DNS_POLICIES)
    at_least(causes, spec, path, 0, "terminationGracePeriodSeconds")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_ID:
        text = f"must be between 1 and {_MAX_ID}, inclusive"
        causes.append(invalid_value(f"{path}.activeDeadlineSeconds", deadline, text))
    if "nodeSelector" in spec:
        causes += labels(spec["nodeSelector"], f"{path}.nodeSelector")
    for field, check in _NAMES.items():
        value = spec.get(field)
        if value:
            causes += [invalid_value(f"{path}.{field}", value, each) for each in check(value)]
    if spec.get("securityContext"):
        _security(causes, spec["securityContext"], f"{path}.securityContext")
    if "tolerations" in spec:
        tolerations(causes, spec["tolerations"], f"{path}.tolerations")
    if "affinity" in spec:
        affinity(causes, spec["affinity"], f"{path}.affinity")
    if "topologySpreadConstraints" in spec:
        spread(causes, spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")
    if "schedulingGates" in spec:
        gates(causes, spec["schedulingGates"], f"{path}.schedulingGates")
    if "dnsConfig" in spec or spec.get("dnsPolicy") == "None":
        _dns(causes, spec.get("dnsConfig") or {}, spec.get("dnsPolicy") == "None", f"{path}.dnsConfig")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        at = f"{path}.hostAliases[{index}]"
        causes += [invalid_value(f"{at}.ip", alias.get("ip", ""), each) for each in names.ip(alias.get("ip", ""))]
        for place, name in enumerate(alias.get("hostnames") or ()):
            causes += [invalid_value(f"{at}.hostnames[{place}]", name, each) for each in names.dns1123_subdomain(name)]
    if "os" in spec:
        one_of(causes, spec["os"], f"{path}.os", "name", ("linux", "windows"))
    maybe_one_of(causes, spec, path, "preemptionPolicy", ("PreemptLowerPriority", "Never"))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        causes.append(invalid_value(f"{path}.shareProcessNamespace", True, text))
    return causes


_NAMES = {
    "nodeName": names.dns1123_subdomain,
    "serviceAccountName": names.dns1123_subdomain,
    "hostname": names.dns1123_label,
    "subdomain": names.dns1123_label,
    "priorityClassName": names.dns1123_subdomain,
    "runtimeClassName": names.dns1123_subdomain,
    "schedulerName": names.qualified_name,
}


def _security(causes: list[Cause], context: Mapping[str, Any], path: str) -> None:
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(field)
        if value is not None and not 0 <= value <= _MAX_ID:
            text = f"must be between 0 and {_MAX_ID}, inclusive"
            causes.append(invalid_value(f"{path}.{field}", value, text))
    for index, value in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= value <= _MAX_ID:
            text = f"must be between 0 and {_MAX_ID}, inclusive"
            causes.append(invalid_value(f"{path}.supplementalGroups[{index}]", value, text))
    maybe_one_of(causes, context, path, "fsGroupChangePolicy", ("Always", "OnRootMismatch"))
    maybe_one_of(causes, context, path, "supplementalGroupsPolicy", ("Merge", "Strict"))
    seen = set()
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        name = sysctl.get("name", "")
        if not name:
            causes.append(required(f"{path}.sysctls[{index}].name"))
        elif name in seen:
            causes.append(duplicate(f"{path}.sysctls[{index}].name", name))
        seen.add(name)


def _dns(causes: list[Cause], config: Mapping[str, Any], alone: bool, path: str) -> None:
    servers = config.get("nameservers") or ()
    if alone and not servers:
        text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        causes.append(required(f"{path}.nameservers" if config else path, text))
    if len(servers) > 3:
        causes.append(too_many(f"{path}.nameservers", len(servers), 3))
    for index, server in enumerate(servers):
        causes += [invalid_value(f"{path}.nameservers[{index}]", server, each) for each in names.ip(server)]
    searches = config.get("searches") or ()
    if len(searches) > 32:
        causes.append(too_many(f"{path}.searches", len(searches), 32))
    for index, option in enumerate(config.get("options") or ()):
        named(causes, option.get("name"), f"{path}.options[{index}].name", lambda name: [])


BY_KIND = {("", "Pod"): pod, ("", "PodTemplate"): pod_template}
