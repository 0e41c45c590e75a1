"""The controllers against the real API server in this process, as the user that RBAC knows them by."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.apiserver.http import Request, User
from controlplane.apiserver.server import ApiServer
from controlplane.apiserver.server import Config as ServerConfig
from controlplane.client import resources as r
from controlplane.client.inprocess import InProcessTransport
from controlplane.client.rest import Client
from controlplane.controllers import manager
from controlplane.controllers.config import Config
from pki import provision
from pki.layout import Layout

Obj = dict[str, Any]
NS = "team"


class Cluster:
    """An admin's client, and tasks that play scheduler and node agents."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def agents(self) -> None:
        """Bind every new pod to a node that is meant for it, run it, and end what is to be deleted."""
        while True:
            async for kind, pod in self.client.watch(r.PODS, resource_version="", send_initial_events=True):
                if kind in ("ADDED", "MODIFIED"):
                    try:
                        await self._serve(pod)
                    except StatusError as error:
                        if error.code not in (404, 409):
                            raise

    async def _serve(self, pod: Obj) -> None:
        meta, name, ns = pod["metadata"], pod["metadata"]["name"], pod["metadata"]["namespace"]
        if "deletionTimestamp" in meta:
            if pod["spec"].get("nodeName"):
                await self.client.delete(r.PODS, name, ns, grace_period_seconds=0, uid=meta["uid"])
        elif not pod["spec"].get("nodeName"):
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": ns}}
            target = {"target": {"apiVersion": "v1", "kind": "Node", "name": _node_for(pod)}}
            await self.client.create(r.PODS, {**binding, **target}, ns, name=name, subresource="binding")
        elif pod["status"].get("phase") == "Pending":
            work = pod["spec"]["restartPolicy"] != "Always"
            ready = {"type": "Ready", "status": "False" if work else "True", "lastTransitionTime": clock.rfc3339()}
            ip = f"10.244.0.{int(meta['uid'][:2], 16)}"
            status = {
                "phase": "Succeeded" if work else "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "conditions": [ready],
            }
            await self.client.patch(r.PODS, name, {"status": status}, ns, subresource="status")

    async def until(self, condition: Callable[[], Awaitable[Any]], seconds: float = 15.0) -> Any:
        """Wait until `condition()` gives something true, and return it."""
        async with asyncio.timeout(seconds):
            while not (found := await condition()):  # noqa: ASYNC110 - any condition, not one event
                await asyncio.sleep(0.005)
        return found

    async def find(self, resource: r.ApiResource, name: str, namespace: str = NS) -> Obj | None:
        try:
            return await self.client.get(resource, name, namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    async def all(self, resource: r.ApiResource, namespace: str = NS, selector: str = "") -> list[Obj]:
        return (await self.client.list(resource, namespace, label_selector=selector))["items"]  # type: ignore[no-any-return]

    async def rolled_out(self, name: str = "web") -> Obj:
        """Wait for what `kubectl rollout status` waits for."""

        async def done() -> Obj | None:
            found = await self.client.get(r.DEPLOYMENTS, name, NS)
            status, n = found.get("status") or {}, found["spec"]["replicas"]
            right = all(status.get(k, 0) == n for k in ("replicas", "updatedReplicas", "availableReplicas"))
            return found if right and status.get("observedGeneration") == found["metadata"]["generation"] else None

        return await self.until(done)  # type: ignore[no-any-return]


def _node_for(pod: Obj) -> str:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            return str(field["values"][0])
    return "node-1"


@pytest.fixture
async def cluster(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Cluster]:
    layout, now = Layout.under(tmp_path), datetime.now(UTC)
    provision.control_plane(layout, provision.authority(layout, now), "https://127.0.0.1:6443", (), now)
    server = ApiServer(
        ServerConfig(
            "127.0.0.1",
            store="memory:",
            service_account_signing_key_file=str(layout.service_account_key),
            kubelet_client_certificate=str(layout.identity("apiserver-kubelet-client")),
            kubelet_client_key=str(layout.identity("apiserver-kubelet-client")),
            kubelet_certificate_authority=str(layout.ca_cert),
        )
    )
    await server.start()

    def client(name: str, *groups: str) -> Client:
        user = User(name, (*groups, "system:authenticated"))

        def make(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Request:
            return Request(method, path, query, CIMultiDictProxy(CIMultiDict(headers)), body, peer=user)

        return Client(InProcessTransport(server.handle, make))

    made = Cluster(client("kubernetes-admin", "system:masters"))
    started = asyncio.Event()
    config = Config(root_ca_file=str(layout.ca_cert))
    tasks = [
        asyncio.ensure_future(
            manager.run(client("system:kube-controller-manager"), config, lambda controllers: started.set())
        ),
        asyncio.ensure_future(made.agents()),
    ]
    async with asyncio.timeout(15):
        await started.wait()
    for n in (1, 2, 3):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{n}"}, "spec": {}}
        await made.client.create(r.NODES, node)
        ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}
        await made.client.patch(r.NODES, f"node-{n}", {"status": ready}, subresource="status")
    await made.client.create(r.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
    await made.until(lambda: made.find(r.SERVICEACCOUNTS, "default"))
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.stop()
    bad = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING and "controlplane.contr" in x.name]
    assert not bad, bad


def template(image: str, app: str = "web") -> Obj:
    container = {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container]}}


