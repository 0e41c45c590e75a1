"""Rules for batch/v1: Jobs, with their policies about failure and success, and CronJobs."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import jobs, names
from controlplane.api.selectors import from_selector
from controlplane.api.status import Cause, duplicate, invalid_value, not_supported, required, too_long, too_many
from controlplane.api.validation.common import (
    IMMUTABLE,
    Object,
    at_least,
    complain,
    maybe_one_of,
    one_of,
    same,
    selector,
)
from controlplane.api.validation.cron import complaint, zone_complaint
from controlplane.api.validation.pods import template

Each = Mapping[str, Any]
_MOST_PODS, _MOST_WITH_BACKOFF, _MOST_RULES, _MOST_CODES = 100_000, 10_000, 20, 255
_INDEXED = "requires indexed completion mode"
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_FIXED_BY_MODE = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)
_DIRECTIONS = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def job(obj: Object) -> list[Cause]:
    """Job, with the selector and labels that the API server has made."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    job_spec(causes, spec, "spec")
    name = (obj.get("metadata") or {}).get("name", "")
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        host = f"{name}-{spec['completions'] - 1}"
        texts = [f"will not able to create pod with invalid DNS label: {host}" for _ in names.dns1123_label(host)]
        complain(causes, "metadata.name", name, texts)
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
    at_least(causes, spec, path, 0, "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit",
             "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes")  # fmt: skip
    _modes(causes, spec, path)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        causes.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    policy = spec.get("podFailurePolicy")
    if policy is not None:
        _failure_policy(causes, policy, spec, path)
    if spec.get("successPolicy") is not None:
        _success_policy(causes, spec["successPolicy"], spec, f"{path}.successPolicy")
    replaced = ("Failed",) if policy is not None else ("Failed", "TerminatingOrFailed")
    maybe_one_of(causes, spec, path, "podReplacementPolicy", replaced)
    if spec.get("managedBy") is not None:
        manager = spec["managedBy"]
        complain(causes, f"{path}.managedBy", manager, names.domain_prefixed_path(manager))
        if len(manager.encode()) > 63:
            causes.append(too_long(f"{path}.managedBy", 63))
    found = spec.get("template") or {}
    causes += template(found, f"{path}.template")
    restarts, at = (found.get("spec") or {}).get("restartPolicy", ""), f"{path}.template.spec.restartPolicy"
    if restarts in ("", "Always"):  # the latter is what leaving it out becomes
        causes.append(required(at, 'valid values: "OnFailure", "Never"'))
    elif restarts not in ("OnFailure", "Never"):
        causes.append(not_supported(at, restarts, ("OnFailure", "Never")))
    elif policy is not None and restarts != "Never":
        text = 'only "Never" is supported when podFailurePolicy is specified'
        causes.append(invalid_value(at, restarts, text))


def _modes(causes: list[Cause], spec: Each, path: str) -> None:
    maybe_one_of(causes, spec, path, "completionMode", ("NonIndexed", "Indexed"))
    per_index, most = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes")
    if spec.get("completionMode", "NonIndexed") == "NonIndexed":
        for field, value in (("backoffLimitPerIndex", per_index), ("maxFailedIndexes", most)):
            if value is not None:
                causes.append(invalid_value(f"{path}.{field}", value, _INDEXED))
        return
    if spec.get("completionMode") != "Indexed":
        return
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    if completions is None:
        causes.append(required(f"{path}.completions", "when completion mode is Indexed"))
        return
    if parallelism > _MOST_PODS:
        text = f"must be less than or equal to {_MOST_PODS} when completion mode is Indexed"
        causes.append(invalid_value(f"{path}.parallelism", parallelism, text))
    if most is not None and most > completions:
        causes.append(invalid_value(f"{path}.maxFailedIndexes", most, "must be less than or equal to completions"))
    if most is not None and most > _MOST_PODS:
        causes.append(invalid_value(f"{path}.maxFailedIndexes", most, f"must be less than or equal to {_MOST_PODS}"))
    if per_index is None or completions <= _MOST_PODS:
        return
    if most is None:
        causes.append(required(f"{path}.maxFailedIndexes", f"must be specified when completions is above {_MOST_PODS}"))
    text = (
        f"must be less than or equal to {_MOST_WITH_BACKOFF} when completions are above {_MOST_PODS} and used with "
        "backoff limit per index"
    )
    for field, value in (("parallelism", parallelism), ("maxFailedIndexes", most or 0)):
        if value > _MOST_WITH_BACKOFF:
            causes.append(invalid_value(f"{path}.{field}", value, text))


