"""Rules for LimitRanges and ResourceQuotas: which resources can be bounded, and bounds that do not contradict."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, required
from controlplane.api.validation import amounts
from controlplane.api.validation.common import IMMUTABLE, Object, complain

Each = Mapping[str, Any]
_LIMIT_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_FIELDS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_SCOPES = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass",
           "CrossNamespacePodAffinity", "VolumeAttributesClass")  # fmt: skip
_ONLY_EXIST = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_OPPOSITES = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_POD_COMPUTE = {"pods", *_COMPUTE, *(f"{side}.{name}" for side in ("limits", "requests") for name in _COMPUTE)}


def limit_range(obj: Object) -> list[Cause]:
    """v1 LimitRange."""
    causes: list[Cause] = []
    seen = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        at, kind = f"spec.limits[{index}]", item.get("type", "")
        if complaints := names.qualified_name(kind):
            complain(causes, f"{at}.type", kind, complaints)
        elif "/" not in kind and kind not in _LIMIT_TYPES:
            text = "must be a standard limit type or fully qualified"
            causes.append(invalid_value(f"{at}.type", kind, text))
        if kind in seen:
            causes.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        _bounds(causes, item, kind, at)
    return causes


def _bounds(causes: list[Cause], item: Each, kind: str, at: str) -> None:
    check = amounts.container_resource if kind in ("Pod", "Container") else amounts.resource_name
    parsed: dict[str, dict[str, quantity.Quantity]] = {field: {} for field in _FIELDS}
    for field in _FIELDS:
        if kind == "Pod" and field in ("default", "defaultRequest"):
            if item.get(field):
                causes.append(forbidden_field(f"{at}.{field}", "may not be specified when `type` is 'Pod'"))
            continue
        for name, value in (item.get(field) or {}).items():
            check(causes, name, f"{at}.{field}[{name}]")
            parsed[field][name] = quantity.parse(value)
    if kind == "PersistentVolumeClaim" and "storage" not in parsed["min"] and "storage" not in parsed["max"]:
        text = "either minimum or maximum storage value is required, but neither was provided"
        causes.append(required(f"{at}.limits", text))
    for name in dict.fromkeys(name for found in parsed.values() for name in found):
        _consistent(causes, name, {field: parsed[field].get(name) for field in _FIELDS}, at)


# lower, what it is called, upper, what it is called, whose path and value are shown
_PAIRS = (
    ("min", "min value", "max", "max value", "min", "min"),
    ("min", "min value", "defaultRequest", "default request value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default request value", "max", "max value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default request value", "default", "default limit value", "defaultRequest", "defaultRequest"),
    ("min", "min value", "default", "default value", "default", "min"),
    ("default", "default value", "max", "max value", "default", "max"),
)


def _consistent(causes: list[Cause], name: str, found: Mapping[str, quantity.Quantity | None], at: str) -> None:
    for lower, what, upper, than, where, shown in _PAIRS:
        low, high = found[lower], found[upper]
        if low is not None and high is not None and low > high:
            text = f"{what} {low} is greater than {than} {high}"
            causes.append(invalid_value(f"{at}.{where}[{name}]", str(found[shown]), text))
    ratio, least, most = found["maxLimitRequestRatio"], found["min"], found["max"]
    path = f"{at}.maxLimitRequestRatio[{name}]"
    if ratio is not None and ratio.nano < quantity.NANO:
        causes.append(invalid_value(path, str(ratio), f"ratio {ratio} is less than 1"))
    if ratio is not None and least and most is not None and ratio.nano * least.nano > most.nano * quantity.NANO:
        text = f"ratio {ratio} is greater than max/min = {most.nano / least.nano:f}"
        causes.append(invalid_value(path, str(ratio), text))
    limit, request = found["default"], found["defaultRequest"]
    overcommitted = amounts.native(name) and not name.startswith("hugepages-")
    if not overcommitted and limit is not None and request is not None and limit != request:
        text = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        causes.append(invalid_value(f"{at}.defaultRequest[{name}]", str(request), text))


def resource_quota(obj: Object) -> list[Cause]:
    """v1 ResourceQuota."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    hard = spec.get("hard") or {}
    for name, value in hard.items():
        at = f"spec.hard[{name}]"
        before = len(causes)
        amounts.resource_name(causes, name, at)
        if len(causes) > before and "/" not in name:
            causes.append(invalid_value(at, name, "must be a standard resource for quota"))
        amounts.amount(causes, name, value, at)
    _scopes(causes, spec.get("scopes") or [], hard)
    chosen = spec.get("scopeSelector")
    if chosen is not None:
        _selector(causes, chosen, hard)
    return causes


def _scopes(causes: list[Cause], scopes: Sequence[str], hard: Each) -> None:
    at = "spec.scopes"
    for scope in scopes:
        if scope not in _SCOPES:
            causes.append(invalid_value(at, scopes, "unsupported scope"))
        for name in sorted(hard):
            if name in amounts.STANDARD and not _applies(scope, name):
                causes.append(invalid_value(at, scopes, "unsupported scope applied to resource"))
    if any(pair <= set(scopes) for pair in _OPPOSITES):
        causes.append(invalid_value(at, scopes, "conflicting scopes"))


def _applies(scope: str, name: str) -> bool:
    if scope == "BestEffort":
        return name == "pods"
    if scope == "VolumeAttributesClass":
        return name in ("persistentvolumeclaims", "requests.storage")
    return name in _POD_COMPUTE or scope not in _SCOPES


def _selector(causes: list[Cause], chosen: Each, hard: Each) -> None:
    at, seen = "spec.scopeSelector.matchExpressions", set()
    for each in chosen.get("matchExpressions") or ():
        scope, operator, values = each.get("scopeName", ""), each.get("operator", ""), each.get("values") or []
        if scope not in _SCOPES:
            causes.append(invalid_value(f"{at}.scopeName", scope, "unsupported scope"))
        for name in sorted(hard):
            if name in amounts.STANDARD and not _applies(scope, name):
                causes.append(invalid_value(at, chosen, "unsupported scope applied to resource"))
        if scope in _ONLY_EXIST and operator != "Exists":
            text = (
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
                "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
                "ResourceQuotaScopeCrossNamespacePodAffinity"
            )
            causes.append(invalid_value(f"{at}.operator", operator, text))
        if operator in ("In", "NotIn"):
            if not values:
                text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                causes.append(required(f"{at}.values", text))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                causes.append(invalid_value(f"{at}.values", values, text))
        else:
            causes.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
        seen.add(scope)
    if any(pair <= seen for pair in _OPPOSITES):
        causes.append(invalid_value("spec.scopes", None, "conflicting scopes"))


def quota_changes(new: Object, old: Object) -> list[Cause]:
    """A quota's scopes do not change."""
    now, was = ((each.get("spec") or {}).get("scopes") or [] for each in (new, old))
    return [] if set(now) == set(was) else [invalid_value("spec.scopes", now, IMMUTABLE)]


BY_KIND = {("", "LimitRange"): limit_range, ("", "ResourceQuota"): resource_quota}
