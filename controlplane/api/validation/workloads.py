"""Rules for workloads: apps/v1, batch/v1, the replication controller, autoscalers and disruption budgets."""

import re
from collections.abc import Mapping
from typing import Any

from controlplane.api import jobs, names
from controlplane.api.selectors import from_selector
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import (
    Object,
    at_least,
    empty_selector,
    int_or_percent,
    is_zero,
    maybe_one_of,
    named,
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
    causes = _replicated(spec, "daemonset")
    at_least(causes, spec, "spec", 0, "minReadySeconds", "revisionHistoryLimit")
    strategy = spec.get("updateStrategy") or {}
    one_of(causes, strategy, "spec.updateStrategy", "type", ("OnDelete", "RollingUpdate"))
    if strategy.get("type") == "RollingUpdate":
        path = "spec.updateStrategy.rollingUpdate"
        rolling = strategy.get("rollingUpdate") or {}
        for field in ("maxUnavailable", "maxSurge"):
            causes += int_or_percent(rolling.get(field, 0), f"{path}.{field}")
        unavailable, surge = is_zero(rolling.get("maxUnavailable", 0)), is_zero(rolling.get("maxSurge", 0))
        if unavailable and surge:
            causes.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
        elif not unavailable and not surge:
            text = "may not be set when maxUnavailable is non-zero"
            causes.append(invalid_value(f"{path}.maxSurge", rolling["maxSurge"], text))
    return causes


def stateful_set(obj: Object) -> list[Cause]:
    """apps/v1 StatefulSet."""
    spec = obj.get("spec") or {}
    causes = _replicated(_with_claims(spec), "statefulset")
    at_least(causes, spec, "spec", 0, "minReadySeconds")
    one_of(causes, spec, "spec", "podManagementPolicy", ("OrderedReady", "Parallel"))
    strategy = spec.get("updateStrategy") or {}
    one_of(causes, strategy, "spec.updateStrategy", "type", ("OnDelete", "RollingUpdate"))
    if strategy.get("type") == "RollingUpdate":
        at_least(causes, strategy.get("rollingUpdate") or {}, "spec.updateStrategy.rollingUpdate", 0, "partition")
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field in ("whenDeleted", "whenScaled"):
        maybe_one_of(causes, retention, "spec.persistentVolumeClaimRetentionPolicy", field, ("Retain", "Delete"))
    at_least(causes, spec.get("ordinals") or {}, "spec.ordinals", 0, "start")
    return causes


def _with_claims(spec: Each) -> Each:
    """The spec as its pods will have it: each claim's template is a volume, instead of one of its name."""
    claims = [(each.get("metadata") or {}).get("name") for each in spec.get("volumeClaimTemplates") or ()]
    found = spec.get("template") or {}
    if not any(claims) or not found.get("spec"):
        return spec
    own = [each for each in found["spec"].get("volumes") or () if each.get("name") not in claims]
    made = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in dict.fromkeys(claims) if name]
    return {**spec, "template": {**found, "spec": {**found["spec"], "volumes": own + made}}}


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
    return causes + template(found, "spec.template") + _restarts(found, "spec.template", ("Always",))