def deployment(replicas: int = 3, image: str = "web:1", **spec: Any) -> Obj:
    fields = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image), **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NS}, "spec": fields}


async def test_a_deployment_rolls_out_back_and_away(cluster: Cluster) -> None:
    await cluster.client.create(r.DEPLOYMENTS, deployment())
    done = await cluster.rolled_out()
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NS},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }  # fmt: skip
    await cluster.client.create(r.SERVICES, service)

    async def endpoints() -> bool:
        slices = await cluster.all(r.ENDPOINTSLICES)
        legacy = await cluster.find(r.ENDPOINTS, "web")
        ready = [e for s in slices for e in s["endpoints"] or () if e["conditions"]["ready"]]
        return (
            len(ready) == 3 and legacy is not None and len((legacy.get("subsets") or [{}])[0].get("addresses", ())) == 3
        )

    await cluster.until(endpoints)
    await cluster.client.patch(r.DEPLOYMENTS, "web", {"spec": {"template": template("web:2")}}, NS, kind="strategic")
    done = await cluster.rolled_out()
    pods = await cluster.all(r.PODS)
    assert {p["spec"]["containers"][0]["image"] for p in pods if "deletionTimestamp" not in p["metadata"]} == {"web:2"}
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    await cluster.until(endpoints)
    await cluster.client.patch(r.DEPLOYMENTS, "web", {"spec": {"template": template("web:1")}}, NS, kind="strategic")
    done = await cluster.rolled_out()
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert len(await cluster.all(r.REPLICASETS)) == 2, "rolled back to the first, not to a third"
    await cluster.client.delete(r.SERVICES, "web", NS)
    await cluster.client.delete(r.DEPLOYMENTS, "web", NS, propagation_policy="Foreground")

    async def gone() -> bool:
        kinds = (r.DEPLOYMENTS, r.REPLICASETS, r.PODS, r.ENDPOINTSLICES, r.ENDPOINTS)
        return not any([await cluster.all(kind) for kind in kinds])

    await cluster.until(gone)


async def test_the_other_workloads(cluster: Cluster) -> None:
    def workload(kind: r.ApiResource, name: str, **spec: Any) -> Obj:
        metadata = {"name": name, "namespace": NS}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}

    def selecting(app: str) -> Obj:
        return {"selector": {"matchLabels": {"app": app}}, "template": template("i:1", app)}

    await cluster.client.create(
        r.STATEFULSETS, workload(r.STATEFULSETS, "db", replicas=2, serviceName="db", **selecting("db"))
    )
    await cluster.client.create(r.DAEMONSETS, workload(r.DAEMONSETS, "agent", **selecting("agent")))
    job = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}
    await cluster.client.create(r.JOBS, workload(r.JOBS, "work", completions=3, parallelism=2, template=job))
    cron = workload(r.CRONJOBS, "tick", schedule="*/5 * * * *", suspend=True, jobTemplate={"spec": {"template": job}})
    await cluster.client.create(r.CRONJOBS, cron)
    budget = workload(r.PODDISRUPTIONBUDGETS, "db", minAvailable=1, selector={"matchLabels": {"app": "db"}})
    await cluster.client.create(r.PODDISRUPTIONBUDGETS, budget)

    async def right() -> bool:
        db = (await cluster.client.get(r.STATEFULSETS, "db", NS)).get("status") or {}
        agent = (await cluster.client.get(r.DAEMONSETS, "agent", NS)).get("status") or {}
        work = (await cluster.client.get(r.JOBS, "work", NS)).get("status") or {}
        pdb = (await cluster.client.get(r.PODDISRUPTIONBUDGETS, "db", NS)).get("status") or {}
        return (
            db.get("readyReplicas") == 2
            and agent.get("numberAvailable") == 3
            and work.get("succeeded") == 3
            and any(c["type"] == "Complete" for c in work.get("conditions") or ())
            and pdb.get("disruptionsAllowed") == 1
        )

    await cluster.until(right)
    names = {p["metadata"]["name"] for p in await cluster.all(r.PODS, selector="app=db")}
    assert names == {"db-0", "db-1"}
    nodes = {p["spec"]["nodeName"] for p in await cluster.all(r.PODS, selector="app=agent")}
    assert nodes == {"node-1", "node-2", "node-3"}

    await cluster.client.delete(r.NAMESPACES, NS)

    async def gone() -> bool:
        return await cluster.find(r.NAMESPACES, NS, "") is None

    await cluster.until(gone)
    assert not await cluster.all(r.PODS)


