"""What a node's identity may do: read what its own pods need, write what is its own, nothing else."""

from typing import Any

import pytest

from controlplane.apiserver.http import User

NODE = User("system:node:node-1", ("system:nodes", "system:authenticated"))
OTHER = User("system:node:node-2", ("system:nodes", "system:authenticated"))
NS = "/api/v1/namespaces/team"


@pytest.fixture
async def team(api: Any, pod: Any) -> Any:
    """Two secrets; a pod on node-1 that mounts one of them; a pod on node-2."""
    await api.namespace("team")
    for name in ("used", "unused"):
        await api.ok("POST", f"{NS}/secrets", {"metadata": {"name": name}, "data": {"k": "dg=="}})
    volumes = [{"name": "v", "secret": {"secretName": "used"}}]
    made = await api.ok("POST", f"{NS}/pods", pod("web", volumes=volumes, nodeName="node-1"))
    await api.ok("POST", f"{NS}/pods", pod("other", nodeName="node-2"))
    return made


async def test_secrets_only_while_a_pod_of_the_node_needs_them(api: Any, team: Any) -> None:
    assert (await api("GET", f"{NS}/secrets/used", user=NODE)).status == 200
    assert (await api("GET", f"{NS}/secrets/used", user=OTHER)).status == 403
    assert (await api("GET", f"{NS}/secrets/unused", user=NODE)).status == 403
    assert (await api("GET", f"{NS}/secrets", user=NODE)).status == 403
    assert (await api("GET", f"{NS}/secrets?fieldSelector=metadata.name%3Dused", user=NODE)).status == 200
    assert (await api("GET", "/api/v1/secrets", user=NODE)).status == 403
    assert (await api("PUT", f"{NS}/secrets/used", {"metadata": {"name": "used"}}, user=NODE)).status == 403
    await api.ok("DELETE", f"{NS}/pods/web?gracePeriodSeconds=0")
    assert (await api("GET", f"{NS}/secrets/used", user=NODE)).status == 403


async def test_status_only_of_its_own_pods(api: Any, team: Any) -> None:
    patch = {"status": {"phase": "Running"}}
    kind = "application/merge-patch+json"
    assert (await api("PATCH", f"{NS}/pods/web/status", patch, kind=kind, user=NODE)).status == 200
    assert (await api("PATCH", f"{NS}/pods/other/status", patch, kind=kind, user=NODE)).status == 403
    spec = {"spec": {"containers": [{"name": "c", "image": "evil"}]}}
    strategic = "application/strategic-merge-patch+json"
    assert (await api("PATCH", f"{NS}/pods/web", spec, kind=strategic, user=NODE)).status == 403
    assert (await api("DELETE", f"{NS}/pods/other?gracePeriodSeconds=0", user=NODE)).status == 403
    assert (await api("DELETE", f"{NS}/pods/web?gracePeriodSeconds=0", user=NODE)).status == 200


async def test_only_mirror_pods_can_be_created(api: Any, team: Any, pod: Any) -> None:
    refused = await api("POST", f"{NS}/pods", pod("mine", nodeName="node-1"), user=NODE)
    assert refused.status == 403
    mirror = pod("static", nodeName="node-1")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert (await api("POST", f"{NS}/pods", mirror, user=NODE)).status == 403  # belongs to nobody
    node = await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "node-1"}})
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": node["metadata"]["uid"], "controller": True}
    mirror["metadata"]["ownerReferences"] = [owner]
    assert (await api("POST", f"{NS}/pods", mirror, user=OTHER)).status == 403
    for spec in (
        {"serviceAccountName": "default"},
        {"volumes": [{"name": "v", "secret": {"secretName": "unused"}}]},
        {"containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "unused"}}]}]},
    ):
        curious = {**mirror, "spec": {**mirror["spec"], **spec}}
        assert (await api("POST", f"{NS}/pods", curious, user=NODE)).status == 403, spec
    assert (await api("POST", f"{NS}/pods", mirror, user=NODE)).status == 201


async def test_only_its_own_node_and_lease(api: Any) -> None:
    for name, code in (("node-2", 403), ("node-1", 201)):
        assert (await api("POST", "/api/v1/nodes", {"metadata": {"name": name}}, user=NODE)).status == code
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        assert (await api("POST", leases, {"metadata": {"name": name}}, user=NODE)).status == code
    assert (await api("GET", f"{leases}/node-1", user=NODE)).status == 200
    assert (await api("GET", f"{leases}/node-1", user=OTHER)).status == 403
    kind = "application/merge-patch+json"
    taint = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    assert (await api("PATCH", "/api/v1/nodes/node-1", taint, kind=kind, user=NODE)).status == 403
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/team": "x"}}}
    assert (await api("PATCH", "/api/v1/nodes/node-1", label, kind=kind, user=NODE)).status == 403
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert (await api("PATCH", "/api/v1/nodes/node-1/status", ready, kind=kind, user=OTHER)).status == 403
    assert (await api("PATCH", "/api/v1/nodes/node-1/status", ready, kind=kind, user=NODE)).status == 200


async def test_tokens_only_for_its_own_pods(api: Any, team: Any) -> None:
    uid = team["metadata"]["uid"]

    async def ask(user: User, reference: Any) -> int:
        spec = {"spec": {"boundObjectRef": reference}}
        answer = await api("POST", f"{NS}/serviceaccounts/default/token", spec, user=user)
        return int(answer.status)

    bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": uid}
    assert await ask(NODE, bound) == 201
    assert await ask(OTHER, bound) == 403
    assert await ask(NODE, {**bound, "uid": "another"}) == 403
    assert await ask(NODE, None) == 403


async def test_it_reads_its_own_pods_only(api: Any, team: Any) -> None:
    assert (await api("GET", f"{NS}/pods/web", user=NODE)).status == 200
    assert (await api("GET", f"{NS}/pods/other", user=NODE)).status == 403
    assert (await api("GET", f"{NS}/pods/none", user=NODE)).status == 404
    assert (await api("GET", "/api/v1/pods", user=NODE)).status == 403
    mine = await api("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1", user=NODE)
    assert [item["metadata"]["name"] for item in mine.body["items"]] == ["web"]
    for selector in ("spec.nodeName%3Dnode-2", "spec.nodeName!%3Dnode-1", "metadata.name%3Dweb", "%5C"):
        assert (await api("GET", f"/api/v1/pods?fieldSelector={selector}", user=NODE)).status == 403
