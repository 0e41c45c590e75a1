"""Which pods count, and which goes first."""

from typing import Any

from controlplane import clock
from controlplane.controllers import pods

NOW = clock.parse_rfc3339("2026-01-01T01:00:00Z")


def pod(
    name: str, node: str = "n1", phase: str = "Running", ready: str | None = "2026-01-01T00:00:00Z", **more: Any
) -> Any:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": ready}] if ready else []
    annotations = {pods.DELETION_COST: str(more.pop("cost"))} if "cost" in more else {}
    restarts = more.pop("restarts", 0)
    created = more.pop("created", "2026-01-01T00:00:00Z")
    metadata = {"name": name, "uid": name, "annotations": annotations, "creationTimestamp": created, **more}
    status = {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": restarts}]}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": status}


def order(*candidates: Any, related: Any = ()) -> list[str]:
    return [p["metadata"]["name"] for p in pods.ranked_for_deletion(candidates, related or candidates, NOW)]


def test_the_least_useful_pod_goes_first() -> None:
    assert order(
        pod("good"),
        pod("restarted", restarts=3),
        pod("cheap", cost=-5),
        pod("not-ready", ready=None),
        pod("unknown", phase="Unknown"),
        pod("pending", phase="Pending", ready=None),
        pod("unassigned", node="", phase="Pending", ready=None),
    ) == ["unassigned", "pending", "unknown", "not-ready", "cheap", "restarted", "good"]


def test_the_crowded_node_gives_first() -> None:
    assert order(pod("a", node="n1"), pod("b", node="n2"), pod("c", node="n2"))[0] in ("b", "c")
    crowd = [pod("x", node="n1"), pod("y", node="n1"), pod("z", node="n1")]
    assert order(pod("a", node="n1"), pod("b", node="n2"), related=crowd)[0] == "a"


def test_the_younger_pod_goes_first() -> None:
    old = pod("old", ready="2026-01-01T00:00:00Z")
    young = pod("young", ready="2026-01-01T00:59:00Z", created="2026-01-01T00:59:00Z")
    assert order(old, young) == ["young", "old"]


def test_active_ready_available() -> None:
    assert pods.is_active(pod("a"))
    assert not pods.is_active(pod("a", phase="Failed"))
    assert not pods.is_active(pod("a", deletionTimestamp="2026-01-01T00:00:00Z"))
    fresh = pod("a", ready="2026-01-01T00:59:55Z")
    assert pods.is_available(fresh, 0, NOW)
    assert not pods.is_available(fresh, 10, NOW)
    assert pods.available_in(fresh, 10, NOW) == 5
    assert pods.next_available([fresh, pod("b"), pod("c", ready=None)], 10, NOW) == 5
