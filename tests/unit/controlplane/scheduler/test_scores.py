from typing import Any

from controlplane.scheduler.filters import Context, NoOpinion
from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.scores import best
from controlplane.scheduler.topology import survey


def choose(snapshot: Any, obj: dict[str, Any]) -> str:
    pod = PodInfo(obj)
    return best(pod, list(snapshot.nodes.values()), Context(snapshot, survey(pod, snapshot), NoOpinion())).name


def test_the_emptier_node_wins(snapshot, node, pod) -> None:
    cluster = snapshot([node("a"), node("b")], {"a": [pod("x", cpu="1", memory="1Gi")]})
    assert choose(cluster, pod("p", cpu="1", memory="1Gi")) == "b"


def test_balance_counts(snapshot, node, pod) -> None:
    # Both nodes would be equally full in sum; on b the pod fills the resource that is ahead.
    cluster = snapshot(
        [node("a", cpu="10", memory="10Gi"), node("b", cpu="10", memory="10Gi")],
        {"a": [pod("x", cpu="1", memory="5Gi")], "b": [pod("y", cpu="5", memory="1Gi")]},
    )
    assert choose(cluster, pod("p", cpu="4", memory="100Mi")) == "a"


def test_replicas_of_one_controller_spread_over_nodes(snapshot, node, pod) -> None:
    cluster = snapshot([node(n) for n in "abc"])
    for i in range(9):
        obj = pod(f"p{i}", owner="rs")
        cluster.add_pod(PodInfo(obj), choose(cluster, obj))
    assert [len(n.pods) for n in cluster.nodes.values()] == [3, 3, 3]


def test_replicas_spread_even_against_fullness(snapshot, node, pod) -> None:
    cluster = snapshot([node("a"), node("b")], {"b": [pod("x", cpu="1", memory="2Gi")], "a": [pod("p0", owner="rs")]})
    assert choose(cluster, pod("p1", owner="rs")) == "b"


def test_preferences(snapshot, node, pod) -> None:
    soft = {"key": "k", "value": "v", "effect": "PreferNoSchedule"}
    assert choose(snapshot([node("a", taints=[soft]), node("b")], {"b": [pod("x", cpu="1")]}), pod("p")) == "b"
    preferred = [{"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    nodes = [node("a"), node("b", labels={"disk": "ssd"})]
    assert choose(snapshot(nodes, {"b": [pod("x", cpu="1")]}), pod("p", affinity=affinity)) == "b"


def test_pods_attract_and_repel(snapshot, node, pod) -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}
    weighted = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    placed = {"b": [pod("db", cpu="1", labels={"app": "db"})]}
    assert choose(snapshot([node("a"), node("b")], placed), pod("p", affinity={"podAffinity": weighted})) == "b"
    placed = {"a": [pod("db", labels={"app": "db"})], "b": [pod("x", cpu="1", memory="1Gi")]}
    assert choose(snapshot([node("a"), node("b")], placed), pod("p", affinity={"podAntiAffinity": weighted})) == "b"
    # A placed pod's preference counts for the one that comes.
    fan = pod("fan", cpu="1", affinity={"podAffinity": weighted})
    assert choose(snapshot([node("a"), node("b")], {"b": [fan]}), pod("db", labels={"app": "db"})) == "b"


def test_images_that_are_there(snapshot, node, pod) -> None:
    here = [{"names": ["example:latest"], "sizeBytes": 900 << 20}]
    cluster = snapshot([node("a"), node("b", images=here), node("c")])
    assert choose(cluster, pod("p")) == "b"


def test_soft_spread(snapshot, node, pod) -> None:
    constraint = {
        "topologyKey": "zone",
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    nodes = [node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}), node("c")]
    cluster = snapshot(nodes, {"a": [pod("w", labels={"app": "web"})], "b": [pod("x", cpu="1")]})
    assert choose(cluster, pod("p", labels={"app": "web"}, topologySpreadConstraints=[constraint])) == "b"


def test_equal_nodes_are_chosen_by_chance(snapshot, node, pod) -> None:
    cluster = snapshot([node(n) for n in "abc"])
    assert {choose(cluster, pod("p")) for _ in range(100)} == {"a", "b", "c"}
