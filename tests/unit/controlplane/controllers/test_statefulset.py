"""StatefulSets: names, order, claims, partitions."""

from typing import Any

from controlplane.client.resources import STATEFULSETS
from controlplane.controllers import statefulset

Obj = dict[str, Any]


def stateful(namespaced: Any, replicas: int = 3, image: str = "db:1", **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    fields = {
        "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}], **spec,
    }  # fmt: skip
    return namespaced("StatefulSet", "db", "apps/v1", spec=fields)  # type: ignore[no-any-return]


def names(cluster: Any) -> list[str]:
    return sorted(p["metadata"]["name"] for p in cluster.pods())


def found(cluster: Any) -> Obj:
    return cluster.api.get("statefulsets", "db", "default", "apps")  # type: ignore[no-any-return]


async def test_pods_come_and_go_in_order(cluster: Any, namespaced: Any) -> None:
    made = {**stateful(namespaced), "metadata": {"name": "db", "namespace": "default"}}
    await cluster.client.create(STATEFULSETS, made)
    for n in range(1, 4):
        await cluster.until(lambda n=n: len(names(cluster)) == n)
        await cluster.settle()
        assert names(cluster) == [f"db-{i}" for i in range(n)], "each waits for the one before"
        cluster.run_pods()
    await cluster.until(
        lambda: cluster.api.get("statefulsets", "db", "default", "apps")["status"].get("readyReplicas") == 3
    )
    pod = cluster.api.get("pods", "db-2", "default")
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-2", "db")
    assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-2"}}]
    claims = {c["metadata"]["name"] for c in cluster.api.all("persistentvolumeclaims", "default")}
    assert claims == {"data-db-0", "data-db-1", "data-db-2"}

    await cluster.client.patch(STATEFULSETS, "db", {"spec": {"replicas": 1}}, "default")
    await cluster.until(lambda: names(cluster) == ["db-0", "db-1"])
    await cluster.settle()
    assert names(cluster) == ["db-0", "db-1"], "db-1 waits until db-2 is gone"
    await cluster.finish_deletions()
    await cluster.until(lambda: names(cluster) == ["db-0"])


async def test_updates_run_from_the_top_to_the_partition(cluster: Any, namespaced: Any) -> None:
    parallel = stateful(namespaced, podManagementPolicy="Parallel")
    await cluster.client.create(STATEFULSETS, {**parallel, "metadata": {"name": "db", "namespace": "default"}})
    await cluster.until(lambda: len(names(cluster)) == 3)
    cluster.run_pods()
    await cluster.settle()
    change = {
        "template": stateful(namespaced, image="db:2")["spec"]["template"],
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
    }
    await cluster.client.patch(STATEFULSETS, "db", {"spec": change}, "default")

    def images() -> list[str]:
        return [
            p["spec"]["containers"][0]["image"] for p in sorted(cluster.pods(), key=lambda p: p["metadata"]["name"])
        ]

    seen = []
    for _ in range(200):
        await cluster.finish_deletions()
        cluster.run_pods()
        await cluster.settle(3)
        seen.append(images())
        if images() == ["db:1", "db:2", "db:2"]:
            break
    assert images() == ["db:1", "db:2", "db:2"]
    assert ["db:1", "db:2", "db:1"] not in seen
    status = found(cluster)["status"]
    assert status["currentRevision"] != status["updateRevision"]
    await cluster.client.patch(
        STATEFULSETS, "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}, "default"
    )
    for _ in range(200):
        await cluster.finish_deletions()
        cluster.run_pods()
        await cluster.settle(3)
        status = found(cluster)["status"]
        if status["currentRevision"] == status["updateRevision"]:
            break
    assert images() == ["db:2"] * 3
    assert status["currentRevision"] == status["updateRevision"]


def test_ordinals(namespaced: Any) -> None:
    sts = stateful(namespaced, ordinals={"start": 5}, replicas=2, podManagementPolicy="Parallel")
    assert statefulset.plan(sts, [], "r", 0).create == [5, 6]
    assert statefulset.ordinal(sts, {"metadata": {"name": "db-12"}}) == 12
    assert statefulset.ordinal(sts, {"metadata": {"name": "db-x"}}) == -1
    assert statefulset.ordinal(sts, {"metadata": {"name": "other-1"}}) == -1
