"""Rules for where a pod may go: tolerations, affinity, topology spread, scheduling gates."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import complain, selector

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
        value = each.get("value", "")
        if operator in ("Equal", ""):
            if complaints := names.label_value(value):
                causes.append(invalid_value(f"{at}.operator", value, ";".join(complaints)))
        elif operator == "Exists":
            if value:
                text = "value must be empty when `operator` is 'Exists'"
                causes.append(invalid_value(f"{at}.operator", value, text))
        elif operator in ("Lt", "Gt"):
            if not _is_integer(value):
                text = f"must be a valid integer when `operator` is '{operator}'"
                causes.append(invalid_value(f"{at}.value", value, text))
        else:
            causes.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in EFFECTS:
            causes.append(not_supported(f"{at}.effect", effect, EFFECTS))


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and -(2**63) <= int(text) < 2**63


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
            _term(causes, each.get("preference") or {}, f"{where}.preference", strict=False)
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


def _term(causes: list[Cause], term: Each, path: str, *, strict: bool = True) -> None:
    for index, each in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
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
        key = each.get("key", "")
        complain(causes, f"{at}.key", key, names.qualified_name(key))
        for place, value in enumerate(values if strict else ()):
            complain(causes, f"{at}.values[{place}]", value, names.label_value(value))
    for index, each in enumerate(term.get("matchFields") or ()):
        _field(causes, each, f"{path}.matchFields[{index}]")


def _field(causes: list[Cause], each: Each, at: str) -> None:
    """A condition on a node's own fields, of which there is one: its name."""
    operator, key, values = each.get("operator", ""), each.get("key", ""), each.get("values") or ()
    if operator not in ("In", "NotIn"):
        causes.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        causes.append(required(f"{at}.values", text))
    if key != "metadata.name":
        causes.append(invalid_value(f"{at}.key", key, "not a valid field selector key"))
        return
    for place, value in enumerate(values):
        complain(causes, f"{at}.values[{place}]", value, names.dns1123_subdomain(value))


def _weight(causes: list[Cause], each: Each, path: str) -> None:
    weight = each.get("weight", 0)
    if not 1 <= weight <= 100:
        causes.append(invalid_value(f"{path}.weight", weight, "must be in the range 1-100"))


def _pod_term(causes: list[Cause], term: Each, path: str) -> None:
    chosen = term.get("labelSelector")
    causes += selector(chosen, f"{path}.labelSelector")
    causes += selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for name in term.get("namespaces") or ():
        complain(causes, f"{path}.namespace", name, names.dns1123_label(name))
    matched, mismatched = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    for field, keys in (("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)):
        if keys and chosen is None:
            text = "must not be specified when labelSelector is not set"
            causes.append(forbidden_field(f"{path}.{field}", text))
        for index, key in enumerate(keys if chosen is not None else ()):
            complain(causes, f"{path}.{field}[{index}]", key, names.qualified_name(key))
    if matched and chosen is not None:
        _both(causes, matched, chosen, path)
    for index, key in enumerate(matched):
        if key in mismatched:
            text = "exists in both matchLabelKeys and mismatchLabelKeys"
            causes.append(invalid_value(f"{path}.matchLabelKeys[{index}]", key, text))
    key = term.get("topologyKey", "")
    if not key:
        causes.append(required(f"{path}.topologyKey", "can not be empty"))
    complain(causes, f"{path}.topologyKey", key, names.qualified_name(key))


def _both(causes: list[Cause], matched: Sequence[str], chosen: Each, path: str) -> None:
    """Keys that the server has put into the selector, and the client too."""
    seen = set(chosen.get("matchLabels") or ())
    for expression in chosen.get("matchExpressions") or ():
        key = expression.get("key", "")
        if key in matched and key in seen:
            text = "exists in both matchLabelKeys and labelSelector"
            causes.append(invalid_value(f"{path}[{matched.index(key)}]", key, text))
        seen.add(key)


_ACTIONS, _POLICIES = ("DoNotSchedule", "ScheduleAnyway"), ("Honor", "Ignore")


def spread(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A pod's topologySpreadConstraints."""
    pairs = [(each.get("topologyKey", ""), each.get("whenUnsatisfiable", "")) for each in found]
    for index, each in enumerate(found):
        at, (key, action) = f"{path}[{index}]", pairs[index]
        if each.get("maxSkew", 0) <= 0:
            causes.append(invalid_value(f"{at}.maxSkew", each.get("maxSkew", 0), "must be greater than zero"))
        if not key:
            causes.append(required(f"{at}.topologyKey", "can not be empty"))
        if action not in _ACTIONS:
            causes.append(not_supported(f"{at}.whenUnsatisfiable", action, _ACTIONS))
        if pairs[index] in pairs[index + 1 :]:
            causes.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        least = each.get("minDomains")
        if least is not None:
            if least <= 0:
                causes.append(invalid_value(f"{at}.minDomains", least, "must be greater than zero"))
            if action != "DoNotSchedule":
                text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                causes.append(invalid_value(f"{at}.minDomains", least, text))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if each.get(field) is not None and each[field] not in _POLICIES:
                causes.append(not_supported(f"{at}.{field}", each[field], _POLICIES))
        chosen = each.get("labelSelector")
        if each.get("matchLabelKeys"):
            _spread_keys(causes, each["matchLabelKeys"], chosen, f"{at}.matchLabelKeys")
        causes += selector(chosen, f"{at}.labelSelector")


def _spread_keys(causes: list[Cause], keys: Sequence[str], chosen: Each | None, at: str) -> None:
    if chosen is None:
        causes.append(forbidden_field(at, "must not be specified when labelSelector is not set"))
    found = chosen or {}
    used = {*(found.get("matchLabels") or ()), *(e.get("key") for e in found.get("matchExpressions") or ())}
    for index, key in enumerate(keys):
        complain(causes, f"{at}[{index}]", key, names.qualified_name(key))
        if key in used:
            causes.append(invalid_value(f"{at}[{index}]", key, "exists in both matchLabelKeys and labelSelector"))


def gates(causes: list[Cause], found: Sequence[Each], path: str) -> None:
    """A pod's schedulingGates."""
    seen = set()
    for index, gate in enumerate(found):
        name = gate.get("name", "")
        complain(causes, f"{path}[{index}]", name, names.qualified_name(name))
        if name in seen:
            causes.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)
