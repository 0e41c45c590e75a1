"""Nodes: health, taints, eviction, pod networks, leftovers."""

import asyncio
from typing import Any

import pytest

from controlplane import clock
from controlplane.controllers import nodehealth, podgc, tainteviction
from controlplane.controllers.nodeipam import CidrSet, RangeFull

Obj = dict[str, Any]
NOW = clock.parse_rfc3339("2026-01-01T01:00:00Z")


def node(name: str, ready: str | None = "True", taints: list[Obj] | None = None, **spec: Any) -> Obj:
    conditions = [{"type": "Ready", "status": ready, "reason": "KubeletReady"}] if ready else []
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    fields = {**spec, **({"taints": taints} if taints else {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": fields,
        "status": {"conditions": conditions},
    }


def pairs(taints: list[Obj]) -> list[tuple[str, str]]:
    return [(t["key"].removeprefix("node.kubernetes.io/"), t["effect"]) for t in taints]


def test_a_silent_node_is_unknown() -> None:
    conditions = nodehealth.silenced(node("a"), NOW)
    assert conditions is not None
    told = {c["type"]: (c["status"], c["reason"]) for c in conditions}
    assert told["Ready"] == ("Unknown", "NodeStatusUnknown")
    assert told["MemoryPressure"] == ("Unknown", "NodeStatusNeverUpdated")
    silent = node("a")
    silent["status"]["conditions"] = conditions
    assert nodehealth.silenced(silent, NOW) is None


def test_taints_follow_conditions() -> None:
    mine = {"key": "example.com/gpu", "effect": "NoSchedule"}
    lost = nodehealth.wanted_taints(node("a", "Unknown", [mine]), evict=True, now=NOW)
    assert pairs(lost) == [
        ("example.com/gpu", "NoSchedule"),
        ("unreachable", "NoSchedule"),
        ("unreachable", "NoExecute"),
    ]
    assert pairs(nodehealth.wanted_taints(node("a", "False"), evict=False, now=NOW)) == [("not-ready", "NoSchedule")]
    assert pairs(nodehealth.wanted_taints(node("a", "True", lost), evict=False, now=NOW)) == [
        ("example.com/gpu", "NoSchedule")
    ]
    cordoned = nodehealth.wanted_taints(node("a", unschedulable=True), evict=False, now=NOW)
    assert pairs(cordoned) == [("unschedulable", "NoSchedule")]
    kept = nodehealth.wanted_taints(node("a", "Unknown", lost), evict=True, now=NOW + 9)
    assert kept == lost, "the time at which a taint was added stays"
    fresh = [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    assert nodehealth.wanted_taints(node("a", None, fresh), evict=False, now=NOW) == fresh


def test_zones() -> None:
    def state(*ready: str) -> tuple[str, bool]:
        seen = nodehealth.weather([node(str(i), r) for i, r in enumerate(ready)], 0.55)["/"]
        return seen.zone.value, seen.everything_lost

    assert state("True", "True", "Unknown") == ("Normal", False)
    assert state("Unknown", "False") == ("FullDisruption", True)
    assert state("True", "False", "False", "False") == ("PartialDisruption", False)


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], 0.0),
        ([{"operator": "Exists"}], None),
        ([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}], 300.0),
        (
            [
                {"key": "k", "operator": "Exists", "tolerationSeconds": 300},
                {"key": "k", "value": "v", "tolerationSeconds": 7},
            ],
            7.0,
        ),
        ([{"key": "k", "value": "other"}], 0.0),
        ([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}], 0.0),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": -4}], 0.0),
    ],
)
def test_how_long_a_pod_may_stay(tolerations: list[Obj], expected: float | None) -> None:
    assert tainteviction.grace(tolerations, [{"key": "k", "value": "v", "effect": "NoExecute"}]) == expected


