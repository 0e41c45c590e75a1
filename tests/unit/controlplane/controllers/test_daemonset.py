"""DaemonSets: one pod on every node that fits, updated within limits."""

from typing import Any

from controlplane.client.resources import DAEMONSETS
from controlplane.controllers import daemonset, history

Obj = dict[str, Any]


def node(name: str, *taints: str, **labels: str) -> Obj:
    spec = {"taints": [{"key": t.split(":")[0], "effect": t.split(":")[1]} for t in taints]} if taints else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {},
    }


def daemon(namespaced: Any, image: str = "d:1", **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    fields = {"selector": {"matchLabels": {"app": "d"}}, "template": template, **spec}
    return namespaced("DaemonSet", "d", "apps/v1", spec=fields)  # type: ignore[no-any-return]


def test_where_a_daemon_runs(namespaced: Any) -> None:
    ds = daemon(namespaced)
    assert daemonset.placement(ds, node("a")) == (True, True)
    assert daemonset.placement(ds, node("a", "own:NoSchedule")) == (False, True)
    assert daemonset.placement(ds, node("a", "own:NoExecute")) == (False, False)
    assert daemonset.placement(ds, node("a", "node.kubernetes.io/unschedulable:NoSchedule")) == (True, True)
    assert daemonset.placement(ds, node("a", "node.kubernetes.io/unreachable:NoExecute")) == (True, True)
    ds["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    assert daemonset.placement(ds, node("a")) == (False, False)
    assert daemonset.placement(ds, node("a", disk="ssd")) == (True, True)


def test_a_pod_is_tied_to_its_node_and_keeps_its_affinity() -> None:
    expression = {"key": "disk", "operator": "In", "values": ["ssd"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    spec = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}
    tied = daemonset.pod_spec(spec, "n1")
    (term,) = tied["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [expression]
    assert daemonset.target({"metadata": {}, "spec": tied}) == "n1"


def test_an_update_keeps_to_max_unavailable(namespaced: Any, make_running: Any) -> None:
    ds = daemon(namespaced, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}})
    nodes = [node(f"n{i}") for i in range(5)]

    def pod(i: int, digest: str, ready: bool = True) -> Obj:
        labels = {history.REVISION_LABEL: digest}
        made = make_running(namespaced("Pod", f"p{i}", metadata={"labels": labels}, spec={}), f"n{i}")
        if not ready:
            made["status"]["conditions"][0]["status"] = "False"
        return made  # type: ignore[no-any-return]

    old = [pod(i, "old") for i in range(5)]
    assert len(daemonset.plan(ds, nodes, old, "new", 0).delete) == 2
    broken = [pod(0, "old", ready=False), *old[1:]]
    doomed = daemonset.plan(ds, nodes, broken, "new", 0).delete
    assert doomed[0]["metadata"]["name"] == "p0", "what does not work goes first"
    assert len(doomed) == 2
    starting = [pod(0, "new", ready=False), pod(1, "new", ready=False), *old[2:]]
    assert daemonset.plan(ds, nodes, starting, "new", 0).delete == []
    one_ready = [pod(0, "new"), pod(1, "new", ready=False), *old[2:]]
    assert len(daemonset.plan(ds, nodes, one_ready, "new", 0).delete) == 1


async def test_daemons_follow_nodes_and_roll(cluster: Any, namespaced: Any) -> None:
    for i in range(3):
        cluster.api.put(node(f"n{i}"))
    made = {**daemon(namespaced), "metadata": {"name": "d", "namespace": "default"}}
    await cluster.client.create(DAEMONSETS, made)
    await cluster.until(lambda: len(cluster.pods()) == 3)
    cluster.api.put(node("n3"))
    await cluster.until(lambda: len(cluster.pods()) == 4)
    assert {daemonset.target(p) for p in cluster.pods()} == {"n0", "n1", "n2", "n3"}

    def run() -> Obj:
        for pod in cluster.pods():
            if pod["status"]["phase"] == "Pending":
                ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                status = {"phase": "Running", "conditions": [ready]}
                cluster.api.put({**pod, "spec": {**pod["spec"], "nodeName": daemonset.target(pod)}, "status": status})
        return cluster.api.get("daemonsets", "d", "default", "apps")["status"]  # type: ignore[no-any-return]

    await cluster.until(lambda: run().get("numberAvailable") == 4)
    template = daemon(namespaced, image="d:2")["spec"]["template"]
    await cluster.client.patch(DAEMONSETS, "d", {"spec": {"template": template}}, "default")
    for _ in range(400):
        status = run()
        await cluster.finish_deletions()
        await cluster.settle(2)
        if status.get("observedGeneration") == 2 and status.get("updatedNumberScheduled") == 4:
            break
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {"d:2"}
    assert len(cluster.api.all("controllerrevisions", "default", "apps")) == 2
