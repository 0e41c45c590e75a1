"""Between versions of a kind: objects are stored in one version (`Resource.storage_version`) and read in any.

Most versions of a kind have the same shape, and only apiVersion differs. Some do not: Events of the core group and
of events.k8s.io name their fields differently, an autoscaling/v1 autoscaler knows one metric where v2 knows many
(the others travel in an annotation, so that nothing is lost on the way there and back), and resource.k8s.io changed how
it nests (convert_devices.py). Not here: custom resources (their webhooks).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from controlplane.api import convert_devices

Object = dict[str, Any]

_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_FIELDS_BACK = {new: old for old, new in _EVENT_FIELDS.items()}
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"


def convert(obj: Object, api_version: str) -> Object:
    """`obj` in another version of its kind. `obj` itself does not change; unchanged parts are shared."""
    change = _CHANGES.get((obj.get("kind", ""), obj.get("apiVersion", ""), api_version))
    return {**(change(obj) if change is not None else obj), "apiVersion": api_version}


def same_shape(kind: str, one: str, other: str) -> bool:
    """Whether two versions of a kind differ in nothing but apiVersion."""
    return (kind, one, other) not in _CHANGES


def _new_event(obj: Object) -> Object:
    return {_EVENT_FIELDS.get(key, key): value for key, value in obj.items()}


def _old_event(obj: Object) -> Object:
    return {_EVENT_FIELDS_BACK.get(key, key): value for key, value in obj.items()}


def _is_cpu(metric: Object) -> bool:
    resource = metric.get("resource") or {}
    return metric.get("type") == "Resource" and resource.get("name") == "cpu"


def _to_autoscaler_v1(obj: Object) -> Object:
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    notes: dict[str, Any] = {}
    others = []
    for metric in spec.pop("metrics", None) or ():
        target = metric.get("resource", {}).get("target", {}) if _is_cpu(metric) else {}
        if "averageUtilization" in target and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
        else:
            others.append(metric)
    if others:
        notes[_METRICS] = others
    if "behavior" in spec:
        notes[_BEHAVIOR] = spec.pop("behavior")
    status.pop("conditions", None)
    current = status.pop("currentMetrics", None)
    for metric in current or ():
        used = metric.get("resource", {}).get("current", {}).get("averageUtilization") if _is_cpu(metric) else None
        if used is not None:
            status["currentCPUUtilizationPercentage"] = used
    if current:
        notes[_CURRENT] = current
    annotations = dict((obj.get("metadata") or {}).get("annotations") or {})
    annotations |= {key: msgspec.json.encode(value).decode() for key, value in notes.items()}
    return _autoscaler(obj, annotations, spec, status)


def _to_autoscaler_v2(obj: Object) -> Object:
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations = dict((obj.get("metadata") or {}).get("annotations") or {})
    metrics = _noted(annotations, _METRICS) or []
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    if metrics:
        spec["metrics"] = metrics
    behavior = _noted(annotations, _BEHAVIOR)
    if behavior:
        spec["behavior"] = behavior
    used = status.pop("currentCPUUtilizationPercentage", None)
    current = _noted(annotations, _CURRENT)
    if current:
        status["currentMetrics"] = current
    elif used is not None:
        status["currentMetrics"] = [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}}
        ]
    return _autoscaler(obj, annotations, spec, status)


def _noted(annotations: dict[str, str], key: str) -> Any:
    text = annotations.pop(key, None)
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return None


def _autoscaler(obj: Object, annotations: dict[str, str], spec: Object, status: Object) -> Object:
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    result = {**obj, "metadata": metadata, "spec": spec}
    if "status" in obj:
        result["status"] = status
    return result


_CHANGES: dict[tuple[str, str, str], Callable[[Object], Object]] = {
    ("Event", "v1", "events.k8s.io/v1"): _new_event,
    ("Event", "events.k8s.io/v1", "v1"): _old_event,
    ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1"): _to_autoscaler_v1,
    ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2"): _to_autoscaler_v2,
    **convert_devices.changes(),
}
