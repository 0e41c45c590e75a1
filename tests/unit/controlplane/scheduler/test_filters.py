from typing import Any

import pytest

from controlplane.scheduler.filters import Context, NoOpinion, explain, feasible
from controlplane.scheduler.pod import PodInfo
from controlplane.scheduler.topology import survey


def where(snapshot: Any, obj: dict[str, Any]) -> tuple[list[str], str]:
    """(names of the feasible nodes, the sentence about the others)."""
    pod = PodInfo(obj)
    context = Context(snapshot, survey(pod, snapshot), NoOpinion())
    found, rejected = feasible(pod, snapshot.nodes.values(), context, 1000)
    return [n.name for n in found], explain(rejected, len(snapshot.nodes))


def test_resources_including_the_number_of_pods(snapshot, node, pod) -> None:
    nodes = [node("a", cpu="1"), node("b", cpu="2", memory="1Gi"), node("c", pods="1"), node("d", pods="0")]
    cluster = snapshot(nodes, {"c": [pod("x")]})
    assert where(cluster, pod("p", cpu="1500m", memory="512Mi"))[0] == ["b"]
    assert where(cluster, pod("p", cpu="3", memory="2Gi"))[1] == (
        "0/4 nodes are available: 1 Insufficient memory, 2 Insufficient cpu, 2 Too many pods."
    )


def test_what_leaves_is_free_again(snapshot, node, pod) -> None:
    cluster = snapshot([node("a", cpu="1")], {"a": [pod("x", cpu="1")]})
    assert where(cluster, pod("p", cpu="1"))[0] == []
    cluster.remove_pod("default/x")
    assert where(cluster, pod("p", cpu="1"))[0] == ["a"]


def test_extended_resources(snapshot, node, pod) -> None:
    cluster = snapshot([node("a"), node("b", allocatable={"example.com/gpu": "1"})])
    obj = pod("p")
    obj["spec"]["containers"][0]["resources"] = {"limits": {"example.com/gpu": 1}}
    assert where(cluster, obj) == (["b"], "0/2 nodes are available: 1 Insufficient example.com/gpu.")


def test_taints_and_cordons(snapshot, node, pod) -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    cluster = snapshot([node("a", taints=[taint]), node("b", unschedulable=True), node("c", cpu="0")])
    assert where(cluster, pod("p", cpu="1"))[1] == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}, "
        "1 node(s) were unschedulable."
    )
    equal = {"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}
    assert where(cluster, pod("p", tolerations=[equal]))[0] == ["a", "c"]
    assert where(cluster, pod("p", tolerations=[{"operator": "Exists"}]))[0] == ["a", "b", "c"]
    assert where(cluster, pod("p", tolerations=[{**equal, "value": "web"}]))[0] == ["c"]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}, ["a", "b"]),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, ["b", "c"]),
        ({"key": "disk", "operator": "Exists"}, ["a", "b"]),
        ({"key": "disk", "operator": "DoesNotExist"}, ["c"]),
        ({"key": "cores", "operator": "Gt", "values": ["4"]}, ["b"]),
        ({"key": "cores", "operator": "Lt", "values": ["8"]}, ["a"]),
    ],
)
def test_node_affinity(snapshot, node, pod, expression, names) -> None:
    cluster = snapshot(
        [node("a", labels={"disk": "ssd", "cores": "4"}), node("b", labels={"disk": "nvme", "cores": "8"}), node("c")]
    )
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    assert where(cluster, pod("p", affinity=affinity))[0] == names


def test_node_selector_and_fields(snapshot, node, pod) -> None:
    cluster = snapshot([node("a", labels={"x": "y"}), node("b")])
    assert where(cluster, pod("p", nodeSelector={"x": "y"})) == (
        ["a"],
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    )
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [field]}}
    assert where(cluster, pod("p", affinity={"nodeAffinity": required}))[0] == ["b"]
    nothing = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}
    assert where(cluster, pod("p", affinity={"nodeAffinity": nothing}))[0] == []


def test_host_ports(snapshot, node, pod) -> None:
    taken = pod("x", ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}])
    cluster = snapshot([node("a"), node("b")], {"a": [taken]})
    assert where(cluster, pod("p", ports=[{"hostPort": 80}]))[0] == ["b"]
    assert where(cluster, pod("p", ports=[{"hostPort": 80, "hostIP": "10.0.0.2"}]))[0] == ["a", "b"]
    assert where(cluster, pod("p", ports=[{"hostPort": 80, "protocol": "UDP"}]))[0] == ["a", "b"]