def test_a_range_gives_each_piece_once() -> None:
    pieces = CidrSet("10.244.0.0/22", 24)
    pieces.occupy("10.244.1.0/24")
    given = [pieces.allocate() for _ in range(3)]
    assert given == ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]
    with pytest.raises(RangeFull):
        pieces.allocate()
    pieces.release("10.244.2.0/24")
    assert pieces.allocate() == "10.244.2.0/24"
    pieces.occupy("192.168.0.0/24")  # not ours
    six = CidrSet("fd00:10::/56", 64)
    six.occupy("fd00:10::/64")
    assert six.allocate() == "fd00:10:0:1::/64"
    with pytest.raises(ValueError, match="does not fit"):
        CidrSet("10.0.0.0/24", 16)


def test_leftover_pods(namespaced: Any) -> None:
    def pod(name: str, on: str, phase: str = "Running", **metadata: Any) -> Obj:
        return namespaced("Pod", name, metadata=metadata, spec={"nodeName": on}, status={"phase": phase})  # type: ignore[no-any-return]

    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    out = node("out", "Unknown", [{"key": podgc.OUT_OF_SERVICE, "effect": "NoExecute"}])
    pods = [
        pod("fine", "a"), pod("orphan", "lost"), pod("new-orphan", "just-lost"), pod("unscheduled", "", **gone),
        pod("stuck", "out", **gone), pod("leaving", "a", **gone), pod("done1", "a", "Succeeded"),
        pod("done2", "a", "Failed", creationTimestamp="2025-01-01T00:00:00Z"),
    ]  # fmt: skip
    doomed = podgc.plan(pods, {"a": node("a"), "out": out}, {"lost"}, 1)
    assert [d.pod["metadata"]["name"] for d in doomed] == ["orphan", "unscheduled", "stuck", "done2"]


async def test_a_silent_nodes_pods_leave_and_are_replaced(cluster: Any, deployment: Any) -> None:
    from controlplane.client.resources import DEPLOYMENTS

    for name in ("node-1", "node-2", "node-3"):
        cluster.api.put(node(name))
    made = deployment(replicas=2)
    made["spec"]["template"]["spec"]["tolerations"] = [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    ]
    made["metadata"] = {"name": "web", "namespace": "default"}
    await cluster.client.create(DEPLOYMENTS, made)
    await cluster.until(lambda: len(cluster.pods()) == 2)
    cluster.run_pods("node-1")
    before = {p["metadata"]["name"] for p in cluster.pods()}
    # the lifecycle controller has a grace period of 50 s; make node-1 silent by making it long ago
    lifecycle = cluster.controller("node-lifecycle-controller")
    lifecycle._heard["node-1"] = asyncio.get_running_loop().time() - 60
    lifecycle.queue.add("node-1")
    lost = await cluster.until(lambda: (n := cluster.api.get("nodes", "node-1")) and n["spec"].get("taints") and n)
    assert {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")} == set(pairs(lost["spec"]["taints"]))
    assert nodehealth.readiness(lost) == "Unknown"
    await cluster.until(
        lambda: len(cluster.pods()) == 2 and not before & {p["metadata"]["name"] for p in cluster.pods()}
    )
    for pod in cluster.api.all("pods", "default"):
        if pod["metadata"]["name"] in before:
            assert any(c["type"] == "DisruptionTarget" for c in pod["status"]["conditions"])
            assert all(c["status"] == "False" for c in pod["status"]["conditions"] if c["type"] == "Ready")
    # it speaks again: taints go
    back = cluster.api.get("nodes", "node-1")
    conditions = [{**c, "status": "True" if c["type"] == "Ready" else "False"} for c in back["status"]["conditions"]]
    cluster.api.put({**back, "status": {"conditions": conditions}})
    await cluster.until(lambda: not cluster.api.get("nodes", "node-1")["spec"].get("taints"))


async def test_pods_of_a_deleted_node_are_removed(cluster: Any, namespaced: Any, make_running: Any) -> None:
    made = namespaced("Pod", "p", spec={"containers": []})
    cluster.api.put(make_running(made, "node-9"))
    collector = cluster.controller("pod-garbage-collector-controller")
    await cluster.until(lambda: collector.pods.items())
    collector.queue.add("all")
    await cluster.until(lambda: not cluster.api.all("pods"))
