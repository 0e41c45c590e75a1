"""The owner graph: events in any order, and what they make necessary."""

from typing import Any

from controlplane.client.resources import CONFIGMAPS, PODS, REPLICASETS
from controlplane.controllers.garbagecollector import Verdict, verdict
from controlplane.controllers.graph import Graph


def obj(
    name: str, *owners: str, finalizers: list[str] | None = None, deleting: bool = False, block: bool = True
) -> Any:
    refs = [
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": o,
            "uid": o,
            "controller": True,
            "blockOwnerDeletion": block,
        }
        for o in owners
    ]
    metadata = {"name": name, "namespace": "ns", "uid": name, "ownerReferences": refs, "finalizers": finalizers or []}
    return {"metadata": {**metadata, **({"deletionTimestamp": "x"} if deleting else {})}}


def uids(vertices: Any) -> set[str]:
    return {v.uid for v in vertices}


def test_dependents_may_come_before_their_owner() -> None:
    graph = Graph()
    work = graph.seen(PODS, obj("pod", "rs"))
    assert uids(work.examine) == {"rs"}, "an owner never seen is looked for"
    assert graph.vertices["rs"].virtual
    graph.seen(REPLICASETS, obj("rs"))
    assert not graph.vertices["rs"].virtual
    assert uids(graph.vertices["rs"].dependents) == {"pod"}


def test_a_gone_owner_leaves_its_dependents_to_examine() -> None:
    graph = Graph()
    graph.seen(REPLICASETS, obj("rs"))
    graph.seen(PODS, obj("pod", "rs"))
    assert uids(graph.gone("rs").examine) == {"pod"}
    assert graph.is_absent("rs")
    graph.seen(REPLICASETS, obj("rs"))
    assert not graph.is_absent("rs")


def test_foreground_deletion_waits_for_blocking_dependents_only() -> None:
    graph = Graph()
    graph.seen(REPLICASETS, obj("rs"))
    graph.seen(PODS, obj("a", "rs"))
    graph.seen(CONFIGMAPS, obj("b", "rs", block=False))
    work = graph.seen(REPLICASETS, obj("rs", finalizers=["foregroundDeletion"], deleting=True))
    assert uids(work.examine) == {"a", "b", "rs"}
    assert uids(graph.vertices["rs"].blocking_dependents()) == {"a"}
    assert uids(graph.gone("a").examine) == {"rs"}, "the last one it waited for"
    assert not list(graph.vertices["rs"].blocking_dependents())


def test_a_released_dependent_unblocks_its_owner() -> None:
    graph = Graph()
    graph.seen(REPLICASETS, obj("rs", finalizers=["foregroundDeletion"], deleting=True))
    graph.seen(PODS, obj("a", "rs"))
    assert uids(graph.seen(PODS, obj("a", "rs", block=False)).examine) == {"rs"}


def test_orphaning() -> None:
    graph = Graph()
    graph.seen(REPLICASETS, obj("rs"))
    work = graph.seen(REPLICASETS, obj("rs", finalizers=["orphan"], deleting=True))
    assert uids(work.orphan) == {"rs"}


def test_nothing_is_left_of_what_is_gone() -> None:
    graph = Graph()
    graph.seen(PODS, obj("pod", "rs"))
    graph.gone("pod")
    assert graph.vertices == {}


def test_verdicts() -> None:
    assert verdict(False, 0, 0, 0, False) is Verdict.KEEP
    assert verdict(True, 1, 0, 0, False) is Verdict.KEEP
    assert verdict(True, 1, 1, 0, False) is Verdict.TRIM
    assert verdict(True, 0, 1, 0, True) is Verdict.DELETE
    assert verdict(True, 0, 0, 1, False) is Verdict.DELETE
    assert verdict(True, 0, 0, 1, True) is Verdict.DELETE_FOREGROUND
