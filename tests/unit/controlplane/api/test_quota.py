"""What objects count for, and which quotas they count against."""

from __future__ import annotations

import pytest

from controlplane.api import quota


def pod(requests=None, limits=None, **spec):
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    return {"metadata": {}, "spec": {"containers": [{"name": "a", "resources": resources}], **spec}}


def texts(amounts):
    return {name: str(amount) for name, amount in amounts.items()}


def test_a_pod() -> None:
    given = pod({"cpu": "500m", "memory": "64Mi", "example.com/gpu": "1"}, {"cpu": "1", "example.com/gpu": "1"})
    assert texts(quota.usage("pods", given)) == {
        "count/pods": "1", "pods": "1", "requests.cpu": "500m", "cpu": "500m", "requests.memory": "64Mi",
        "memory": "64Mi", "limits.cpu": "1", "requests.example.com/gpu": "1", "limits.example.com/gpu": "1",
    }  # fmt: skip
    assert texts(quota.usage("pods", {**given, "status": {"phase": "Succeeded"}})) == {"count/pods": "1"}


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({"ports": [{"port": 80}]}, {}),
        ({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}, {"services.nodeports": "2"}),
        (
            {"type": "LoadBalancer", "ports": [{"port": 1}]},
            {"services.loadbalancers": "1", "services.nodeports": "1"},
        ),
        (
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 1}]},
            {"services.loadbalancers": "1", "services.nodeports": "0"},
        ),
    ],
)
def test_a_service(spec, counts) -> None:
    assert texts(quota.usage("services", {"spec": spec})) == {"count/services": "1", "services": "1", **counts}


def test_a_claim_counts_for_its_class_too() -> None:
    claim = {"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "3Gi"}}}}
    prefix = "gold.storageclass.storage.k8s.io"
    assert texts(quota.usage("persistentvolumeclaims", claim)) == {
        "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "3Gi",
        f"{prefix}/persistentvolumeclaims": "1", f"{prefix}/requests.storage": "3Gi",
    }  # fmt: skip


def test_others_count_for_one() -> None:
    assert texts(quota.usage("secrets", {})) == {"count/secrets": "1", "secrets": "1"}
    assert texts(quota.usage("deployments.apps", {})) == {"count/deployments.apps": "1"}


SMALL = pod({"cpu": "1"})
TERM = {"topologyKey": "k", "namespaces": ["other"]}


@pytest.mark.parametrize(
    ("scope", "yes", "no"),
    [
        ("Terminating", pod(activeDeadlineSeconds=1), pod()),
        ("NotTerminating", pod(), pod(activeDeadlineSeconds=0)),
        ("BestEffort", pod({"example.com/gpu": "1"}), SMALL),
        ("NotBestEffort", SMALL, pod()),
        (
            "CrossNamespacePodAffinity",
            pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]}}),
            pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k"}]}}),
        ),
    ],
)
def test_scopes(scope, yes, no) -> None:
    found = {"spec": {"scopes": [scope]}}
    assert quota.covers(found, "pods", yes) and not quota.covers(found, "pods", no)
    assert not quota.covers(found, "services", {"spec": {}})


def test_scope_selectors() -> None:
    def of(operator, *values):
        expression = {"scopeName": "PriorityClass", "operator": operator, "values": list(values)}
        return {"spec": {"scopeSelector": {"matchExpressions": [expression]}}}

    high, none = pod(priorityClassName="high"), pod()
    assert quota.covers(of("In", "high"), "pods", high) and not quota.covers(of("In", "high"), "pods", none)
    assert quota.covers(of("NotIn", "high"), "pods", none) and not quota.covers(of("NotIn", "high"), "pods", high)
    assert quota.covers(of("Exists"), "pods", high) and not quota.covers(of("Exists"), "pods", none)
    assert quota.covers(of("DoesNotExist"), "pods", none)


def test_every_container_must_say_what_is_limited() -> None:
    found = {"spec": {"hard": {"limits.memory": "1Gi", "requests.cpu": "1", "pods": "3"}}}
    assert quota.unspecified(found, pod()) == "limits.memory for: a; requests.cpu for: a"
    assert quota.unspecified(found, pod({"cpu": "1"}, {"memory": "1"})) == ""
