"""Rules for ConfigMaps, Secrets, events and leases."""

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from controlplane.api import names
from controlplane.api.status import Cause, invalid_value, required, too_long
from controlplane.api.validation.common import Object, at_least, complain

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
            text = "duplicate of key present in binaryData"
            causes.append(invalid_value(f"data[{key}]", key, text))
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
        elif key.startswith(".docker") and (trouble := _json_trouble(data[key])):
            causes.append(invalid_value(f"data[{key}]", "<secret contents redacted>", trouble))
        elif key == "ssh-privatekey" and not data[key]:
            causes.append(required(f"data[{key}]"))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        causes += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            causes.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
    return causes


def _json_trouble(encoded: str) -> str:
    """Why base64 text is no JSON object; empty if it is one."""
    try:
        found = msgspec.json.decode(base64.b64decode(encoded))
    except ValueError as error:
        return str(error)
    return "" if isinstance(found, dict) or found is None else "json: cannot unmarshal into Go value of type map"


def service_account(obj: Object) -> list[Cause]:
    """v1 ServiceAccount: nothing but metadata."""
    return []


_LONGEST_TEXT, _LONGEST_NOTE = 128, 1024


def event(obj: Object) -> list[Cause]:
    """v1 Event: those with an eventTime are of the newer sort, of which more is asked."""
    causes: list[Cause] = []
    namespace = (obj.get("metadata") or {}).get("namespace", "")
    field = "regarding" if "regarding" in obj else "involvedObject"
    about = (obj.get(field) or {}).get("namespace", "")
    text = "does not match event.namespace"
    if not obj.get("eventTime"):
        # Of objects outside namespaces, old clients write events into "default".
        if about != namespace and (about or namespace not in ("", "default")):
            causes.append(invalid_value("involvedObject.namespace", about, text))
        return causes
    if not about and namespace not in ("default", "kube-system"):
        causes.append(invalid_value("involvedObject.namespace", about, text))
    controller = obj.get("reportingController") or obj.get("reportingComponent") or ""
    if not controller:
        causes.append(required("reportingController"))
    complain(causes, "reportingController", controller, names.qualified_name(controller))
    for name in ("reportingInstance", "action", "reason"):
        if not obj.get(name):
            causes.append(required(name))
        elif len(obj[name]) > _LONGEST_TEXT:
            causes.append(invalid_value(name, "", f"can have at most {_LONGEST_TEXT} characters"))
    if len(obj.get("note") or obj.get("message") or "") > _LONGEST_NOTE:
        causes.append(invalid_value("message", "", f"can have at most {_LONGEST_NOTE} characters"))
    return causes


def new_event(obj: Object) -> list[Cause]:
    """events.k8s.io/v1 Event."""
    causes = event(obj)
    series = obj.get("series")
    if series is not None:
        if series.get("count", 0) < 2:
            causes.append(invalid_value("series.count", "", "should be at least 2"))
        if not series.get("lastObservedTime"):
            causes.append(required("series.lastObservedTime"))
    if not obj.get("eventTime"):
        causes.append(required("eventTime"))
    if obj.get("type") not in ("Normal", "Warning"):
        causes.append(invalid_value("type", "", f"has invalid value: {obj.get('type', '')}"))
    for old, new in (("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp"),
                     ("deprecatedCount", "count"), ("deprecatedSource", "source")):  # fmt: skip
        if obj.get(old):
            causes.append(invalid_value(new, "", "needs to be unset"))
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
    ("", "Event"): event,
    ("events.k8s.io", "Event"): new_event,
    ("coordination.k8s.io", "Lease"): lease,
}
