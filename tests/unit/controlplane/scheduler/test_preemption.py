from typing import Any

from controlplane.scheduler.filters import Context, NoOpinion, feasible
from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.preemption import propose
from controlplane.scheduler.topology import survey


def plan(snapshot: Any, obj: dict[str, Any], budgets: list[dict[str, Any]] | None = None) -> tuple[str, list[str], str]:
    """(node, names of the victims, the sentence if there are none)."""
    pod = PodInfo(obj)
    context = Context(snapshot, survey(pod, snapshot), NoOpinion())
    found, rejected = feasible(pod, snapshot.nodes.values(), context, 100)
    assert not found
    proposal, why = propose(pod, rejected, context, budgets or [])
    return (proposal.node, sorted(v.name for v in proposal.victims), "") if proposal else ("", [], why)


def test_no_more_victims_than_needed_and_the_least_important_ones(snapshot, node, pod) -> None:
    placed = {"a": [pod("low", cpu="1", priority=1), pod("mid", cpu="1", priority=5), pod("top", cpu="2", priority=9)]}
    assert plan(snapshot([node("a")], placed), pod("p", cpu="1", priority=9)) == ("a", ["low"], "")


def test_the_node_with_the_least_important_victims(snapshot, node, pod) -> None:
    placed = {
        "a": [pod("x", cpu="4", priority=5)],
        "b": [pod("y", cpu="4", priority=3)],
        "c": [pod("z", cpu="4", priority=10)],
    }
    cluster = snapshot([node(n) for n in "abc"], placed)
    assert plan(cluster, pod("p", cpu="1", priority=10)) == ("b", ["y"], "")


def test_disruption_budgets_are_respected_where_there_is_a_choice(snapshot, node, pod) -> None:
    placed = {"a": [pod("x", cpu="4", labels={"app": "db"})], "b": [pod("y", cpu="4", priority=5)]}
    budget = {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}},
        "status": {"disruptionsAllowed": 0},
    }
    cluster = snapshot([node("a"), node("b")], placed)
    assert plan(cluster, pod("p", cpu="1", priority=10), [budget]) == ("b", ["y"], "")
    assert plan(cluster, pod("p", cpu="1", priority=10)) == ("a", ["x"], "")


def test_nobody_goes_in_vain(snapshot, node, pod) -> None:
    taint = {"key": "k", "effect": "NoSchedule"}
    placed = {"a": [pod("x", cpu="1")], "b": [pod("y", cpu="4")]}
    cluster = snapshot([node("a"), node("b", taints=[taint])], placed)
    assert plan(cluster, pod("p", cpu="5", priority=10)) == (
        "",
        [],
        "preemption: 0/2 nodes are available: 1 Preemption is not helpful for scheduling, "
        "1 No preemption victims found for incoming pod.",
    )
    never = pod("p", cpu="4", priority=10, preemptionPolicy="Never")
    assert plan(cluster, never)[2] == "preemption: not eligible due to preemptionPolicy=Never."


def test_anti_affinity_is_seen_without_the_victims_and_the_snapshot_is_as_before(snapshot, node, pod) -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    placed = {"a": [pod("old", cpu="1", labels={"app": "web"}), pod("other", cpu="1")]}
    cluster = snapshot([node("a")], placed)
    assert plan(cluster, pod("p", cpu="1", priority=10, affinity=apart)) == ("a", ["old"], "")
    assert sorted(cluster.nodes["a"].pods) == ["default/old", "default/other"]
    assert cluster.nodes["a"].free["cpu"] == 2000
