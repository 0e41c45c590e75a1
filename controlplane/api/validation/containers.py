"""Rules for containers: names, images, ports, restarts, and what only some sorts of containers may have."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from controlplane.api import names
from controlplane.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_value,
    not_supported,
    required,
    too_many,
)
from controlplane.api.validation import amounts, environment
from controlplane.api.validation.common import complain, named, one_of
from controlplane.api.validation.mounts import Volumes, devices, mounts
from controlplane.api.validation.probes import lifecycle, probe
from controlplane.api.validation.security import container_context

PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTARTS = ("Always", "OnFailure", "Never")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_NOT_EPHEMERAL = ("ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy",
                  "restartPolicy", "restartPolicyRules")  # fmt: skip
_MOST_RULES = 20

Each = Mapping[str, Any]


def containers(causes: list[Cause], spec: Each, path: str, volumes: Volumes) -> None:
    """All containers of a pod's spec."""
    claims = [claim.get("name", "") for claim in spec["resourceClaims"] or ()] if "resourceClaims" in spec else ()
    main = spec.get("containers") or ()
    if not main:
        causes.append(required(f"{path}.containers"))
    seen: set[str] = set()
    host_ports: set[str] = set()
    for index, each in enumerate(main):
        at = f"{path}.containers[{index}]"
        _common(causes, each, at, spec, volumes, claims)
        _unique(causes, each, at, seen)
        if "ports" in each:
            _host_ports(causes, each["ports"] or (), at, host_ports, match=bool(spec.get("hostNetwork")))
        _hooks(causes, each, at, spec)
        if "restartPolicy" in each or "restartPolicyRules" in each:
            _restarts(causes, each, at)
    if "initContainers" in spec:
        _init(causes, spec, f"{path}.initContainers", volumes, claims, seen)
    if spec.get("ephemeralContainers"):
        ephemeral(causes, spec, f"{path}.ephemeralContainers", volumes, claims)


def _init(
    causes: list[Cause], spec: Each, path: str, volumes: Volumes, claims: Collection[str], seen: set[str]
) -> None:
    for index, each in enumerate(spec["initContainers"] or ()):
        at = f"{path}[{index}]"
        _common(causes, each, at, spec, volumes, claims)
        if "restartPolicy" in each or "restartPolicyRules" in each:
            _restarts(causes, each, at)
        _unique(causes, each, at, seen)
        _host_ports(causes, each.get("ports") or (), at, set(), match=False)
        if each.get("restartPolicy") == "Always":
            _hooks(causes, each, at, spec)
        else:
            text = "may not be set for init containers without restartPolicy=Always"
            causes += [forbidden_field(f"{at}.{name}", text) for name in ("lifecycle", *_PROBES) if name in each]
            if each.get("resizePolicy"):
                text = "must not be set for init containers"
                causes.append(invalid_value(f"{at}.resizePolicy", each["resizePolicy"], text))


