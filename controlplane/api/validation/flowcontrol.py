"""Rules for flowcontrol.apiserver.k8s.io: which requests a FlowSchema is about, and how many a level takes."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import Object, at_least, complain

Each = Mapping[str, Any]
GROUP = "flowcontrol.apiserver.k8s.io"
_VERBS = frozenset(
    ("get", "list", "create", "update", "delete", "deletecollection", "watch", "patch", "proxy", "connect", "*")
)
_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}
_HIGHEST_PRECEDENCE = 10000


def flow_schema(obj: Object) -> list[Cause]:
    """FlowSchema."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    precedence = spec.get("matchingPrecedence", 0)
    if precedence <= 0:
        causes.append(invalid_value("spec.matchingPrecedence", precedence, "must be a positive value"))
    if precedence > _HIGHEST_PRECEDENCE:
        text = f"must not be greater than {_HIGHEST_PRECEDENCE}"
        causes.append(invalid_value("spec.matchingPrecedence", precedence, text))
    name = (obj.get("metadata") or {}).get("name")
    if precedence == 1 and name != "exempt":
        text = "only the schema named 'exempt' may have matchingPrecedence 1"
        causes.append(invalid_value("spec.matchingPrecedence", precedence, text))
    method = (spec.get("distinguisherMethod") or {}).get("type")
    if method is not None and method not in ("ByNamespace", "ByUser"):
        causes.append(not_supported("spec.distinguisherMethod.type", method, ("ByNamespace", "ByUser")))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
    if not level:
        causes.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    else:
        complain(causes, "spec.priorityLevelConfiguration.name", level, names.dns1123_subdomain(level))
    for index, rule in enumerate(spec.get("rules") or ()):
        _rule(causes, rule, f"spec.rules[{index}]")
    return causes


def _rule(causes: list[Cause], rule: Each, at: str) -> None:
    if not rule.get("subjects"):
        causes.append(required(f"{at}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or ()):
        where, kind = f"{at}.subjects[{index}]", subject.get("kind", "")
        if kind not in _SUBJECTS:
            causes.append(not_supported(f"{where}.kind", kind, tuple(_SUBJECTS)))
            continue
        field = _SUBJECTS[kind]
        found = subject.get(field)
        if found is None:
            causes.append(required(f"{where}.{field}", f"{field} is required when subject kind is '{kind}'"))
        elif not found.get("name"):
            causes.append(required(f"{where}.{field}.name"))
        for other_kind, other in _SUBJECTS.items():
            if other != field and subject.get(other) is not None:
                text = f"{other} is forbidden when subject kind is not '{other_kind}'"
                causes.append(forbidden_field(f"{where}.{other}", text))
    resources, others = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resources and not others:
        text = "at least one of resourceRules and nonResourceRules has to be non-empty"
        causes.append(required(at, text))
    for index, each in enumerate(resources):
        where = f"{at}.resourceRules[{index}]"
        _verbs(causes, each, where)
        _some(causes, each, where, "apiGroups", "resource rules must supply at least one api group")
        _some(causes, each, where, "resources", "resource rules must supply at least one resource")
        if not each.get("namespaces") and not each.get("clusterScope"):
            text = "resource rules that are not cluster scoped must supply at least one namespace"
            causes.append(required(f"{where}.namespaces", text))
    for index, each in enumerate(others):
        where = f"{at}.nonResourceRules[{index}]"
        _verbs(causes, each, where)
        _some(causes, each, where, "nonResourceURLs", "nonResourceURLs must contain at least one value")


def _some(causes: list[Cause], rule: Each, at: str, field: str, detail: str) -> None:
    values = rule.get(field) or []
    if not values:
        causes.append(required(f"{at}.{field}", detail))
    elif "*" in values and len(values) > 1:
        text = "if '*' is present, must not specify other " + {"apiGroups": "api groups"}.get(field, field)
        causes.append(invalid_value(f"{at}.{field}", values, text))


def _verbs(causes: list[Cause], rule: Each, at: str) -> None:
    values = rule.get("verbs") or []
    if not values:
        causes.append(required(f"{at}.verbs", "verbs must contain at least one value"))
    elif "*" in values and len(values) > 1:
        text = "if '*' is present, must not specify other verbs"
        causes.append(invalid_value(f"{at}.verbs", values, text))
    else:
        bad = [verb for verb in values if verb not in _VERBS]
        if bad:
            causes.append(not_supported(f"{at}.verbs", values, _VERBS))


def priority_level(obj: Object) -> list[Cause]:
    """PriorityLevelConfiguration: limited, or exempt from limits."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    kind, limited, exempt = spec.get("type", ""), spec.get("limited"), spec.get("exempt")
    if kind == "Exempt":
        if limited is not None:
            causes.append(forbidden_field("spec.limited", "must be nil if the type is not Limited"))
        _shares(causes, exempt or {}, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            causes.append(forbidden_field("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            causes.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _limited(causes, limited, "spec.limited")
    else:
        causes.append(not_supported("spec.type", kind, ("Exempt", "Limited")))
    return causes


def _shares(causes: list[Cause], found: Each, at: str) -> None:
    at_least(causes, found, at, 0, "nominalConcurrencyShares")
    share = found.get("lendablePercent")
    if share is not None and not 0 <= share <= 100:
        text = "must be between 0 and 100, inclusive"
        causes.append(invalid_value(f"{at}.lendablePercent", share, text))


def _limited(causes: list[Cause], limited: Each, at: str) -> None:
    _shares(causes, limited, at)
    borrowed = limited.get("borrowingLimitPercent")
    if borrowed is not None and borrowed < 0:
        text = "if specified, must be a non-negative integer"
        causes.append(invalid_value(f"{at}.borrowingLimitPercent", borrowed, text))
    response = limited.get("limitResponse") or {}
    where, kind, queuing = f"{at}.limitResponse", response.get("type", ""), response.get("queuing")
    if kind == "Reject":
        if queuing is not None:
            causes.append(forbidden_field(f"{where}.queuing", "must be nil if limited.limitResponse.type is not Queue"))
    elif kind == "Queue":
        if queuing is None:
            text = "must not be empty if limited.limitResponse.type is Queue"
            causes.append(required(f"{where}.queuing", text))
        else:
            _queues(causes, queuing, f"{where}.queuing")
    else:
        causes.append(not_supported(f"{where}.type", kind, ("Queue", "Reject")))


def _queues(causes: list[Cause], queuing: Each, at: str) -> None:
    for field in ("queueLengthLimit", "queues", "handSize"):
        if queuing.get(field, 0) <= 0:
            causes.append(invalid_value(f"{at}.{field}", queuing.get(field, 0), "must be positive"))
    if queuing.get("queues", 0) > 10_000_000:
        causes.append(invalid_value(f"{at}.queues", queuing["queues"], "must not be greater than 10000000"))
    if queuing.get("handSize", 0) > queuing.get("queues", 0):
        text = f"should not be greater than queues ({queuing.get('queues', 0)})"
        causes.append(invalid_value(f"{at}.handSize", queuing["handSize"], text))


BY_KIND = {(GROUP, "FlowSchema"): flow_schema, (GROUP, "PriorityLevelConfiguration"): priority_level}
