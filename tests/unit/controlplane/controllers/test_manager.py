"""The controllers together over a fake API: what a user sees happen."""

import asyncio
from typing import Any

import pytest

from controlplane.client.resources import DEPLOYMENTS, NAMESPACES, PODS
from controlplane.controllers import manager
from controlplane.controllers.deployment_revision import REVISION

Obj = dict[str, Any]


def bare(deployment: Obj) -> Obj:
    return {**deployment, "metadata": {"name": deployment["metadata"]["name"], "namespace": "default"}}


async def roll(cluster: Any, name: str = "web") -> Obj:
    """Let pods run and go until the Deployment says that it is complete."""

    def complete() -> Obj | None:
        found = cluster.api.get("deployments", name, "default", "apps")
        status = found.get("status") or {}
        n = found["spec"]["replicas"]
        done = status.get("observedGeneration") == found["metadata"]["generation"] and (
            status.get("replicas", 0) == status.get("updatedReplicas", 0) == status.get("availableReplicas", 0) == n
        )
        return found if done else None

    async with asyncio.timeout(10):
        while not (found := complete()):
            cluster.run_pods()
            await cluster.finish_deletions()
            await asyncio.sleep(0.005)
    await cluster.settle()
    return found


async def test_a_deployment_gets_its_pods_and_status(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=3)))
    await cluster.until(lambda: len(cluster.pods()) == 3, "three pods")
    done = await roll(cluster)
    assert len(cluster.pods()) == 3
    reasons = {c["type"]: (c["status"], c["reason"]) for c in done["status"]["conditions"]}
    assert reasons == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    (rs,) = cluster.api.all("replicasets", "default", "apps")
    assert cluster.api.get("deployments", "web", "default", "apps")["metadata"]["annotations"][REVISION] == "1"
    for pod in cluster.pods():
        assert pod["metadata"]["ownerReferences"][0]["uid"] == rs["metadata"]["uid"]
        assert pod["metadata"]["labels"] == {"app": "web", "pod-template-hash": rs["metadata"]["name"].split("-")[-1]}
    events = {(e["reason"], e["message"]) for e in cluster.api.all("events", "default")}
    assert ("ScalingReplicaSet", f"Scaled up replica set {rs['metadata']['name']} from 0 to 3") in events


async def test_a_deleted_pod_is_replaced_and_only_once(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=3)))
    await roll(cluster)
    victim = cluster.pods()[0]["metadata"]["name"]
    await cluster.client.delete(PODS, victim, "default")
    await cluster.until(lambda: len(cluster.pods()) == 3 and victim not in str(cluster.pods()), "a replacement")
    await cluster.settle()
    assert len(cluster.pods()) == 3


async def test_a_late_cache_makes_nothing_twice(cluster: Any, deployment: Any) -> None:
    """Status writes make the controllers look again and again while their own pods have not come back yet."""
    cluster.api.lag_seconds = 0.05
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=10)))
    await cluster.until(lambda: len(cluster.pods()) == 10)
    await roll(cluster)
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 4}}, "default")
    await cluster.until(lambda: len(cluster.pods()) <= 4)
    await roll(cluster)
    template = deployment(image="web:2")["spec"]["template"]
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template}}, "default")
    await roll(cluster)
    made = [target for method, target in cluster.api.requests if method == "POST" and target.endswith("/pods")]
    assert len(made) == 14
    sets = [target for method, target in cluster.api.requests if method == "POST" and target.endswith("/replicasets")]
    assert len(sets) == 2
    assert len(cluster.pods()) == 4


async def test_controllers_outlive_the_server(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=2)))
    await roll(cluster)
    cluster.api.offline = True
    cluster.api.break_watches()
    victim = cluster.pods()[0]
    cluster.api.put({**victim, "status": {**victim["status"], "phase": "Failed"}})
    await cluster.settle()
    cluster.api.offline = False
    cluster.api.expire()
    await cluster.until(lambda: len([p for p in cluster.pods() if p["status"]["phase"] != "Failed"]) == 2, seconds=15)


async def test_scaling_down_takes_the_pod_that_is_not_ready(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=3)))
    await roll(cluster)
    sick = cluster.pods()[1]
    conditions = [{**sick["status"]["conditions"][0], "status": "False"}]
    cluster.api.put({**sick, "status": {**sick["status"], "conditions": conditions}})
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 2}}, "default")
    await cluster.until(lambda: len(cluster.pods()) == 2)
    assert sick["metadata"]["name"] not in {p["metadata"]["name"] for p in cluster.pods()}