def ephemeral(causes: list[Cause], spec: Each, path: str, volumes: Volumes, claims: Collection[str] = ()) -> None:
    """A pod's ephemeralContainers: for debugging only, so without what serves."""
    others = {each.get("name") for kind in ("containers", "initContainers") for each in spec.get(kind) or ()}
    seen = {str(name) for name in others}
    for index, each in enumerate(spec["ephemeralContainers"] or ()):
        at = f"{path}[{index}]"
        bare = {key: value for key, value in each.items() if key not in _NOT_EPHEMERAL}
        _common(causes, bare, at, spec, volumes, claims)
        _unique(causes, each, at, seen)
        target = each.get("targetContainerName")
        if target and target not in others:
            causes.append(not_found_value(f"{at}.targetContainerName", target))
        text = "cannot be set for an Ephemeral Container"
        causes += [forbidden_field(f"{at}.{field}", text) for field in _NOT_EPHEMERAL if each.get(field)]
        for place, mount in enumerate(each.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    causes.append(forbidden_field(f"{at}.volumeMounts[{place}].{field}", text))


def _unique(causes: list[Cause], each: Each, at: str, seen: set[str]) -> None:
    name = each.get("name", "")
    if name and name in seen:
        causes.append(duplicate(f"{at}.name", name))
    seen.add(name)


def _common(causes: list[Cause], each: Each, at: str, spec: Each, volumes: Volumes, claims: Collection[str]) -> None:
    named(causes, each.get("name"), f"{at}.name", names.dns1123_label)
    if not each.get("image"):
        causes.append(required(f"{at}.image"))
    one_of(causes, each, at, "terminationMessagePolicy", ("File", "FallbackToLogsOnError"))
    if "ports" in each:
        _ports(causes, each["ports"] or (), f"{at}.ports")
    if "env" in each:
        environment.variables(causes, each["env"] or (), f"{at}.env")
    if "envFrom" in each:
        environment.sources(causes, each["envFrom"] or (), f"{at}.envFrom")
    if "volumeMounts" in each:
        mounts(causes, each, f"{at}.volumeMounts", volumes)
    if "volumeDevices" in each:
        devices(causes, each, f"{at}.volumeDevices", volumes)
    one_of(causes, each, at, "imagePullPolicy", PULL_POLICIES)
    if each.get("resources"):
        amounts.requirements(causes, each["resources"], f"{at}.resources", claims)
    if "resizePolicy" in each:
        _resizes(causes, each["resizePolicy"] or (), f"{at}.resizePolicy", spec)
    if each.get("securityContext"):
        host_users = spec.get("hostUsers") is not False
        container_context(causes, each["securityContext"], f"{at}.securityContext", host_users=host_users)


def _hooks(causes: list[Cause], each: Each, at: str, spec: Each) -> None:
    grace = spec.get("terminationGracePeriodSeconds")
    if "lifecycle" in each:
        lifecycle(causes, each["lifecycle"] or {}, f"{at}.lifecycle", grace, has_system="os" in spec)
    for name in _PROBES:
        if name in each:
            probe(causes, each[name], f"{at}.{name}", name)


def _ports(causes: list[Cause], ports: Sequence[Each], path: str) -> None:
    seen = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name")
        if name:
            if complaints := names.port_name(name):
                complain(causes, f"{at}.name", name, complaints)
            elif name in seen:
                causes.append(duplicate(f"{at}.name", name))
            seen.add(name)
        number = port.get("containerPort", 0)
        if not number:
            causes.append(required(f"{at}.containerPort"))
        elif not 1 <= number <= 65535:
            complain(causes, f"{at}.containerPort", number, names.port_number(number))
        host = port.get("hostPort")
        if host:
            complain(causes, f"{at}.hostPort", host, names.port_number(host))
        one_of(causes, port, at, "protocol", PROTOCOLS)


def _host_ports(causes: list[Cause], ports: Sequence[Each], at: str, taken: set[str], *, match: bool) -> None:
    for index, port in enumerate(ports):
        host = port.get("hostPort")
        if not host:
            continue
        key = f"{port.get('protocol')}/{port.get('hostIP', '')}/{host}"
        if key in taken:
            causes.append(duplicate(f"{at}.ports[{index}].hostPort", key))
        taken.add(key)
        if match and host != port.get("containerPort"):
            text = "must match `containerPort` when `hostNetwork` is true"
            causes.append(invalid_value(f"{at}.ports[{index}].hostPort", host, text))


def _resizes(causes: list[Cause], found: Sequence[Each], path: str, spec: Each) -> None:
    seen = set()
    for index, each in enumerate(found):
        name, policy = each.get("resourceName", ""), each.get("restartPolicy", "")
        if name in seen:
            causes.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)
        for value, supported in ((name, ("cpu", "memory")), (policy, ("NotRequired", "RestartContainer"))):
            if not value:
                causes.append(required(path))
            elif value not in supported:
                causes.append(not_supported(path, value, supported))
        if spec.get("restartPolicy") == "Never" and policy != "NotRequired":
            text = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            causes.append(invalid_value(path, policy, text))


def _restarts(causes: list[Cause], each: Each, at: str) -> None:
    policy, rules = each.get("restartPolicy"), each.get("restartPolicyRules") or ()
    if policy is not None and policy not in _RESTARTS:
        causes.append(not_supported(f"{at}.restartPolicy", policy, _RESTARTS))
    if rules and policy is None:
        text = "must specify restartPolicy when restart rules are used"
        causes.append(required(f"{at}.restartPolicy", text))
    if len(rules) > _MOST_RULES:
        causes.append(too_many(f"{at}.restartPolicyRules", len(rules), _MOST_RULES))
    for index, rule in enumerate(rules):
        where = f"{at}.restartPolicyRules[{index}]"
        one_of(causes, rule, where, "action", ("Restart", "RestartAllContainers"))
        codes = rule.get("exitCodes")
        if codes is None:
            causes.append(required(f"{where}.exitCodes", "must be specified"))
        else:
            one_of(causes, codes, f"{where}.exitCodes", "operator", ("In", "NotIn"))


def images(causes: list[Cause], spec: Each, path: str) -> None:
    """What is asked of a pod's images and not of a template's."""
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for index, each in enumerate(spec.get(kind) or ()):
            image = each.get("image", "")
            if image and image != image.strip():
                text = "must not have leading or trailing whitespace"
                causes.append(invalid_value(f"{path}.{kind}[{index}].image", image, text))
