"""Rules for where a pod may go: tolerations, affinity, topology spread, scheduling gates."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import named, one_of, selector

Each = Mapping[str, Any]
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def tolerations(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A pod's tolerations."""
    for index, each in enumerate(found):
        at = f"{path}[{index}]"
        key, operator, effect = each.get("key", ""), each.get("operator", ""), each.get("effect", "")
        if key:
            causes += [invalid_value(f"{at}.key", key, text) for text in names.qualified_name(key)]
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.append(invalid_value(f"{at}.operator", operator, text))
        if each.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            causes.append(invalid_value(f"{at}.effect", effect, text))
        if operator in ("Equal", ""):
            causes += [
                invalid_value(f"{at}.operator", each.get("value"), t) for t in names.label_value(each.get("value", ""))
            ]
        elif operator == "Exists":
            if each.get("value"):
                text = "value must be empty when `operator` is 'Exists'"
                causes.append(invalid_value(f"{at}.operator", each, text))
        elif operator not in ("Lt", "Gt"):
            causes.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in EFFECTS:
            causes.append(not_supported(f"{at}.effect", effect, EFFECTS))


def affinity(causes: list[Cause], found: Each, path: str) -> None:
    """A pod's affinity to nodes and other pods."""
    node = found.get("nodeAffinity")
    if node:
        at = f"{path}.nodeAffinity"
        must = node.get("requiredDuringSchedulingIgnoredDuringExecution")
        if must is not None:
            node_selector(causes, must, f"{at}.requiredDuringSchedulingIgnoredDuringExecution")
        for index, each in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            where = f"{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            _weight(causes, each, where)
            _term(causes, each.get("preference") or {}, f"{where}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = found.get(kind)
        if not pods:
            continue
        for index, each in enumerate(pods.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            _pod_term(causes, each, f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}]")
        for index, each in enumerate(pods.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            where = f"{path}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            _weight(causes, each, where)
            _pod_term(causes, each.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")


def node_selector(causes: list[Cause], found: Each, path: str) -> None:
    """A v1.NodeSelector: at least one term."""
    terms = found.get("nodeSelectorTerms") or ()
    if not terms:
        causes.append(required(f"{path}.nodeSelectorTerms", "must have at least one node selector term"))
    for index, term in enumerate(terms):
        _term(causes, term, f"{path}.nodeSelectorTerms[{index}]")


def _term(causes: list[Cause], term: Each, path: str) -> None:
    for kind in ("matchExpressions", "matchFields"):
        for index, each in enumerate(term.get(kind) or ()):
            at = f"{path}.{kind}[{index}]"
            operator, values = each.get("operator", ""), each.get("values") or ()
            if operator in ("In", "NotIn"):
                if not values:
                    causes.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
            elif operator in ("Exists", "DoesNotExist"):
                if values:
                    text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    causes.append(forbidden_field(f"{at}.values", text))
            elif operator in ("Gt", "Lt"):
                if len(values) != 1:
                    text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                    causes.append(required(f"{at}.values", text))
            else:
                causes.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
            named(causes, each.get("key"), f"{at}.key", names.qualified_name)


def _weight(causes: list[Cause], each: Each, path: str) -> None:
    weight = each.get("weight", 0)
    if not 1 <= weight <= 100:
        causes.append(invalid_value(f"{path}.weight", weight, "must be in the range 1-100"))


def _pod_term(causes: list[Cause], term: Each, path: str) -> None:
    causes += selector(term.get("labelSelector"), f"{path}.labelSelector")
    causes += selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for name in term.get("namespaces") or ():
        causes += [invalid_value(f"{path}.namespace", name, each) for each in names.dns1123_label(name)]
    _topology_key(causes, term, path)


def _topology_key(causes: list[Cause], term: Each, path: str) -> None:
    key = term.get("topologyKey", "")
    if not key:
        causes.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        causes += [invalid_value(f"{path}.topologyKey", key, each) for each in names.qualified_name(key)]


def spread(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A pod's topologySpreadConstraints."""
    seen = set()
    for index, each in enumerate(found):
        at = f"{path}[{index}]"
        if each.get("maxSkew", 0) <= 0:
            causes.append(invalid_value(f"{at}.maxSkew", each.get("maxSkew", 0), "must be greater than zero"))
        _topology_key(causes, each, at)
        one_of(causes, each, at, "whenUnsatisfiable", ("DoNotSchedule", "ScheduleAnyway"))
        least = each.get("minDomains")
        if least is not None and least <= 0:
            causes.append(invalid_value(f"{at}.minDomains", least, "must be greater than zero"))
        pair = (each.get("topologyKey"), each.get("whenUnsatisfiable"))
        if pair in seen:
            causes.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}"))
        seen.add(pair)
        causes += selector(each.get("labelSelector"), f"{at}.labelSelector")


def gates(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A pod's schedulingGates."""
    seen = set()
    for index, gate in enumerate(found):
        name = gate.get("name")
        if named(causes, name, f"{path}[{index}]", names.qualified_name) and name in seen:
            causes.append(duplicate(f"{path}[{index}].name", name))
        seen.add(name)
