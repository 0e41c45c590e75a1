"""Between versions of a kind."""

import copy
from typing import Any

from controlplane.api.convert import convert, same_shape


def there_and_back(obj: dict[str, Any], api_version: str) -> dict[str, Any]:
    before = copy.deepcopy(obj)
    other = convert(obj, api_version)
    assert other["apiVersion"] == api_version
    assert convert(other, obj["apiVersion"]) == obj == before
    return other


def test_events() -> None:
    old = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a"},
        "involvedObject": {"kind": "Pod"},
        "message": "m",
        "count": 2,
        "reason": "r",
        "reportingComponent": "c",
    }
    new = there_and_back(old, "events.k8s.io/v1")
    assert new["regarding"] == {"kind": "Pod"} and new["note"] == "m" and new["deprecatedCount"] == 2
    assert new["reportingController"] == "c" and new["reason"] == "r" and "involvedObject" not in new


def test_autoscalers() -> None:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    }
    new = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "annotations": {"x": "y"}},
        "spec": {"maxReplicas": 3, "metrics": [cpu, memory], "behavior": {"scaleUp": {"selectPolicy": "Max"}}},
        "status": {
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}]
        },
    }
    old = there_and_back(new, "autoscaling/v1")
    assert old["spec"] == {"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}
    assert old["status"] == {"currentCPUUtilizationPercentage": 5}


def test_versions_of_the_same_shape() -> None:
    obj = {"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "Workload", "metadata": {"name": "a"}}
    assert there_and_back(obj, "scheduling.k8s.io/v1alpha3")["metadata"] is obj["metadata"]
    assert same_shape("Workload", "a", "b") and not same_shape("Event", "v1", "events.k8s.io/v1")
