"""What an API client may rely on, whoever answers: the fake in a dict, or the real server in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane.api.status import StatusError
from controlplane.apiserver.http import Request, User
from controlplane.apiserver.server import ApiServer, Config
from controlplane.client.fake import FakeAPI
from controlplane.client.inprocess import InProcessTransport
from controlplane.client.resources import CONFIGMAPS, DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS
from controlplane.client.rest import Client
from pki import provision
from pki.layout import Layout

NS = "contract"


@asynccontextmanager
async def fake(directory: Path) -> AsyncIterator[Client]:
    yield FakeAPI().client()


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[Client]:
    """The real API server over an empty store in memory, reached without a socket."""
    layout, now = Layout.under(directory), datetime.now(UTC)
    provision.control_plane(layout, provision.authority(layout, now), "https://127.0.0.1:6443", (), now)
    config = Config(
        "127.0.0.1",
        store="memory:",
        service_account_signing_key_file=str(layout.service_account_key),
        kubelet_client_certificate=str(layout.identity("apiserver-kubelet-client")),
        kubelet_client_key=str(layout.identity("apiserver-kubelet-client")),
        kubelet_certificate_authority=str(layout.ca_cert),
    )
    server = ApiServer(config)
    await server.start()
    admin = User("kubernetes-admin", ("system:masters", "system:authenticated"))

    def make(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Request:
        return Request(method, path, query, CIMultiDictProxy(CIMultiDict(headers)), body, peer=admin)

    try:
        yield Client(InProcessTransport(server.handle, make))
    finally:
        await server.stop()


@pytest.fixture(params=[fake, server], ids=["fake", "server"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with request.param(tmp_path) as client:
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NS}}
        await client.create(SERVICEACCOUNTS, account)  # pods are not admitted without; a controller's work otherwise
        yield client
        await client.close()


def config(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NS, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}}


def pod(name: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "example"}], "terminationGracePeriodSeconds": 5}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS}, "spec": spec}


def deployment(name: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "example"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NS}, "spec": spec}


async def refused(code: int, reason: str, awaitable: Any) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await awaitable
    assert (caught.value.code, caught.value.reason) == (code, reason)
    return caught.value


async def test_create_get_and_the_names_taken(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config("a"))
    assert made["metadata"]["uid"] and made["metadata"]["resourceVersion"] and made["metadata"]["creationTimestamp"]
    assert await client.get(CONFIGMAPS, "a", NS) == made
    error = await refused(409, "AlreadyExists", client.create(CONFIGMAPS, config("a")))
    assert error.message == 'configmaps "a" already exists'
    error = await refused(404, "NotFound", client.get(CONFIGMAPS, "b", NS))
    assert error.message == 'configmaps "b" not found'


async def test_generated_names_differ(client: Client) -> None:
    obj = config("x")
    del obj["metadata"]["name"]
    obj["metadata"]["generateName"] = "gen-"
    names = {(await client.create(CONFIGMAPS, obj))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(n.startswith("gen-") and len(n) == 9 for n in names)


async def test_updates_conflict_on_a_stale_version(client: Client) -> None:
    first = await client.create(CONFIGMAPS, config("a"))
    second = await client.update(CONFIGMAPS, {**first, "data": {"k": "w"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    error = await refused(409, "Conflict", client.update(CONFIGMAPS, {**first, "data": {"k": "x"}}))
    assert "the object has been modified" in error.message
    assert await client.update(CONFIGMAPS, second) == second  # nothing changed: no new version


async def test_patches(client: Client) -> None:
    await client.create(CONFIGMAPS, config("a", x="1", y="2"))
    merged = await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"x": None}}, "data": {"l": "m"}}, NS)
    assert (merged["metadata"]["labels"], merged["data"]) == ({"y": "2"}, {"k": "v", "l": "m"})
    operations = [{"op": "replace", "path": "/data/k", "value": "w"}]
    assert (await client.patch(CONFIGMAPS, "a", operations, NS, kind="json"))["data"]["k"] == "w"
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"k": "z"}}
    await refused(409, "Conflict", client.patch(CONFIGMAPS, "a", stale, NS))
    await client.create(DEPLOYMENTS, deployment("d"))
    containers = [{"name": "c", "image": "other"}, {"name": "e", "image": "more"}]
    change = {"spec": {"template": {"spec": {"containers": containers}}}}
    patched = await client.patch(DEPLOYMENTS, "d", change, NS, kind="strategic")
    images = {c["name"]: c["image"] for c in patched["spec"]["template"]["spec"]["containers"]}
    assert images == {"c": "other", "e": "more"}


async def test_status_is_apart(client: Client) -> None:
    made = await client.create(DEPLOYMENTS, {**deployment("d"), "status": {"replicas": 9}})
    assert (made.get("status") or {}).get("replicas", 0) == 0
    assert made["metadata"]["generation"] == 1
    noted = await client.update(DEPLOYMENTS, {**made, "status": {"replicas": 1}}, subresource="status")
    assert (noted["status"]["replicas"], noted["metadata"]["generation"]) == (1, 1)
    scaled = {**noted, "spec": {**noted["spec"], "replicas": 3}, "status": {"replicas": 7}}
    changed = await client.update(DEPLOYMENTS, scaled)
    assert (changed["spec"]["replicas"], changed["status"]["replicas"]) == (3, 1)
    assert changed["metadata"]["generation"] == 2
    patched = await client.patch(DEPLOYMENTS, "d", {"status": {"replicas": 2}}, NS, subresource="status")
    assert (patched["status"]["replicas"], patched["spec"]["replicas"]) == (2, 3)


async def test_scale(client: Client) -> None:
    await client.create(DEPLOYMENTS, deployment("d"))
    await client.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 4}}, NS, subresource="scale")
    assert (await client.get(DEPLOYMENTS, "d", NS, subresource="scale"))["spec"]["replicas"] == 4
    assert (await client.get(DEPLOYMENTS, "d", NS))["spec"]["replicas"] == 4


async def test_lists_with_selectors_and_pages(client: Client) -> None:
    for i in range(5):
        await client.create(CONFIGMAPS, config(f"c{i}", parity="even" if i % 2 == 0 else "odd"))
    whole = await client.list(CONFIGMAPS, NS, label_selector="parity in (even, odd)")
    assert whole["kind"] == "ConfigMapList"
    assert [o["metadata"]["name"] for o in whole["items"]] == ["c0", "c1", "c2", "c3", "c4"]
    odd = await client.list(CONFIGMAPS, NS, label_selector="parity=odd")
    assert [o["metadata"]["name"] for o in odd["items"]] == ["c1", "c3"]
    one = await client.list(CONFIGMAPS, NS, field_selector="metadata.name=c2")
    assert [o["metadata"]["name"] for o in one["items"]] == ["c2"]
    seen, token = [], ""
    while True:
        page = await client.list(CONFIGMAPS, NS, label_selector="parity", limit=2, continue_token=token)
        seen += [o["metadata"]["name"] for o in page["items"]]
        token = page["metadata"].get("continue") or ""
        if not token:
            break
    assert seen == ["c0", "c1", "c2", "c3", "c4"]


async def test_delete_with_preconditions_and_finalizers(client: Client) -> None:
    obj = config("a")
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    made = await client.create(CONFIGMAPS, obj)
    await refused(409, "Conflict", client.delete(CONFIGMAPS, "a", NS, uid="another"))
    await client.delete(CONFIGMAPS, "a", NS, uid=made["metadata"]["uid"])
    held = await client.get(CONFIGMAPS, "a", NS)
    assert held["metadata"]["deletionTimestamp"]
    await client.patch(CONFIGMAPS, "a", {"metadata": {"finalizers": None}}, NS)
    await refused(404, "NotFound", client.get(CONFIGMAPS, "a", NS))
    await refused(404, "NotFound", client.delete(CONFIGMAPS, "a", NS))


async def test_delete_collection(client: Client) -> None:
    for i in range(4):
        await client.create(CONFIGMAPS, config(f"c{i}", parity=str(i % 2)))
    await client.delete_collection(CONFIGMAPS, NS, label_selector="parity=0")
    left = await client.list(CONFIGMAPS, NS, label_selector="parity")
    assert [o["metadata"]["name"] for o in left["items"]] == ["c1", "c3"]


async def test_binding_once_then_graceful_deletion(client: Client) -> None:
    await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    made = await client.create(PODS, pod("p"))
    assert made["status"]["phase"] == "Pending"
    target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "namespace": NS}, "target": target}
    await client.create(PODS, binding, NS, name="p", subresource="binding")
    bound = await client.get(PODS, "p", NS)
    assert bound["spec"]["nodeName"] == "n1"
    conditions = {c["type"]: c["status"] for c in bound["status"]["conditions"]}
    assert conditions["PodScheduled"] == "True"
    await refused(409, "Conflict", client.create(PODS, binding, NS, name="p", subresource="binding"))
    await client.delete(PODS, "p", NS)
    ending = await client.get(PODS, "p", NS)
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 5
    await client.delete(PODS, "p", NS, grace_period_seconds=0)
    await refused(404, "NotFound", client.get(PODS, "p", NS))


async def test_a_pod_on_no_node_goes_at_once(client: Client) -> None:
    await client.create(PODS, pod("p"))
    await client.delete(PODS, "p", NS)
    await refused(404, "NotFound", client.get(PODS, "p", NS))


async def take(client: Client, count: int, **options: Any) -> list[tuple[str, str]]:
    """The first `count` events of a watch of the ConfigMaps, bookmarks that do not end initial events left out."""
    got: list[tuple[str, str]] = []
    async with asyncio.timeout(10), aclosing(client.watch(CONFIGMAPS, NS, **options)) as events:
        async for kind, obj in events:
            if kind == "BOOKMARK":
                if (obj["metadata"].get("annotations") or {}).get("k8s.io/initial-events-end") != "true":
                    continue
                got.append((kind, ""))
            else:
                assert obj["kind"] == "ConfigMap" and obj["apiVersion"] == "v1"
                got.append((kind, obj["metadata"]["name"]))
            if len(got) == count:
                break
    return got


async def test_a_watch_continues_a_list(client: Client) -> None:
    listed = await client.list(CONFIGMAPS, NS)
    version = listed["metadata"]["resourceVersion"]
    await client.create(CONFIGMAPS, config("a"))
    watching = asyncio.create_task(take(client, 3, resource_version=version))
    await client.patch(CONFIGMAPS, "a", {"data": {"k": "w"}}, NS)
    await client.delete(CONFIGMAPS, "a", NS)
    assert await watching == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_initial_events_end_with_a_bookmark(client: Client) -> None:
    await client.create(CONFIGMAPS, config("a", x="y"))
    await client.create(CONFIGMAPS, config("b", x="y"))
    watching = asyncio.create_task(take(client, 4, send_initial_events=True, label_selector="x=y"))
    await asyncio.sleep(0)
    await client.create(CONFIGMAPS, config("c", x="y"))
    got = await watching
    assert sorted(got[:2]) == [("ADDED", "a"), ("ADDED", "b")] or got[3] == ("BOOKMARK", "")
    assert ("ADDED", "c") in got and ("BOOKMARK", "") in got


async def test_selectors_turn_changes_into_comings_and_goings(client: Client) -> None:
    await client.create(CONFIGMAPS, config("a"))
    listed = await client.list(CONFIGMAPS, NS)
    version = listed["metadata"]["resourceVersion"]
    await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"in": "yes"}}}, NS)
    await client.patch(CONFIGMAPS, "a", {"data": {"k": "w"}}, NS)
    await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"in": None}}}, NS)
    got = await take(client, 3, resource_version=version, label_selector="in=yes")
    assert got == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
