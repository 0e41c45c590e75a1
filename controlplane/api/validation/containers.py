"""Rules for containers: what they run, with which environment, mounts, resources and rights."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_value,
    not_supported,
    required,
)
from controlplane.api.validation.common import maybe_one_of, named, need, not_negative, one_of
from controlplane.api.validation.probes import lifecycle, probe

PROTOCOLS = ("TCP", "UDP", "SCTP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_STANDARD = frozenset(("cpu", "memory", "ephemeral-storage"))
_MAX_ID = 2**31 - 1

Each = Mapping[str, Any]


def containers(causes: list[Cause], spec: Each, path: str, volumes: Mapping[str, bool]) -> None:
    """All containers of a pod's spec. `volumes`: name -> whether it is a block device that can be mapped."""
    seen: set[str] = set()
    host_ports: set[str] = set()
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, each in enumerate(spec.get(kind) or ()):
            at = f"{path}.{kind}[{index}]"
            name = each.get("name")
            if named(causes, name, f"{at}.name", names.dns1123_label):
                if name in seen:
                    causes.append(duplicate(f"{at}.name", name))
                seen.add(name)
            _container(causes, each, at, volumes)
            _ports(causes, each.get("ports") or (), f"{at}.ports", bool(spec.get("hostNetwork")), host_ports)
            _probes(causes, each, at, kind == "initContainers" and each.get("restartPolicy") != "Always")


def _container(causes: list[Cause], each: Each, at: str, volumes: Mapping[str, bool]) -> None:
    image = each.get("image")
    if not image:
        causes.append(required(f"{at}.image"))
    elif image != image.strip():
        causes.append(invalid_value(f"{at}.image", image, "must not have leading or trailing whitespace"))
    one_of(causes, each, at, "imagePullPolicy", PULL_POLICIES)
    one_of(causes, each, at, "terminationMessagePolicy", ("File", "FallbackToLogsOnError"))
    maybe_one_of(causes, each, at, "restartPolicy", ("Always", "OnFailure", "Never"))
    if not each.get("terminationMessagePath"):
        causes.append(required(f"{at}.terminationMessagePath"))
    if "env" in each:
        _environment(causes, each["env"], f"{at}.env")
    if "envFrom" in each:
        _environment_from(causes, each["envFrom"], f"{at}.envFrom")
    if "volumeMounts" in each:
        _mounts(causes, each["volumeMounts"], f"{at}.volumeMounts", volumes)
    for index, device in enumerate(each.get("volumeDevices") or ()):
        need(causes, device, f"{at}.volumeDevices[{index}]", "name", "devicePath")
        if device.get("name") and device["name"] not in volumes:
            causes.append(not_found_value(f"{at}.volumeDevices[{index}].name", device["name"]))
    if each.get("resources"):
        resources(causes, each["resources"], f"{at}.resources")
    if each.get("securityContext"):
        _security(causes, each["securityContext"], f"{at}.securityContext")


def _probes(causes: list[Cause], each: Each, at: str, plain_init: bool) -> None:
    for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if name not in each:
            continue
        if plain_init:
            causes.append(
                forbidden_field(f"{at}.{name}", "may not be set for init containers without restartPolicy=Always")
            )
        elif name == "lifecycle":
            lifecycle(causes, each[name], f"{at}.{name}")
        else:
            probe(causes, each[name], f"{at}.{name}", name)


def _ports(causes: list[Cause], ports: Sequence[Each], path: str, host_network: bool, host_ports: set[str]) -> None:
    seen = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name")
        if name:
            complaints = names.port_name(name)
            causes += [invalid_value(f"{at}.name", name, each) for each in complaints]
            if name in seen:
                causes.append(duplicate(f"{at}.name", name))
            seen.add(name)
        number = port.get("containerPort", 0)
        if not number:
            causes.append(required(f"{at}.containerPort"))
        else:
            causes += [invalid_value(f"{at}.containerPort", number, each) for each in names.port_number(number)]
        one_of(causes, port, at, "protocol", PROTOCOLS)
        host = port.get("hostPort")
        if host:
            causes += [invalid_value(f"{at}.hostPort", host, each) for each in names.port_number(host)]
            taken = f"{port.get('protocol')}/{port.get('hostIP', '')}/{host}"
            if taken in host_ports:
                causes.append(duplicate(f"{at}.hostPort", taken))
            host_ports.add(taken)
            if host_network and host != number:
                text = "must match `containerPort` when `hostNetwork` is true"
                causes.append(invalid_value(f"{at}.hostPort", host, text))


