"""Rules for a container's environment: variables, where their values come from, the downward API."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, invalid_value, not_supported, required
from controlplane.api.validation.common import complain, named
from controlplane.api.validation.paths import local_file

Each = Mapping[str, Any]

VARIABLE_FIELDS = frozenset(
    (
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    )
)
FILE_FIELDS = frozenset(
    ("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid")
)
# What a pod has that can be named at all, here or in field selectors.
_POD_FIELDS = VARIABLE_FIELDS | FILE_FIELDS | {"spec.restartPolicy", "spec.schedulerName", "status.phase"}
_AMOUNTS = frozenset(
    f"{side}.{name}" for side in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_CPU_DIVISORS = ("1m", "1")
_DIVISORS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def variables(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A container's `env`."""
    for index, variable in enumerate(found):
        at = f"{path}[{index}]"
        named(causes, variable.get("name"), f"{at}.name", names.env_var_name)
        source = variable.get("valueFrom")
        if source is not None:
            _value_from(causes, source, f"{at}.valueFrom", bool(variable.get("value")))


def _value_from(causes: list[Cause], source: Each, at: str, has_value: bool) -> None:
    count = 0
    for kind in _SOURCES:
        if kind in source:
            count += 1
            _CHECKS[kind](causes, source[kind], f"{at}.{kind}")
    if count == 0:
        text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        causes.append(invalid_value(at, "", text))
    elif has_value:
        causes.append(invalid_value(at, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        causes.append(invalid_value(at, "", "may not have more than one field specified at a time"))


def _key(causes: list[Cause], source: Each, at: str) -> None:
    name = source.get("name", "")
    if complaints := names.dns1123_subdomain(name):
        complain(causes, f"{at}.name", name, complaints)
    named(causes, source.get("key"), f"{at}.key", names.config_key)


def _file_key(causes: list[Cause], source: Each, at: str) -> None:
    named(causes, source.get("volumeName"), f"{at}.volumeName", names.dns1123_label)
    if source.get("path"):
        local_file(causes, source["path"], f"{at}.path")
    else:
        causes.append(required(f"{at}.path"))
    named(causes, source.get("key"), f"{at}.key", names.env_var_name)


def _variable_field(causes: list[Cause], source: Each, at: str) -> None:
    pod_field(causes, source, at, VARIABLE_FIELDS)


def _variable_amount(causes: list[Cause], source: Each, at: str) -> None:
    container_amount(causes, source, at, in_volume=False)


_CHECKS = {
    "fieldRef": _variable_field,
    "resourceFieldRef": _variable_amount,
    "configMapKeyRef": _key,
    "secretKeyRef": _key,
    "fileKeyRef": _file_key,
}


def pod_field(causes: list[Cause], reference: Each, at: str, supported: frozenset[str]) -> None:
    """A reference to a field of the pod (fieldRef), of those that are `supported` there."""
    version, path = reference.get("apiVersion", ""), reference.get("fieldPath", "")
    if not version:
        causes.append(required(f"{at}.apiVersion"))
    elif not path:
        causes.append(required(f"{at}.fieldPath"))
    elif version != "v1":
        text = f"error converting fieldPath: unsupported pod version: {version}"
        causes.append(invalid_value(f"{at}.fieldPath", path, text))
    elif path not in supported:
        _unusual_field(causes, path, at, supported)


def _unusual_field(causes: list[Cause], path: str, at: str, supported: frozenset[str]) -> None:
    base, bracket, key = path.removesuffix("']").partition("['")
    if bracket and base and path.endswith("']"):
        if base == "metadata.annotations":
            complain(causes, at, key.lower(), names.qualified_name(key.lower()))
        elif base == "metadata.labels":
            complain(causes, at, key, names.qualified_name(key))
        else:
            text = f"error converting fieldPath: field label does not support subscript: {path}"
            causes.append(invalid_value(f"{at}.fieldPath", path, text))
    elif path in _POD_FIELDS:
        causes.append(not_supported(f"{at}.fieldPath", path, supported))
    else:
        text = f"error converting fieldPath: field label not supported: {path}"
        causes.append(invalid_value(f"{at}.fieldPath", path, text))


def container_amount(causes: list[Cause], reference: Each, at: str, *, in_volume: bool) -> None:
    """A reference to a container's requests or limits (resourceFieldRef)."""
    resource = reference.get("resource", "")
    if in_volume and not reference.get("containerName"):
        causes.append(required(f"{at}.containerName"))
    elif not resource:
        causes.append(required(f"{at}.resource"))
    elif resource not in _AMOUNTS and not resource.startswith(_HUGE_PAGES):
        causes.append(not_supported(f"{at}.resource", resource, _AMOUNTS))
    divisor = reference.get("divisor", "0")
    if divisor == "0" or not quantity.parse(divisor):
        return
    what = resource.partition(".")[2]
    allowed = _CPU_DIVISORS if what == "cpu" else _DIVISORS
    called = {"ephemeral-storage": "local ephemeral storage"}.get(what, what)
    called = "hugepages" if what.startswith("hugepages-") else called
    if quantity.canonical(divisor) not in allowed and (resource in _AMOUNTS or resource.startswith(_HUGE_PAGES)):
        listed = " and ".join(allowed) if what == "cpu" else ", ".join(allowed)
        text = f"only divisor's values {listed} are supported with the {called} resource"
        causes.append(invalid_value(f"{at}.divisor", resource, text))


def sources(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A container's `envFrom`. (That some causes have no index is Kubernetes' way.)"""
    for index, source in enumerate(found):
        at = f"{path}[{index}]"
        if source.get("prefix"):
            complain(causes, f"{at}.prefix", source["prefix"], names.env_var_name(source["prefix"]))
        kinds = [kind for kind in ("configMapRef", "secretRef") if kind in source]
        for kind in kinds:
            named(causes, source[kind].get("name"), f"{at}.{kind}.name", names.dns1123_subdomain)
        if not kinds:
            causes.append(invalid_value(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            causes.append(invalid_value(path, "", "may not have more than one field specified at a time"))
