"""Rows of workloads: apps, batch, autoscaling, disruption budgets."""

from typing import Any

from controlplane.api.tables.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    Column,
    at,
    duration,
    joined,
    number,
    pairs,
    seconds_since,
    selector,
    since,
)

Object = dict[str, Any]
SELECTOR = Column("Selector", selector("spec", "selector"), wide=True)


def _ready(obj: Object, now: float) -> str:
    return f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj.get('spec', {}).get('replicas', 1)}"


def _condition(obj: Object, kind: str) -> Object | None:
    for each in obj.get("status", {}).get("conditions") or ():
        if each.get("type") == kind and each.get("status") == "True":
            return dict(each)
    return None


def _job_status(obj: Object, now: float) -> str:
    if _condition(obj, "Complete"):
        return "Complete"
    if _condition(obj, "Failed"):
        return "Failed"
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if _condition(obj, "Suspended"):
        return "Suspended"
    if _condition(obj, "FailureTarget"):
        return "FailureTarget"
    if _condition(obj, "SuccessCriteriaMet"):
        return "SuccessCriteriaMet"
    return "Running"


def _completions(obj: Object, now: float) -> str:
    spec, done = obj.get("spec", {}), obj.get("status", {}).get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism", 0)
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _job_duration(obj: Object, now: float) -> str:
    found = obj.get("status", {})
    began = seconds_since(found.get("startTime"), now)
    if began is None:
        return ""
    ended = seconds_since(found.get("completionTime"), now)
    return duration(began - (ended or 0))


def _last_schedule(obj: Object, now: float) -> str:
    when = obj.get("status", {}).get("lastScheduleTime")
    return since(when, now) if when else "<none>"


def _suspended(obj: Object, now: float) -> str:
    return str(bool(obj.get("spec", {}).get("suspend")))


def _cron_containers(field: str) -> Column:
    def cell(obj: Object, now: float) -> str:
        template = obj.get("spec", {}).get("jobTemplate", {}).get("spec", {}).get("template", {})
        return joined((each.get(field, "") for each in template.get("spec", {}).get("containers") or ()), "")

    return Column("Containers" if field == "name" else "Images", cell, wide=True)


def _node_selector(obj: Object, now: float) -> str:
    return pairs(obj.get("spec", {}).get("template", {}).get("spec", {}).get("nodeSelector"))


def _plain_selector(obj: Object, now: float) -> str:
    return pairs(obj.get("spec", {}).get("selector"))


def _reference(obj: Object, now: float) -> str:
    target = obj.get("spec", {}).get("scaleTargetRef", {})
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _targets(obj: Object, now: float) -> str:
    spec, found = obj.get("spec", {}), obj.get("status", {})
    if obj.get("apiVersion") == "autoscaling/v1":
        current = found.get("currentCPUUtilizationPercentage")
        shown = "<unknown>" if current is None else f"{current}%"
        return f"cpu: {shown}/{spec.get('targetCPUUtilizationPercentage', 80)}%"
    texts = []
    current_metrics = found.get("currentMetrics") or []
    for index, metric in enumerate(spec.get("metrics") or ()):
        kind = metric.get("type", "")
        field = kind[:1].lower() + kind[1:]
        source = metric.get(field, {})
        current = (current_metrics[index].get(field, {}) if index < len(current_metrics) else {}).get("current", {})
        target = source.get("target", {})
        prefix = f"{source['name']}: " if "name" in source else ""
        if "averageUtilization" in target:
            now_at = current.get("averageUtilization")
            shown = "<unknown>" if now_at is None else f"{now_at}%"
            texts.append(f"{prefix}{shown}/{target['averageUtilization']}%")
        else:
            wanted = target.get("averageValue") or target.get("value") or "<auto>"
            shown = current.get("averageValue") or current.get("value") or "<unknown>"
            average = " (avg)" if "averageValue" in target and kind in ("External", "Object") else ""
            texts.append(f"{prefix}{shown}/{wanted}{average}")
    return joined(texts, limit=2).replace(",", ", ")