async def test_rolling_update_and_rollback(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=4)))
    await roll(cluster)
    old = deployment(replicas=4)["spec"]["template"]
    new = deployment(replicas=4, image="web:2")["spec"]["template"]
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"template": new}}, "default")
    await roll(cluster)
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {"web:2"}
    sets = cluster.api.all("replicasets", "default", "apps")
    assert sorted((rs["metadata"]["annotations"][REVISION], rs["spec"]["replicas"]) for rs in sets) == [
        ("1", 0),
        ("2", 4),
    ]

    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"template": old}}, "default")
    done = await roll(cluster)
    assert done["metadata"]["annotations"][REVISION] == "3"
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {"web:1"}
    first = next(rs for rs in cluster.api.all("replicasets", "default", "apps") if rs["spec"]["replicas"])
    assert first["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"


async def test_recreate_waits_for_the_last_old_pod(cluster: Any, deployment: Any) -> None:
    made = bare(deployment(replicas=2, strategy={"type": "Recreate"}))
    await cluster.client.create(DEPLOYMENTS, made)
    await roll(cluster)
    new = deployment(image="web:2")["spec"]["template"]
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"template": new}}, "default")
    await cluster.until(lambda: not cluster.pods(), "old pods terminating")
    await cluster.settle()
    assert not cluster.pods(), "no new pod while old ones terminate"
    await roll(cluster)
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {"web:2"}


async def test_old_replica_sets_beyond_the_limit_go(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=1, revisionHistoryLimit=1)))
    await roll(cluster)
    for i in range(2, 5):
        new = deployment(image=f"web:{i}")["spec"]["template"]
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"template": new}}, "default")
        await roll(cluster)
    await cluster.until(lambda: len(cluster.api.all("replicasets", "default", "apps")) == 2)
    revisions = {rs["metadata"]["annotations"][REVISION] for rs in cluster.api.all("replicasets", "default", "apps")}
    assert revisions == {"3", "4"}


async def test_a_paused_deployment_scales_but_does_not_roll(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=2)))
    await roll(cluster)
    new = deployment(image="web:2")["spec"]["template"]
    await cluster.client.patch(
        DEPLOYMENTS, "web", {"spec": {"paused": True, "template": new, "replicas": 3}}, "default"
    )
    await cluster.until(lambda: len(cluster.pods()) == 3)
    await cluster.settle()
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {"web:1"}
    progressing = [
        c for c in cluster.api.get("deployments", "web", "default", "apps")["status"]["conditions"]
        if c["type"] == "Progressing"
    ]  # fmt: skip
    assert progressing[0]["reason"] == "DeploymentPaused"
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"paused": None}}, "default")
    await roll(cluster)
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {"web:2"}


async def test_creation_failures_are_told_and_retried(cluster: Any, deployment: Any) -> None:
    from controlplane.api import status

    cluster.api.fail(status.forbidden_object("pods", "", "exceeded quota"), times=3, method="POST", containing="/pods")
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=3)))
    await cluster.until(lambda: len(cluster.pods()) == 3, "pods in the end")
    events = [e for e in cluster.api.all("events", "default") if e["reason"] == "FailedCreate"]
    assert events
    assert "exceeded quota" in events[0]["message"]
    await roll(cluster)
    found = cluster.api.get("deployments", "web", "default", "apps")
    assert "ReplicaFailure" not in {c["type"] for c in found["status"]["conditions"]}


async def test_a_service_is_followed_by_its_slices(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=3)))
    cluster.api.put({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
                 "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.20"},
    })  # fmt: skip
    await roll(cluster)

    def endpoints() -> list[Obj]:
        slices = cluster.api.all("endpointslices", "default", "discovery.k8s.io")
        return [e for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"]]

    await cluster.until(lambda: len(endpoints()) == 3)
    (one,) = [s for s in cluster.api.all("endpointslices", "default", "discovery.k8s.io") if s["endpoints"]]
    assert one["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    legacy = cluster.api.get("endpoints", "web", "default")
    assert len(legacy["subsets"][0]["addresses"]) == 3

    victim = cluster.pods()[0]["metadata"]["name"]
    await cluster.client.delete(PODS, victim, "default")
    await cluster.until(lambda: len(endpoints()) == 2, "a terminating pod is not ready")

    from controlplane.client.resources import SERVICES

    await cluster.client.delete(SERVICES, "web", "default")
    await cluster.until(lambda: not cluster.api.all("endpointslices", "default", "discovery.k8s.io"))
    await cluster.until(lambda: cluster.api.get("endpoints", "web", "default") is None)


async def test_deleting_a_deployment_deletes_what_it_owns(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=2)))
    await roll(cluster)
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation_policy="Background")
    await cluster.until(lambda: not cluster.pods() and not cluster.api.all("replicasets", "default", "apps"))


async def test_foreground_deletion_ends_with_the_owner(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=2)))
    await roll(cluster)
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation_policy="Foreground")
    await cluster.until(lambda: not cluster.pods(), "pods terminating")
    assert cluster.api.get("deployments", "web", "default", "apps") is not None, "waits for its pods"
    await cluster.finish_deletions()
    await cluster.until(lambda: cluster.api.get("deployments", "web", "default", "apps") is None)
    assert not cluster.api.all("replicasets", "default", "apps")


