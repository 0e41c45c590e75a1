"""Rules for autoscalers: bounds, metrics with their targets, and how fast they may scale."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import Object, at_least, named, selector

Each = Mapping[str, Any]
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_LONGEST_WINDOW, _LONGEST_PERIOD = 3600, 1800


def autoscaler(obj: Object) -> list[Cause]:
    """HorizontalPodAutoscaler, in any of its versions."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if least is not None and least < 1:
        causes.append(invalid_value("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        causes.append(invalid_value("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        text = "must be greater than or equal to `minReplicas`"
        causes.append(invalid_value("spec.maxReplicas", most, text))
    _target_reference(causes, spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
    at_least(causes, spec, "spec", 1, "targetCPUUtilizationPercentage")
    for index, metric in enumerate(spec.get("metrics") or ()):
        _metric(causes, metric, f"spec.metrics[{index}]")
    for side in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(side)
        if rules is not None:
            _scaling(causes, rules, f"spec.behavior.{side}")
    return causes


def _target_reference(causes: list[Cause], found: Each, at: str) -> None:
    for field in ("kind", "name"):
        named(causes, found.get(field), f"{at}.{field}", names.path_segment)


def _metric(causes: list[Cause], metric: Each, at: str) -> None:
    kind = metric.get("type", "")
    if not kind:
        causes.append(required(f"{at}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        causes.append(not_supported(f"{at}.type", kind, tuple(_SOURCES)))
    present = [field for field in _SOURCES.values() if field in metric]
    if present:
        _SOURCE_RULES[present[0]](causes, metric[present[0]], f"{at}.{present[0]}")
    expected = _SOURCES.get(kind, kind[:1].lower() + kind[1:])
    if expected not in present:
        causes.append(required(f"{at}.{expected}", "must populate information for the given metric source"))
    if len(present) != 1:
        text = "must populate the given metric source only"
        causes += [forbidden_field(f"{at}.{field}", text) for field in present if field != expected]


def _object(causes: list[Cause], source: Each, at: str) -> None:
    _target_reference(causes, source.get("describedObject") or {}, f"{at}.describedObject")
    _identifier(causes, source, at)
    target = _target(causes, source, at)
    if "value" not in target and "averageValue" not in target:
        text = "must set either a target value for metric or a per-pod target"
        causes.append(required(f"{at}.target.averageValue", text))


def _external(causes: list[Cause], source: Each, at: str) -> None:
    _identifier(causes, source, at)
    target = _target(causes, source, at)
    if "value" not in target and "averageValue" not in target:
        text = "must set either a target value for metric or a per-pod target"
        causes.append(required(f"{at}.target.averageValue", text))
    if "value" in target and "averageValue" in target:
        text = "may not set both a target value for metric and a per-pod target"
        causes.append(forbidden_field(f"{at}.target.value", text))


def _pods(causes: list[Cause], source: Each, at: str) -> None:
    _identifier(causes, source, at)
    target = _target(causes, source, at)
    if quantity.parse(target.get("averageValue", "0")) <= quantity.ZERO:
        causes.append(required(f"{at}.target.averageValue", "must specify a positive target averageValue"))


def _resource(causes: list[Cause], source: Each, at: str) -> None:
    if not source.get("name"):
        causes.append(required(f"{at}.name", "must specify a resource name"))
    target = _target(causes, source, at)
    if "averageUtilization" not in target and "averageValue" not in target:
        text = "must set either a target raw value or a target utilization"
        causes.append(required(f"{at}.target.averageUtilization", text))
    if "averageUtilization" in target and "averageValue" in target:
        text = "may not set both a target raw value and a target utilization"
        causes.append(forbidden_field(f"{at}.target.averageValue", text))


def _container_resource(causes: list[Cause], source: Each, at: str) -> None:
    if not source.get("container"):
        causes.append(required(f"{at}.container", "must specify a container"))
    _resource(causes, source, at)


_SOURCE_RULES = {
    "containerResource": _container_resource,
    "external": _external,
    "object": _object,
    "pods": _pods,
    "resource": _resource,
}


def _identifier(causes: list[Cause], source: Each, at: str) -> None:
    metric = source.get("metric") or {}
    if not metric.get("name"):
        causes.append(required(f"{at}.metric.name", "must specify a metric name"))
    else:
        named(causes, metric["name"], f"{at}.metric.name", names.path_segment)
    causes += selector(metric.get("selector"), f"{at}.metric.selector")


def _target(causes: list[Cause], source: Each, at: str) -> Each:
    target: Each = source.get("target") or {}
    kind = target.get("type", "")
    if not kind:
        causes.append(required(f"{at}.target.type", "must specify a metric target type"))
    elif kind not in ("Utilization", "Value", "AverageValue"):
        text = "must be either Utilization, Value, or AverageValue"
        causes.append(invalid_value(f"{at}.target.type", kind, text))
    for field in ("value", "averageValue"):
        if field in target and quantity.parse(target[field]) <= quantity.ZERO:
            causes.append(invalid_value(f"{at}.target.{field}", target[field], "must be positive"))
    at_least(causes, target, f"{at}.target", 1, "averageUtilization")
    return target


def _scaling(causes: list[Cause], rules: Each, at: str) -> None:
    at_least(causes, rules, at, 0, "stabilizationWindowSeconds")
    window = rules.get("stabilizationWindowSeconds") or 0
    if window > _LONGEST_WINDOW:
        text = f"must be less than or equal to {_LONGEST_WINDOW}"
        causes.append(invalid_value(f"{at}.stabilizationWindowSeconds", window, text))
    chosen = rules.get("selectPolicy")
    if chosen is not None and chosen not in ("Disabled", "Max", "Min"):
        causes.append(not_supported(f"{at}.selectPolicy", chosen, ("Disabled", "Max", "Min")))
    if not rules.get("policies"):
        causes.append(required(f"{at}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(rules.get("policies") or ()):
        where = f"{at}.policies[{index}]"
        if policy.get("type", "") not in ("Percent", "Pods"):
            causes.append(not_supported(f"{where}.type", policy.get("type", ""), ("Percent", "Pods")))
        for field in ("value", "periodSeconds"):
            if policy.get(field, 0) <= 0:
                causes.append(invalid_value(f"{where}.{field}", policy.get(field, 0), "must be greater than zero"))
        if policy.get("periodSeconds", 0) > _LONGEST_PERIOD:
            text = f"must be less than or equal to {_LONGEST_PERIOD}"
            causes.append(invalid_value(f"{where}.periodSeconds", policy["periodSeconds"], text))


BY_KIND = {("autoscaling", "HorizontalPodAutoscaler"): autoscaler}