def _failure_policy(causes: list[Cause], policy: Each, spec: Each, path: str) -> None:
    at = f"{path}.podFailurePolicy.rules"
    rules = policy.get("rules") or ()
    if len(rules) > _MOST_RULES:
        causes.append(too_many(at, len(rules), _MOST_RULES))
        return
    pod = (spec.get("template") or {}).get("spec") or {}
    known = {c.get("name") for kind in ("containers", "initContainers") for c in pod.get(kind) or ()}
    for index, rule in enumerate(rules):
        where, action = f"{at}[{index}]", rule.get("action", "")
        if not action:
            causes.append(required(f"{where}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'))
        elif action not in _ACTIONS:
            causes.append(not_supported(f"{where}.action", action, _ACTIONS))
        elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            causes.append(invalid_value(f"{where}.action", action, "requires the backoffLimitPerIndex to be set"))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or ()
        if codes is not None:
            _exit_codes(causes, codes, f"{where}.onExitCodes", known)
        _conditions(causes, conditions, f"{where}.onPodConditions")
        if codes is not None and conditions:
            text = "specifying both OnExitCodes and OnPodConditions is not supported"
            causes.append(Cause("FieldValueInvalid", where, f"Invalid value: {text}"))
        elif codes is None and not conditions:
            text = "specifying one of OnExitCodes and OnPodConditions is required"
            causes.append(Cause("FieldValueInvalid", where, f"Invalid value: {text}"))


def _exit_codes(causes: list[Cause], codes: Each, at: str, known: set[Any]) -> None:
    operator, values = codes.get("operator", ""), codes.get("values") or []
    if not operator:
        causes.append(required(f"{at}.operator", 'valid values: ["In" "NotIn"]'))
    elif operator not in ("In", "NotIn"):
        causes.append(not_supported(f"{at}.operator", operator, ("In", "NotIn")))
    name = codes.get("containerName")
    if name is not None and name not in known:
        text = "must be one of the container or initContainer names in the pod template"
        causes.append(invalid_value(f"{at}.containerName", name, text))
    if not values:
        causes.append(invalid_value(f"{at}.values", values, "at least one value is required"))
    elif len(values) > _MOST_CODES:
        causes.append(too_many(f"{at}.values", len(values), _MOST_CODES))
    seen = set()
    for index, value in enumerate(values):
        if value == 0 and operator == "In":
            causes.append(invalid_value(f"{at}.values[{index}]", value, "must not be 0 for the In operator"))
        if value in seen:
            causes.append(duplicate(f"{at}.values[{index}]", value))
        seen.add(value)
    if values != sorted(values):
        causes.append(invalid_value(f"{at}.values", values, "must be ordered"))


def _conditions(causes: list[Cause], found: Sequence[Each], at: str) -> None:
    if len(found) > _MOST_RULES:
        causes.append(too_many(at, len(found), _MOST_RULES))
    for index, each in enumerate(found):
        kind = each.get("type", "")
        complain(causes, f"{at}[{index}].type", kind, names.qualified_name(kind))
        one_of(causes, each, f"{at}[{index}]", "status", ("False", "True", "Unknown"))


def _success_policy(causes: list[Cause], policy: Each, spec: Each, path: str) -> None:
    if spec.get("completionMode") != "Indexed":
        causes.append(invalid_value(path, policy, _INDEXED))
        return
    rules, completions = policy.get("rules") or (), spec.get("completions") or 0
    if not rules:
        text = "at least one rules must be specified when the successPolicy is specified"
        causes.append(required(f"{path}.rules", text))
    if len(rules) > _MOST_RULES:
        causes.append(too_many(f"{path}.rules", len(rules), _MOST_RULES))
    for index, rule in enumerate(rules):
        at, count, indexes = f"{path}.rules[{index}]", rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            text = "at least one of succeededCount or succeededIndexes must be specified"
            causes.append(required(at, text))
        total = None
        if indexes is not None:
            total, trouble = _intervals(indexes, completions)
            if trouble:
                text = f"error parsing succeededIndexes: {trouble}"
                causes.append(invalid_value(f"{at}.succeededIndexes", indexes, text))
        at_least(causes, rule, at, 0, "succeededCount")
        if count is not None and count > completions:
            text = f"must be less than or equal to {completions} (the number of specified completions)"
            causes.append(invalid_value(f"{at}.succeededCount", count, text))
        elif count is not None and total is not None and count > total:
            text = (
                f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            )
            causes.append(invalid_value(f"{at}.succeededCount", count, text))


def _intervals(text: str, completions: int) -> tuple[int | None, str]:
    """How many indexes "1,3-5" names, and what is wrong with it."""
    total, last = 0, -1
    for part in text.split(","):
        first, dash, end = part.partition("-")
        if not first.isdecimal() or (dash and not end.isdecimal()):
            return None, f'cannot convert string to integer for index: "{first if not first.isdecimal() else end}"'
        low, high = int(first), int(end or first)
        if low <= last:
            return None, f"non-increasing order, previous: {last}, current: {low}"
        if dash and high <= low:
            return None, f"non-increasing order, previous: {low}, current: {high}"
        if high >= completions:
            return None, f'too large index: "{high}"'
        total, last = total + high - low + 1, high
    return total, ""


def job_changes(new: Object, old: Object) -> list[Cause]:
    """A Job's selector, template and modes do not change; where its pods go may while it is suspended and has not
    begun, an indexed one's completions may together with its parallelism."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    causes: list[Cause] = []
    if after.get("completions") != before.get("completions"):
        together = after.get("completions") == after.get("parallelism")
        if after.get("completionMode") != "Indexed" or not together:
            text = IMMUTABLE if after.get("completionMode") != "Indexed" else (
                "can only be modified in tandem with spec.parallelism"
            )  # fmt: skip
            causes.append(invalid_value("spec.completions", after.get("completions"), text))
    same(causes, after, before, "spec", _FIXED_BY_MODE)
    now, was = after.get("template"), before.get("template")
    if now != was and before.get("suspend") and "startTime" not in (old.get("status") or {}):
        now, was = _undirected(now or {}), _undirected(was or {})
    if now != was:
        causes.append(invalid_value("spec.template", after.get("template"), IMMUTABLE))
    return causes


def _undirected(found: Each) -> Object:
    """A template without what says where its pods go, and how much they ask for."""
    spec = {key: value for key, value in (found.get("spec") or {}).items() if key not in _DIRECTIONS}
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [{key: v for key, v in each.items() if key != "resources"} for each in spec[kind]]
    meta = {key: v for key, v in (found.get("metadata") or {}).items() if key not in ("labels", "annotations")}
    return {**found, "metadata": meta, "spec": spec}


def cron_job(obj: Object) -> list[Cause]:
    """CronJob."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif trouble := complaint(schedule):
        causes.append(invalid_value("spec.schedule", schedule, trouble))
    zone = spec.get("timeZone")
    if zone is not None and (trouble := zone_complaint(zone)):
        causes.append(invalid_value("spec.timeZone", zone, trouble))
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


BY_KIND = {("batch", "Job"): job, ("batch", "CronJob"): cron_job}