_FIELDS = frozenset(
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
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def _environment(causes: list[Cause], variables: Sequence[Each], path: str) -> None:
    for index, variable in enumerate(variables):
        at = f"{path}[{index}]"
        named(causes, variable.get("name"), f"{at}.name", names.env_var_name)
        source = variable.get("valueFrom")
        if source is not None:
            _value_from(causes, source, f"{at}.valueFrom", bool(variable.get("value")))


def _value_from(causes: list[Cause], source: Each, at: str, has_value: bool) -> None:
    count = sum(kind in source for kind in _SOURCES)
    if count == 0:
        text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        causes.append(invalid_value(at, "", text))
    elif has_value:
        causes.append(invalid_value(at, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        causes.append(invalid_value(at, "", "may not have more than one field specified at a time"))
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            need(causes, source[kind], f"{at}.{kind}", "key")
    if "fieldRef" in source:
        _field_path(causes, source["fieldRef"], f"{at}.fieldRef", _FIELDS)
    if "resourceFieldRef" in source:
        need(causes, source["resourceFieldRef"], f"{at}.resourceFieldRef", "resource")


def _field_path(causes: list[Cause], reference: Each, at: str, fields: frozenset[str]) -> None:
    path = reference.get("fieldPath", "")
    if not path:
        causes.append(required(f"{at}.fieldPath"))
    elif path not in fields and not path.startswith(("metadata.labels['", "metadata.annotations['")):
        causes.append(not_supported(f"{at}.fieldPath", path, fields))


def _environment_from(causes: list[Cause], sources: Sequence[Each], path: str) -> None:
    for index, source in enumerate(sources):
        at = f"{path}[{index}]"
        if source.get("prefix"):
            causes += [invalid_value(f"{at}.prefix", source["prefix"], e) for e in names.env_var_name(source["prefix"])]
        kinds = [kind for kind in ("configMapRef", "secretRef") if kind in source]
        if not kinds:
            causes.append(invalid_value(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            causes.append(invalid_value(at, "", "may not have more than one field specified at a time"))
        for kind in kinds:
            named(causes, source[kind].get("name"), f"{at}.{kind}.name", names.dns1123_subdomain)


def _mounts(causes: list[Cause], mounts: Sequence[Each], path: str, volumes: Mapping[str, bool]) -> None:
    seen = set()
    for index, mount in enumerate(mounts):
        at = f"{path}[{index}]"
        name, where = mount.get("name"), mount.get("mountPath")
        if not name:
            causes.append(required(f"{at}.name"))
        elif name not in volumes:
            causes.append(not_found_value(f"{at}.name", name))
        if not where:
            causes.append(required(f"{at}.mountPath"))
        elif where in seen:
            causes.append(invalid_value(f"{at}.mountPath", where, "must be unique"))
        seen.add(where)
        for field in ("subPath", "subPathExpr"):
            part = mount.get(field)
            if part:
                if part.startswith("/"):
                    causes.append(invalid_value(f"{at}.{field}", part, "must be a relative path"))
                elif ".." in part.split("/"):
                    causes.append(invalid_value(f"{at}.{field}", part, "must not contain '..'"))
        if mount.get("subPath") and mount.get("subPathExpr"):
            causes.append(
                invalid_value(
                    f"{at}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
                )
            )
        maybe_one_of(causes, mount, at, "mountPropagation", ("None", "HostToContainer", "Bidirectional"))


def resources(causes: list[Cause], found: Each, path: str) -> None:
    """Requests and limits of a container."""
    limits, requests = found.get("limits") or {}, found.get("requests") or {}
    causes += not_negative(limits, f"{path}.limits")
    causes += not_negative(requests, f"{path}.requests")
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name in amounts:
            if name not in _STANDARD:
                _resource_name(causes, name, amounts[name], f"{path}.{kind}")
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is None or limit == amount:
            continue
        if name not in _STANDARD:
            text = f"must be equal to {name} limit of {limit}"
            causes.append(invalid_value(f"{path}.requests", amount, text))
        elif quantity.parse(amount) > quantity.parse(limit):
            text = f"must be less than or equal to {name} limit of {limit}"
            causes.append(invalid_value(f"{path}.requests", amount, text))
    for index, claim in enumerate(found.get("claims") or ()):
        need(causes, claim, f"{path}.claims[{index}]", "name")


def _resource_name(causes: list[Cause], name: str, amount: str, path: str) -> None:
    causes += [invalid_value(f"{path}.{name}", name, each) for each in names.qualified_name(name)]
    if name.startswith("hugepages-"):
        return
    if "/" not in name:
        text = "must be a standard resource type or fully qualified"
        causes.append(invalid_value(f"{path}.{name}", name, text))
    elif quantity.parse(amount).nano % quantity.NANO:
        causes.append(invalid_value(f"{path}.{name}", amount, "must be an integer"))


def _security(causes: list[Cause], context: Each, path: str) -> None:
    for field in ("runAsUser", "runAsGroup"):
        value = context.get(field)
        if value is not None and not 0 <= value <= _MAX_ID:
            causes.append(invalid_value(f"{path}.{field}", value, f"must be between 0 and {_MAX_ID}, inclusive"))
    maybe_one_of(causes, context, path, "procMount", ("Default", "Unmasked"))
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            causes.append(invalid_value(path, context, text))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            causes.append(invalid_value(path, context, text))
    profile = context.get("seccompProfile")
    if profile is not None:
        one_of(causes, profile, f"{path}.seccompProfile", "type", ("Localhost", "RuntimeDefault", "Unconfined"))
        if profile.get("type") == "Localhost" and not profile.get("localhostProfile"):
            text = "must be set when seccomp type is Localhost"
            causes.append(required(f"{path}.seccompProfile.localhostProfile", text))
