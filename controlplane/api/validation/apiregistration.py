"""Rules for apiregistration.k8s.io APIServices (kube-aggregator pkg/apis/apiregistration/validation)."""

from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, invalid_value, required

Object = dict[str, Any]


def api_service(obj: Object) -> list[Cause]:
    """APIService."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    group, version, name = spec.get("group", ""), spec.get("version", ""), (obj.get("metadata") or {}).get("name", "")
    if name != f"{version}.{group}":
        causes.append(invalid_value("metadata.name", name, 'must be `spec.version+"."+spec.group`'))
    if group:
        causes += [invalid_value("spec.group", group, each) for each in names.dns1123_subdomain(group)]
    elif version != "v1":
        causes.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    causes += [invalid_value("spec.version", version, each) for each in names.dns1035_label(version)]
    for key, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(key) or 0
        if not 0 < value <= most:
            causes.append(invalid_value(f"spec.{key}", value, f"must be positive and less than {most}"))
    service, insecure, bundle = spec.get("service"), spec.get("insecureSkipTLSVerify"), spec.get("caBundle")
    if service is None:
        if bundle:
            causes.append(
                invalid_value("spec.caBundle", f"{len(bundle)} bytes", "local APIServices may not have a caBundle")
            )
        if insecure:
            text = "local APIServices may not have insecureSkipTLSVerify"
            causes.append(invalid_value("spec.insecureSkipTLSVerify", True, text))
        return causes
    causes += [required(f"spec.service.{key}") for key in ("namespace", "name") if not service.get(key)]
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        text = "port is not valid: must be between 1 and 65535, inclusive"
        causes.append(invalid_value("spec.service.port", port, text))
    if insecure and bundle:
        text = "may not be true if caBundle is present"
        causes.append(invalid_value("spec.insecureSkipTLSVerify", True, text))
    return causes


BY_KIND = {("apiregistration.k8s.io", "APIService"): api_service}