async def test_orphaned_pods_stay_and_are_adopted_again(cluster: Any, deployment: Any) -> None:
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=2)))
    await roll(cluster)
    names = {p["metadata"]["name"] for p in cluster.pods()}
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation_policy="Orphan")
    await cluster.until(lambda: cluster.api.get("deployments", "web", "default", "apps") is None)
    (rs,) = cluster.api.all("replicasets", "default", "apps")
    assert not rs["metadata"].get("ownerReferences")
    await cluster.client.create(DEPLOYMENTS, bare(deployment(replicas=2)))
    await cluster.until(
        lambda: cluster.api.all("replicasets", "default", "apps")[0]["metadata"].get("ownerReferences"), "adoption"
    )
    await cluster.settle()
    assert {p["metadata"]["name"] for p in cluster.pods()} == names


async def test_a_new_namespace_gets_its_account_and_ca_and_goes_with_its_content(cluster: Any) -> None:
    await cluster.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    await cluster.until(lambda: cluster.api.get("serviceaccounts", "default", "team"))
    await cluster.until(lambda: cluster.api.get("configmaps", "kube-root-ca.crt", "team"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {"containers": []},
    }
    cluster.api.put({**pod, "spec": {"containers": [], "nodeName": "node-1"}, "status": {"phase": "Running"}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "team"}}
    cluster.api.put(secret)
    await cluster.client.delete(NAMESPACES, "team")
    await cluster.until(lambda: "deletionTimestamp" in cluster.api.get("pods", "p", "team")["metadata"])
    await cluster.settle()
    assert cluster.api.get("secrets", "s", "team"), "what pods use stays until they are gone"
    said = {c["type"]: c["reason"] for c in cluster.api.get("namespaces", "team")["status"]["conditions"]}
    assert said["NamespaceContentRemaining"] == "SomeResourcesRemain"
    await cluster.finish_deletions()
    await cluster.until(lambda: cluster.api.get("namespaces", "team") is None)
    assert not cluster.api.all("secrets", "team")


async def test_a_deleted_default_account_comes_back(cluster: Any) -> None:
    from controlplane.client.resources import SERVICEACCOUNTS

    first = await cluster.until(lambda: cluster.api.get("serviceaccounts", "default", "default"))
    await cluster.client.delete(SERVICEACCOUNTS, "default", "default")
    again = await cluster.until(lambda: cluster.api.get("serviceaccounts", "default", "default"))
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


async def test_nodes_get_pod_networks_of_their_own(cluster: Any) -> None:
    for i in range(3):
        cluster.api.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{i}"}, "spec": {}})
    await cluster.until(lambda: all(n["spec"].get("podCIDR") for n in cluster.api.all("nodes")))
    assert len({n["spec"]["podCIDR"] for n in cluster.api.all("nodes")}) == 3


def test_the_choice_of_controllers() -> None:
    everything = manager.enabled(["*"])
    assert len(everything) == len(manager.CONTROLLERS)
    without = {c.name for c in manager.enabled(["*", "-garbage-collector-controller"])}
    assert "garbage-collector-controller" not in without
    assert [c.name for c in manager.enabled(["deployment-controller"])] == ["deployment-controller"]
    with pytest.raises(ValueError, match="unknown controller"):
        manager.enabled(["deploiment"])


async def test_one_of_two_managers_works_and_the_other_takes_over(tmp_path: Any, deployment: Any) -> None:
    from controlplane.client.fake import FakeAPI
    from controlplane.controllers.config import Config

    api = FakeAPI()
    config = Config(
        controllers=["deployment-controller", "replicaset-controller"],
        leader_elect_lease_duration_seconds=0.3,
        leader_elect_renew_deadline_seconds=0.2,
        leader_elect_retry_period_seconds=0.05,
    )
    api.put(deployment(replicas=1))
    first = asyncio.ensure_future(manager.lead(api.client(), config))

    async def until(condition: Any) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - any condition, not one event
                await asyncio.sleep(0.005)

    await until(lambda: len(api.all("pods")) == 1)
    asked = len(api.requests)
    second = asyncio.ensure_future(manager.lead(api.client(), config))
    await until(lambda: any(m == "GET" and "/leases/" in target for m, target in api.requests[asked:]))
    watches = len(api._streams)
    assert watches > 0
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: len(api._streams) == watches)
    api.put(deployment(name="other", replicas=2))
    await until(lambda: len(api.all("pods")) == 3)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert not api._streams
    (lease,) = api.all("leases", "kube-system", "coordination.k8s.io")
    assert lease["spec"]["holderIdentity"] == ""
    assert len(asyncio.all_tasks()) == 1, "nothing is left running"