def affinity(kind: str, topology: str = "zone", **labels: str) -> dict[str, Any]:
    term = {"topologyKey": topology, "labelSelector": {"matchLabels": labels}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_pod_affinity_and_the_first_of_its_kind(snapshot, node, pod) -> None:
    nodes = [
        node("a", labels={"zone": "1"}),
        node("b", labels={"zone": "1"}),
        node("c", labels={"zone": "2"}),
        node("d"),
    ]
    cluster = snapshot(nodes, {"a": [pod("db", labels={"app": "db"})]})
    near = pod("p", affinity=affinity("podAffinity", app="db"))
    assert where(cluster, near) == (
        ["a", "b"],
        "0/4 nodes are available: 2 node(s) didn't match pod affinity rules.",
    )
    itself = pod("p", labels={"app": "new"}, affinity=affinity("podAffinity", app="new"))
    assert where(cluster, itself)[0] == ["a", "b", "c"]  # nobody to be near yet, but the label must be there
    nobody = pod("p", affinity=affinity("podAffinity", app="new"))
    assert where(cluster, nobody)[0] == []


def test_pod_anti_affinity_works_both_ways(snapshot, node, pod) -> None:
    nodes = [node("a", labels={"zone": "1"}), node("b", labels={"zone": "1"}), node("c", labels={"zone": "2"})]
    shy = pod("shy", labels={"app": "shy"}, affinity=affinity("podAntiAffinity", app="loud"))
    cluster = snapshot(nodes, {"a": [shy]})
    assert where(cluster, pod("p", labels={"app": "loud"})) == (
        ["c"],
        "0/3 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.",
    )
    alone = pod("p", labels={"app": "x"}, affinity=affinity("podAntiAffinity", app="shy"))
    assert where(cluster, alone)[0] == ["c"]
    cluster.remove_pod("default/shy")
    assert where(cluster, pod("p", labels={"app": "loud"}))[0] == ["a", "b", "c"]


def test_affinity_looks_at_the_namespaces_it_names(snapshot, node, pod) -> None:
    cluster = snapshot([node("a", labels={"zone": "1"})], {"a": [pod("db", namespace="other", labels={"app": "db"})]})
    cluster.namespaces["other"] = {"team": "b"}
    own = affinity("podAffinity", app="db")
    assert where(cluster, pod("p", affinity=own))[0] == []
    for extra in (
        {"namespaces": ["other"]},
        {"namespaceSelector": {"matchLabels": {"team": "b"}}},
        {"namespaceSelector": {}},
    ):
        term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}, **extra}
        both = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        assert where(cluster, pod("p", affinity=both))[0] == ["a"]


def spread(skew: int = 1, key: str = "zone", **more: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "web"}}
    return {
        "topologyKey": key,
        "maxSkew": skew,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": selector,
        **more,
    }


def test_topology_spread(snapshot, node, pod) -> None:
    nodes = [node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}), node("c")]
    cluster = snapshot(nodes, {"a": [pod("w1", labels={"app": "web"})]})
    web = {"labels": {"app": "web"}}
    assert where(cluster, pod("p", **web, topologySpreadConstraints=[spread()])) == (
        ["b"],
        "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, "
        "1 node(s) didn't match pod topology spread constraints (missing required label).",
    )
    assert where(cluster, pod("p", **web, topologySpreadConstraints=[spread(2)]))[0] == ["a", "b"]
    # Fewer domains than wanted: the global minimum is 0, so no domain may have more than maxSkew.
    cluster.add_pod(PodInfo(pod("w2", labels={"app": "web"})), "b")
    assert where(cluster, pod("p", **web, topologySpreadConstraints=[spread()]))[0] == ["a", "b"]
    assert where(cluster, pod("p", **web, topologySpreadConstraints=[spread(minDomains=3)]))[0] == []


def test_spread_counts_only_nodes_that_the_pod_may_use(snapshot, node, pod) -> None:
    nodes = [node("a", labels={"zone": "1", "pool": "x"}), node("b", labels={"zone": "2"})]
    cluster = snapshot(nodes, {"a": [pod("w1", labels={"app": "web"}), pod("w2", labels={"app": "web"})]})
    obj = pod("p", labels={"app": "web"}, nodeSelector={"pool": "x"}, topologySpreadConstraints=[spread()])
    assert where(cluster, obj)[0] == ["a"]
    ignoring = spread(nodeAffinityPolicy="Ignore")
    obj = pod("p", labels={"app": "web"}, nodeSelector={"pool": "x"}, topologySpreadConstraints=[ignoring])
    assert where(cluster, obj)[0] == []


def test_room_that_is_promised_is_not_given_away(snapshot, node, pod) -> None:
    cluster = snapshot([node("a", cpu="1")])
    cluster.nominate(PodInfo(pod("important", cpu="1", priority=10)), "a")
    assert where(cluster, pod("p", cpu="1"))[0] == []
    assert where(cluster, pod("p", cpu="1", priority=20))[0] == ["a"]
    cluster.withdraw("default/important")
    assert where(cluster, pod("p", cpu="1"))[0] == ["a"]


def test_no_nodes(snapshot, pod) -> None:
    assert where(snapshot([]), pod("p"))[1] == "no nodes available to schedule pods"