def _replicated(spec: Each, what: str) -> list[Cause]:
    causes: list[Cause] = []
    at_least(causes, spec, "spec", 0, "replicas")
    chosen = spec.get("selector")
    complaints = selector(chosen, "spec.selector")
    if chosen is None:
        causes.append(required("spec.selector"))
    else:
        causes += complaints
        if empty_selector(chosen):
            causes.append(invalid_value("spec.selector", chosen, f"empty selector is invalid for {what}"))
    found = spec.get("template") or {}
    if chosen and not complaints and not empty_selector(chosen):
        worn = (found.get("metadata") or {}).get("labels") or {}
        if not from_selector(chosen).matches(worn):
            text = "`selector` does not match template `labels`"
            causes.append(invalid_value("spec.template.metadata.labels", worn, text))
    causes += template(found, "spec.template")
    causes += _restarts(found, "spec.template", ("Always",))
    if (found.get("spec") or {}).get("activeDeadlineSeconds") is not None:
        text = "activeDeadlineSeconds in ReplicaSet is not Supported"
        causes.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", text))
    return causes


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
    if isinstance(unavailable, str) and unavailable[:-1].isdecimal() and int(unavailable[:-1]) > 100:
        causes.append(invalid_value(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%"))


def job(obj: Object) -> list[Cause]:
    """batch/v1 Job, with the selector and labels that the API server has made."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    job_spec(causes, spec, "spec")
    chosen = spec.get("selector")
    if chosen is None:
        return [*causes, required("spec.selector")]
    if complaints := selector(chosen, "spec.selector"):
        return causes + complaints
    chosen_by = from_selector(chosen)
    worn = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not chosen_by.matches(worn):
        text = "`selector` does not match template `labels`"
        causes.append(invalid_value("spec.template.metadata.labels", worn, text))
    if jobs.is_manual(obj):
        return causes
    expected = jobs.expected_labels(obj)
    for key, value in expected.items():
        at = f"spec.template.metadata.labels[{key}]"
        if key not in worn:
            causes.append(required(at, f"must be '{value}'"))
        elif worn[key] != value:
            causes.append(invalid_value(at, worn, f"must be '{value}'"))
    if not chosen_by.matches(expected):
        causes.append(invalid_value("spec.selector", chosen, "`selector` not auto-generated"))
    return causes


def job_spec(causes: list[Cause], spec: Each, path: str) -> None:
    """The spec of a Job, or of a CronJob's template."""
    at_least(
        causes,
        spec,
        path,
        0,
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    )
    maybe_one_of(causes, spec, path, "completionMode", ("NonIndexed", "Indexed"))
    maybe_one_of(causes, spec, path, "podReplacementPolicy", ("Failed", "TerminatingOrFailed"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        causes.append(required(f"{path}.completions", "when completion mode is Indexed"))
    found = spec.get("template") or {}
    causes += template(found, f"{path}.template")
    causes += _restarts(found, f"{path}.template", ("OnFailure", "Never"))


def cron_job(obj: Object) -> list[Cause]:
    """batch/v1 CronJob."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif complaint := _schedule(schedule):
        causes.append(invalid_value("spec.schedule", schedule, complaint))
    at_least(causes, spec, "spec", 0, "startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    one_of(causes, spec, "spec", "concurrencyPolicy", ("Allow", "Forbid", "Replace"))
    wanted = (spec.get("jobTemplate") or {}).get("spec") or {}
    job_spec(causes, wanted, "spec.jobTemplate.spec")
    if wanted.get("selector") is not None:
        text = "`selector` will be auto-generated"
        causes.append(invalid_value("spec.jobTemplate.spec.selector", wanted["selector"], text))
    if wanted.get("manualSelector"):
        causes.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    return causes


_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_CRON_PART = re.compile(
    r"(\*|\?|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?(,(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?)*"
)


def _schedule(text: str) -> str:
    if "TZ" in text:
        return "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    if text.startswith("@"):
        return "" if text in _MACROS or text.startswith("@every ") else f"unrecognized descriptor: {text}"
    parts = text.split()
    if len(parts) != 5:
        return f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]"
    return next((f"failed to parse {part}" for part in parts if not _CRON_PART.fullmatch(part)), "")


def autoscaler(obj: Object) -> list[Cause]:
    """autoscaling HorizontalPodAutoscaler."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    at_least(causes, spec, "spec", 1, "minReplicas")
    if most < 1:
        causes.append(invalid_value("spec.maxReplicas", most, "must be greater than 0"))
    elif least is not None and most < least:
        text = "must be greater than or equal to `minReplicas`"
        causes.append(invalid_value("spec.maxReplicas", most, text))
    target = spec.get("scaleTargetRef") or {}
    for field in ("kind", "name"):
        named(causes, target.get(field), f"spec.scaleTargetRef.{field}", names.path_segment)
    at_least(causes, spec, "spec", 1, "targetCPUUtilizationPercentage")
    for index, metric in enumerate(spec.get("metrics") or ()):
        at = f"spec.metrics[{index}]"
        kinds = ("Object", "Pods", "Resource", "External", "ContainerResource")
        one_of(causes, metric, at, "type", kinds)
        kind = metric.get("type", "")
        field = kind[:1].lower() + kind[1:]
        if kind in kinds and field not in metric:
            causes.append(required(f"{at}.{field}", "must populate information for the given metric source"))
    return causes


def disruption_budget(obj: Object) -> list[Cause]:
    """policy/v1 PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        if field in spec:
            causes += int_or_percent(spec[field], f"spec.{field}")
    causes += selector(spec.get("selector"), "spec.selector")
    maybe_one_of(causes, spec, "spec", "unhealthyPodEvictionPolicy", ("IfHealthyBudget", "AlwaysAllow"))
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
    ("batch", "Job"): job,
    ("batch", "CronJob"): cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaler,
    ("policy", "PodDisruptionBudget"): disruption_budget,
}