async def test_orphans_stay_and_owners_that_never_were_do_not_hold(cluster: Cluster) -> None:
    await cluster.client.create(r.DEPLOYMENTS, deployment(2))
    await cluster.rolled_out()
    await cluster.client.delete(r.DEPLOYMENTS, "web", NS, propagation_policy="Orphan")

    async def orphaned() -> bool:
        if await cluster.find(r.DEPLOYMENTS, "web") is not None:
            return False
        (rs,) = await cluster.all(r.REPLICASETS)
        return not rs["metadata"].get("ownerReferences")

    await cluster.until(orphaned)
    assert len(await cluster.all(r.PODS)) == 2
    ref = {"apiVersion": "v1", "kind": "Secret", "name": "none", "uid": clock.new_uid()}
    metadata = {"name": "lost", "namespace": NS, "ownerReferences": [ref]}
    await cluster.client.create(r.CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    async def collected() -> bool:
        return await cluster.find(r.CONFIGMAPS, "lost") is None

    await cluster.until(collected)


async def test_new_kinds_are_collected_at_once(cluster: Cluster) -> None:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "boxes", "kind": "Box"}
    await cluster.client.create(r.CUSTOMRESOURCEDEFINITIONS, {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    })  # fmt: skip
    boxes = r.ApiResource("example.com", "v1", "boxes", "Box")

    def box(name: str, *owners: Obj) -> Obj:
        refs = [{"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"],
                 "uid": o["metadata"]["uid"], "blockOwnerDeletion": True} for o in owners]  # fmt: skip
        meta = {"name": name, "namespace": NS, "ownerReferences": refs}
        return {"apiVersion": "example.com/v1", "kind": "Box", "metadata": meta}

    outer = await cluster.client.create(boxes, box("outer"), NS)
    inner = await cluster.client.create(boxes, box("inner", outer), NS)
    await cluster.client.create(r.CONFIGMAPS, {**box("held", inner), "apiVersion": "v1", "kind": "ConfigMap"}, NS)
    await cluster.client.delete(boxes, "outer", NS, propagation_policy="Foreground")

    async def empty() -> bool:
        return not await cluster.find(r.CONFIGMAPS, "held") and not await cluster.all(boxes)

    await cluster.until(empty)
    await cluster.client.create(boxes, box("left"), NS)
    await cluster.client.delete(r.NAMESPACES, NS)

    async def gone() -> bool:
        return not await cluster.find(r.NAMESPACES, NS, "")

    await cluster.until(gone)
    assert await cluster.all(boxes, "") == []


async def test_nodes_are_given_networks_and_taints(cluster: Cluster) -> None:
    async def networks() -> list[str] | None:
        found = [n["spec"].get("podCIDR") for n in (await cluster.client.list(r.NODES))["items"]]
        return found if all(found) else None

    assert len(set(await cluster.until(networks))) == 3
    lost = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}
    await cluster.client.patch(r.NODES, "node-2", {"status": lost}, subresource="status")

    async def tainted() -> set[str]:
        node = await cluster.client.get(r.NODES, "node-2")
        return {t["effect"] for t in node["spec"].get("taints") or () if t["key"] == "node.kubernetes.io/unreachable"}

    async def evicting() -> bool:
        return await tainted() == {"NoSchedule", "NoExecute"}

    await cluster.until(evicting, seconds=5)


async def test_quotas_are_counted_and_given_back(cluster: Cluster) -> None:
    hard = {"pods": "5", "requests.cpu": "2", "count/deployments.apps": "1", "secrets": "3"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}
    await cluster.client.create(r.RESOURCEQUOTAS, quota, NS)

    async def used() -> Any:
        return ((await cluster.client.get(r.RESOURCEQUOTAS, "q", NS)).get("status") or {}).get("used") or {}

    async def counted() -> bool:
        return set(await used()) == set(hard)

    await cluster.until(counted)
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "500m"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    await cluster.client.create(r.PODS, pod, NS)
    assert (await used())["pods"] == "1" and (await used())["requests.cpu"] == "500m"
    await cluster.client.delete(r.PODS, "p", NS)

    async def given_back() -> bool:
        return (await used())["pods"] == "0" and (await used())["requests.cpu"] == "0"

    await cluster.until(given_back)
