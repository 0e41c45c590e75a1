"""Rules for ConfigMaps, Secrets, limits and quotas, events and leases."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, invalid_value, required, too_long
from controlplane.api.validation.common import Object, at_least, need, not_negative, one_of

DATA_BYTES = 1024 * 1024

_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _keys(causes: list[Cause], data: Mapping[str, Any], path: str) -> None:
    for key in data:
        if complaints := names.config_key(key):
            causes += [invalid_value(f"{path}[{key}]", key, each) for each in complaints]


def config_map(obj: Object) -> list[Cause]:
    """v1 ConfigMap."""
    causes: list[Cause] = []
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    _keys(causes, data, "data")
    _keys(causes, binary, "binaryData")
    for key in binary:
        if key in data:
            causes.append(invalid_value("data", key, "duplicate of key present in binaryData"))
    size = sum(map(len, data.values())) + sum(_decoded(value) for value in binary.values())
    if size * 4 > DATA_BYTES:  # at most four bytes a character: count them only when it may matter
        size = sum(len(value.encode()) for value in data.values()) + sum(map(_decoded, binary.values()))
        if size > DATA_BYTES:
            causes.append(too_long("[]", DATA_BYTES))
    return causes


def _decoded(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


def secret(obj: Object) -> list[Cause]:
    """v1 Secret."""
    causes: list[Cause] = []
    data = obj.get("data") or {}
    _keys(causes, data, "data")
    if sum(map(_decoded, data.values())) > DATA_BYTES:
        causes.append(too_long("data", DATA_BYTES))
    kind = obj.get("type", "")
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            causes.append(required(f"data[{key}]"))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        causes += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            causes.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
    return causes


def service_account(obj: Object) -> list[Cause]:
    """v1 ServiceAccount: nothing but metadata."""
    return []


def limit_range(obj: Object) -> list[Cause]:
    """v1 LimitRange."""
    causes: list[Cause] = []
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        at = f"spec.limits[{index}]"
        need(causes, item, at, "type")
        for kind in ("max", "min", "default", "defaultRequest"):
            causes += not_negative(item.get(kind), f"{at}.{kind}")
        for name, least in (item.get("min") or {}).items():
            most = (item.get("max") or {}).get(name)
            if most is not None and quantity.parse(least) > quantity.parse(most):
                text = f"min value {least} is greater than max value {most}"
                causes.append(invalid_value(f"{at}.min[{name}]", least, text))
    return causes


def resource_quota(obj: Object) -> list[Cause]:
    """v1 ResourceQuota."""
    spec = obj.get("spec") or {}
    causes = not_negative(spec.get("hard"), "spec.hard")
    for name in spec.get("hard") or {}:
        causes += [invalid_value(f"spec.hard[{name}]", name, each) for each in names.qualified_name(name)]
    return causes


def event(obj: Object) -> list[Cause]:
    """v1 Event (events.k8s.io asks for more, of new events only)."""
    causes: list[Cause] = []
    namespace = (obj.get("metadata") or {}).get("namespace", "")
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    field = "involvedObject" if "involvedObject" in obj else "regarding"
    if about.get("namespace"):
        if about["namespace"] != namespace:
            text = "does not match event.namespace"
            causes.append(invalid_value(f"{field}.namespace", about["namespace"], text))
    elif namespace not in ("", "default", "kube-system"):
        causes.append(invalid_value(f"{field}.namespace", "", "does not match event.namespace"))
    return causes


def new_event(obj: Object) -> list[Cause]:
    """events.k8s.io/v1 Event."""
    causes = event(obj)
    need(causes, obj, "", "reportingController", "reportingInstance", "action", "reason")
    one_of(causes, obj, "", "type", ("Normal", "Warning"))
    if "eventTime" not in obj:
        causes.append(required("eventTime"))
    return causes


def lease(obj: Object) -> list[Cause]:
    """coordination.k8s.io/v1 Lease."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    at_least(causes, spec, "spec", 1, "leaseDurationSeconds")
    at_least(causes, spec, "spec", 0, "leaseTransitions")
    if spec.get("holderIdentity") == "":
        causes.append(invalid_value("spec.holderIdentity", "", "must not be empty"))
    return causes


BY_KIND = {
    ("", "ConfigMap"): config_map,
    ("", "Secret"): secret,
    ("", "ServiceAccount"): service_account,
    ("", "LimitRange"): limit_range,
    ("", "ResourceQuota"): resource_quota,
    ("", "Event"): event,
    ("events.k8s.io", "Event"): new_event,
    ("coordination.k8s.io", "Lease"): lease,
}
