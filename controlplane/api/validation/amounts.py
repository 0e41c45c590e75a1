"""Rules for requests and limits: which resources there are, how much of them, and for claims of devices."""

from collections.abc import Callable, Collection, Mapping, Sequence
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
from controlplane.api.validation.common import complain

Each = Mapping[str, Any]
NameRule = Callable[[list[Cause], str, str], None]

COMPUTE = frozenset(("cpu", "memory", "ephemeral-storage"))
_POD_LEVEL = frozenset(("cpu", "memory"))
_COUNTED = frozenset(
    (
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    )
)
STANDARD = (
    COMPUTE
    | _COUNTED
    | {
        "storage",
        *(f"requests.{name}" for name in ("cpu", "memory", "storage", "ephemeral-storage")),
        *(f"limits.{name}" for name in ("cpu", "memory", "ephemeral-storage")),
    }
)
_HUGE = "hugepages-"
NEGATIVE = "must be greater than or equal to 0"


def native(name: str) -> bool:
    """Whether Kubernetes itself knows the resource: no domain, or its own."""
    return "/" not in name or "kubernetes.io/" in name


def _extended(name: str) -> bool:
    return not native(name) and not name.startswith("requests.") and not names.qualified_name(f"requests.{name}")


def resource_name(causes: list[Cause], name: str, at: str) -> None:
    """A resource that may be named anywhere."""
    if complaints := names.qualified_name(name):
        complain(causes, at, name, complaints)
    elif "/" not in name and name not in STANDARD and not name.removeprefix("requests.").startswith(_HUGE):
        causes.append(invalid_value(at, name, "must be a standard resource type or fully qualified"))


def container_resource(causes: list[Cause], name: str, at: str) -> None:
    """A resource that a container can ask for."""
    if name in COMPUTE:
        return
    resource_name(causes, name, at)
    if "/" not in name:
        if not name.startswith(_HUGE):
            causes.append(invalid_value(at, name, "must be a standard resource for containers"))
    elif not native(name) and not _extended(name):
        causes.append(invalid_value(at, name, "doesn't follow extended resource name standard"))


def _pod_resource(causes: list[Cause], name: str, at: str) -> None:
    if name in _POD_LEVEL or name.startswith(_HUGE):
        return
    before = len(causes)
    resource_name(causes, name, at)
    if len(causes) == before:
        causes.append(not_supported(at, name, _POD_LEVEL))


def amount(causes: list[Cause], name: str, value: str, at: str) -> None:
    """So much of a resource: not negative, and whole if it can only be counted."""
    if value[:1] == "-" and quantity.parse(value) < quantity.ZERO:
        causes.append(invalid_value(at, value, NEGATIVE))
    if name not in COMPUTE and (name in _COUNTED or _extended(name)) and quantity.parse(value).nano % quantity.NANO:
        causes.append(invalid_value(at, value, "must be an integer"))


def requirements(
    causes: list[Cause],
    found: Each,
    path: str,
    claims: Collection[str] = (),
    name_rule: NameRule = container_resource,
) -> None:
    """The requests and limits of a container (or pod). `claims`: the pod's claims of devices, by name."""
    limits, requests = found.get("limits") or {}, found.get("requests") or {}
    for side, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            if name in COMPUTE and value[:1] != "-" and name_rule is container_resource:
                continue  # nearly all
            at = f"{path}.{side}[{name}]"
            name_rule(causes, name, at)
            amount(causes, name, value, at)
            if name.startswith(_HUGE):
                _huge(causes, name, value, at)
    for name, value in requests.items():
        limit = limits.get(name)
        if limit is None:
            if name not in COMPUTE and (name.startswith(_HUGE) or not native(name)):
                causes.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        elif limit != value and (asked := quantity.parse(value).nano) != (most := quantity.parse(limit).nano):
            if name.startswith(_HUGE) or not native(name):
                text = f"must be equal to {name} limit of {limit}"
                causes.append(invalid_value(f"{path}.requests", value, text))
            elif asked > most:
                text = f"must be less than or equal to {name} limit of {limit}"
                causes.append(invalid_value(f"{path}.requests", value, text))
    if not _POD_LEVEL & {*limits, *requests} and any(name.startswith(_HUGE) for name in (*limits, *requests)):
        causes.append(forbidden_field(path, "HugePages require cpu or memory"))
    if "claims" in found:
        _claims(causes, found["claims"] or (), f"{path}.claims", claims)


def _huge(causes: list[Cause], name: str, value: str, at: str) -> None:
    text = f"{value} is not positive integer multiple of {name}"
    try:
        page = quantity.parse(name.removeprefix(_HUGE)).nano
    except ValueError:
        page = 0
    if page <= 0 or quantity.parse(value).nano % page:
        causes.append(invalid_value(at, value, text))


def _claims(causes: list[Cause], found: Sequence[Each], path: str, known: Collection[str]) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(found):
        at, name, request = f"{path}[{index}]", claim.get("name", ""), claim.get("request", "")
        if not name:
            causes.append(required(at))
            continue
        key = f"{name}/{request}" if request else name
        if request:
            complain(causes, f"{at}.request", request, names.dns1123_label(request))
        if name in seen or key in seen or (not request and any(each.startswith(f"{name}/") for each in seen)):
            causes.append(duplicate(at, name if name in seen else key))
        seen.add(key)
        if name not in known:
            text = "must be one of the names in pod.spec.resourceClaims"
            text += f": {', '.join(sorted(known))}" if known else " which is empty"
            causes.append(not_found_value(at, name, text))


def pod_level(causes: list[Cause], spec: Each, path: str) -> None:
    """A pod's own requests and limits, which its containers share."""
    found = spec["resources"]
    if found.get("claims") is not None:
        causes.append(forbidden_field(f"{path}.claims", "claims cannot be set for Resources at pod-level"))
    requirements(causes, {key: value for key, value in found.items() if key != "claims"}, path, (), _pod_resource)
    total: dict[str, quantity.Quantity] = {}
    for container in spec.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, quantity.ZERO) + quantity.parse(value)
    given = found.get("requests") or {}
    for name, whole in total.items():
        if whole > quantity.parse(given.get(name, "0")):
            text = f"must be greater than or equal to aggregate container requests of {whole}"
            causes.append(invalid_value(f"{path}.requests[{name}]", given.get(name, "0"), text))
    most = found.get("limits") or {}
    for index, container in enumerate(spec.get("containers") or ()):
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in most and quantity.parse(value) > quantity.parse(most[name]):
                at = f"{path}.containers[{index}][{name}].limits"
                causes.append(invalid_value(at, value, f"must be less than or equal to pod limits of {most[name]}"))
