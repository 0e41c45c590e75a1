"""What is there after the first start, and that a second one writes nothing but what is missing."""

from typing import Any

from controlplane.apiserver.authz import policy
from controlplane.apiserver.bootstrap import Bootstrap
from controlplane.apiserver.http import User

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PLURAL = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
}


async def _again(api: Any) -> None:
    await Bootstrap(api.server.registry, api.server.table).run("127.0.0.1", 6443, "10.96.0.1")


async def test_every_role_and_binding_is_there(api: Any) -> None:
    found = set()
    for kind, plural in PLURAL.items():
        for item in (await api("GET", f"{RBAC}/{plural}")).body["items"]:
            found.add((kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]))
    wanted = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in policy.objects()}
    assert wanted == found


async def test_a_second_start_writes_nothing(api: Any) -> None:
    before = api.server.cache.revision
    await _again(api)
    assert api.server.cache.revision == before


async def test_a_missing_rule_comes_back_and_an_added_one_stays(api: Any) -> None:
    path = f"{RBAC}/namespaces/kube-system/roles/extension-apiserver-authentication-reader"
    role = (await api("GET", path)).body
    wanted, added = role["rules"], {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}
    assert (await api("PUT", path, {**role, "rules": [added]})).status == 200
    await _again(api)
    assert (await api("GET", path)).body["rules"] == [added, *wanted]


async def test_a_controllers_account_may_do_its_work_only(api: Any) -> None:
    user = User("system:serviceaccount:kube-system:job-controller", ("system:serviceaccounts", "system:authenticated"))
    assert (await api("GET", "/apis/batch/v1/jobs", user=user)).status == 200
    assert (await api("GET", "/api/v1/secrets", user=user)).status == 403


async def test_the_scheduler_reads_authentication_config_in_its_namespace_only(api: Any) -> None:
    user = User("system:kube-scheduler", ("system:authenticated",))
    name = "configmaps/extension-apiserver-authentication"
    assert (await api("GET", f"/api/v1/namespaces/kube-system/{name}", user=user)).status != 403
    assert (await api("GET", f"/api/v1/namespaces/default/{name}", user=user)).status == 403