def _min_replicas(obj: Object, now: float) -> Any:
    return str(obj.get("spec", {}).get("minReplicas", "<unset>"))


def _budget(field: str) -> Column:
    name = "Min Available" if field == "minAvailable" else "Max Unavailable"
    return Column(name, lambda obj, now: str(obj.get("spec", {}).get(field, "N/A")))


def _controller(obj: Object, now: float) -> str:
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            api_version = owner.get("apiVersion", "")
            group = api_version.rpartition("/")[0]
            kind = owner.get("kind", "").lower()
            return f"{kind}.{group}/{owner.get('name', '')}" if group else f"{kind}/{owner.get('name', '')}"
    return "<none>"


BY_KIND = {
    ("apps", "Deployment"): (
        NAME,
        Column("Ready", _ready, description="Number of the pod with ready state"),
        Column("Up-to-date", number("status", "updatedReplicas"), "integer"),
        Column("Available", number("status", "availableReplicas"), "integer"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    ("apps", "ReplicaSet"): (
        NAME,
        Column("Desired", number("spec", "replicas"), "integer"),
        Column("Current", number("status", "replicas"), "integer"),
        Column("Ready", number("status", "readyReplicas"), "integer"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    ("", "ReplicationController"): (
        NAME,
        Column("Desired", number("spec", "replicas"), "integer"),
        Column("Current", number("status", "replicas"), "integer"),
        Column("Ready", number("status", "readyReplicas"), "integer"),
        AGE,
        CONTAINERS,
        IMAGES,
        Column("Selector", _plain_selector, wide=True),
    ),
    ("apps", "DaemonSet"): (
        NAME,
        Column("Desired", number("status", "desiredNumberScheduled"), "integer"),
        Column("Current", number("status", "currentNumberScheduled"), "integer"),
        Column("Ready", number("status", "numberReady"), "integer"),
        Column("Up-to-date", number("status", "updatedNumberScheduled"), "integer"),
        Column("Available", number("status", "numberAvailable"), "integer"),
        Column("Node Selector", _node_selector),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    ("apps", "StatefulSet"): (NAME, Column("Ready", _ready), AGE, CONTAINERS, IMAGES),
    ("apps", "ControllerRevision"): (
        NAME,
        Column("Controller", _controller),
        Column("Revision", number("revision"), "integer"),
        AGE,
    ),
    ("batch", "Job"): (
        NAME,
        Column("Status", _job_status),
        Column("Completions", _completions),
        Column("Duration", _job_duration),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    ("batch", "CronJob"): (
        NAME,
        Column("Schedule", at("spec", "schedule")),
        Column("Timezone", at("spec", "timeZone")),
        Column("Suspend", _suspended, "boolean"),
        Column("Active", lambda obj, now: len(obj.get("status", {}).get("active") or ()), "integer"),
        Column("Last Schedule", _last_schedule),
        AGE,
        _cron_containers("name"),
        _cron_containers("image"),
        Column("Selector", selector("spec", "jobTemplate", "spec", "selector"), wide=True),
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): (
        NAME,
        Column("Reference", _reference),
        Column("Targets", _targets),
        Column("MinPods", _min_replicas),
        Column("MaxPods", number("spec", "maxReplicas"), "integer"),
        Column("Replicas", number("status", "currentReplicas"), "integer"),
        AGE,
    ),
    ("autoscaling", "Scale"): (
        NAME,
        Column("Desired", number("spec", "replicas"), "integer"),
        Column("Available", number("status", "replicas"), "integer"),
        AGE,
    ),
    ("policy", "PodDisruptionBudget"): (
        NAME,
        _budget("minAvailable"),
        _budget("maxUnavailable"),
        Column("Allowed Disruptions", number("status", "disruptionsAllowed"), "integer"),
        AGE,
    ),
}
