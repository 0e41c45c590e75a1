"""Rules for workloads that keep running: apps/v1, the replication controller, and disruption budgets."""

from collections.abc import Mapping
from typing import Any

from controlplane.api.selectors import from_selector
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation import metadata
from controlplane.api.validation.common import (
    Object,
    at_least,
    empty_selector,
    int_or_percent,
    is_zero,
    maybe_one_of,
    need,
    one_of,
    selector,
)
from controlplane.api.validation.pods import template

Each = Mapping[str, Any]


def deployment(obj: Object) -> list[Cause]:
    """apps/v1 Deployment."""
    spec = obj.get("spec") or {}
    causes = _replicated(spec, "deployment")
    at_least(causes, spec, "spec", 0, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    strategy = spec.get("strategy") or {}
    one_of(causes, strategy, "spec.strategy", "type", ("Recreate", "RollingUpdate"))
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        text = "may not be specified when strategy `type` is 'Recreate'"
        causes.append(forbidden_field("spec.strategy.rollingUpdate", text))
    elif strategy.get("type") == "RollingUpdate":
        _rolling(causes, strategy.get("rollingUpdate") or {}, "spec.strategy.rollingUpdate")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        causes.append(invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes


def replica_set(obj: Object) -> list[Cause]:
    """apps/v1 ReplicaSet."""
    spec = obj.get("spec") or {}
    causes = _replicated(spec, "deployment")
    at_least(causes, spec, "spec", 0, "minReadySeconds")
    return causes


def daemon_set(obj: Object) -> list[Cause]:
    """apps/v1 DaemonSet."""
    spec = obj.get("spec") or {}
    causes = _replicated(spec, "daemonset", "DaemonSet")
    at_least(causes, spec, "spec", 0, "minReadySeconds", "revisionHistoryLimit")
    strategy = spec.get("updateStrategy") or {}
    one_of(causes, strategy, "spec.updateStrategy", "type", ("OnDelete", "RollingUpdate"))
    if strategy.get("type") == "RollingUpdate":
        path = "spec.updateStrategy.rollingUpdate"
        rolling = strategy.get("rollingUpdate") or {}
        for field in ("maxUnavailable", "maxSurge"):
            causes += int_or_percent(rolling.get(field, 0), f"{path}.{field}")
            _not_above_all(causes, rolling.get(field, 0), f"{path}.{field}")
        unavailable, surge = is_zero(rolling.get("maxUnavailable", 0)), is_zero(rolling.get("maxSurge", 0))
        if unavailable and surge:
            causes.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
        elif not unavailable and not surge:
            text = "may not be set when maxUnavailable is non-zero"
            causes.append(invalid_value(f"{path}.maxSurge", rolling["maxSurge"], text))
    return causes


def stateful_set(obj: Object) -> list[Cause]:
    """apps/v1 StatefulSet. Its pods' spec is judged when they are made: only then it has its claims' volumes."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    policy = spec.get("podManagementPolicy", "")
    if not policy:
        causes.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        causes.append(invalid_value("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    strategy, at = spec.get("updateStrategy") or {}, "spec.updateStrategy"
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if not kind:
        causes.append(required(at))
    elif kind == "OnDelete":
        if rolling is not None:
            text = "only allowed for updateStrategy 'RollingUpdate'"
            causes.append(invalid_value(f"{at}.rollingUpdate", rolling, text))
    elif kind != "RollingUpdate":
        causes.append(invalid_value(at, strategy, "must be 'RollingUpdate' or 'OnDelete'"))
    elif rolling is not None:
        at_least(causes, rolling, f"{at}.rollingUpdate", 0, "partition")
        if rolling.get("maxUnavailable") is not None:
            most, where = rolling["maxUnavailable"], f"{at}.rollingUpdate.maxUnavailable"
            causes += int_or_percent(most, where)
            if is_zero(most):
                causes.append(invalid_value(where, most, "cannot be 0"))
            _not_above_all(causes, most, where)
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field in ("whenDeleted", "whenScaled"):
        maybe_one_of(causes, retention, "spec.persistentVolumeClaimRetentionPolicy", field, ("Retain", "Delete"))
    at_least(causes, spec, "spec", 0, "replicas", "minReadySeconds")
    at_least(causes, spec.get("ordinals") or {}, "spec.ordinals", 0, "start")
    found = spec.get("template") or {}
    _selects(causes, spec, found, "statefulset")
    meta = found.get("metadata") or {}
    causes += metadata.template(meta, "spec.template")
    causes += _restarts(found, "spec.template", ("Always",))
    _no_deadline(causes, found, "StatefulSet")
    return causes


def replication_controller(obj: Object) -> list[Cause]:
    """v1 ReplicationController, whose selector is a plain map."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    at_least(causes, spec, "spec", 0, "replicas", "minReadySeconds")
    need(causes, spec, "spec", "selector")
    found = spec.get("template")
    if not found:
        return [*causes, required("spec.template")]
    worn = (found.get("metadata") or {}).get("labels") or {}
    if any(worn.get(key) != value for key, value in (spec.get("selector") or {}).items()):
        text = "`selector` does not match template `labels`"
        causes.append(invalid_value("spec.template.metadata.labels", worn, text))
    causes += template(found, "spec.template") + _restarts(found, "spec.template", ("Always",))
    _no_deadline(causes, found, "ReplicationController")
    return causes


def _replicated(spec: Each, what: str, kind: str = "ReplicaSet") -> list[Cause]:
    causes: list[Cause] = []
    at_least(causes, spec, "spec", 0, "replicas")
    found = spec.get("template") or {}
    _selects(causes, spec, found, what)
    causes += template(found, "spec.template")
    causes += _restarts(found, "spec.template", ("Always",))
    _no_deadline(causes, found, kind)
    return causes


def _selects(causes: list[Cause], spec: Each, found: Each, what: str) -> None:
    """The selector is there, and chooses the pods that the template makes."""
    chosen = spec.get("selector")
    if chosen is None:
        causes.append(required("spec.selector"))
        return
    complaints = selector(chosen, "spec.selector")
    causes += complaints
    if empty_selector(chosen):
        causes.append(invalid_value("spec.selector", chosen, f"empty selector is invalid for {what}"))
    elif not complaints:
        worn = (found.get("metadata") or {}).get("labels") or {}
        if not from_selector(chosen).matches(worn):
            text = "`selector` does not match template `labels`"
            causes.append(invalid_value("spec.template.metadata.labels", worn, text))


def _no_deadline(causes: list[Cause], found: Each, kind: str) -> None:
    if (found.get("spec") or {}).get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {kind} is not Supported"
        causes.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", text))


def _restarts(found: Each, path: str, policies: tuple[str, ...]) -> list[Cause]:
    policy = (found.get("spec") or {}).get("restartPolicy")
    if not policy or policy in policies:
        return []
    return [not_supported(f"{path}.spec.restartPolicy", policy, policies)]


def _rolling(causes: list[Cause], rolling: Each, path: str) -> None:
    for field in ("maxUnavailable", "maxSurge"):
        causes += int_or_percent(rolling.get(field, 0), f"{path}.{field}")
    unavailable = rolling.get("maxUnavailable", 0)
    if is_zero(unavailable) and is_zero(rolling.get("maxSurge", 0)):
        causes.append(invalid_value(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    _not_above_all(causes, unavailable, f"{path}.maxUnavailable")


def _not_above_all(causes: list[Cause], value: Any, at: str) -> None:
    if isinstance(value, str) and value[:-1].isdecimal() and int(value[:-1]) > 100:
        causes.append(invalid_value(at, value, "must not be greater than 100%"))


def disruption_budget(obj: Object) -> list[Cause]:
    """policy/v1 PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        if field in spec:
            causes += int_or_percent(spec[field], f"spec.{field}")
            _not_above_all(causes, spec[field], f"spec.{field}")
    causes += selector(spec.get("selector"), "spec.selector")
    maybe_one_of(causes, spec, "spec", "unhealthyPodEvictionPolicy", ("AlwaysAllow", "IfHealthyBudget"))
    return causes


def controller_revision(obj: Object) -> list[Cause]:
    """apps/v1 ControllerRevision."""
    causes: list[Cause] = []
    if "data" not in obj:
        causes.append(required("data", "data is mandatory"))
    at_least(causes, obj, "", 0, "revision")
    return causes


BY_KIND = {
    ("apps", "Deployment"): deployment,
    ("apps", "ReplicaSet"): replica_set,
    ("apps", "DaemonSet"): daemon_set,
    ("apps", "StatefulSet"): stateful_set,
    ("apps", "ControllerRevision"): controller_revision,
    ("", "ReplicationController"): replication_controller,
    ("policy", "PodDisruptionBudget"): disruption_budget,
}
