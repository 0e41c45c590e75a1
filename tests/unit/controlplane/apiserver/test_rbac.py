"""Role-based access control: who may what, at once after a change, and nobody grants what he does not hold."""

from typing import Any

import pytest

from controlplane.apiserver.authz.rbac import path_matches, resource_matches
from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo

ROOT = "/apis/rbac.authorization.k8s.io/v1"
JANE = User("jane", ("developers", "system:authenticated"))


def info(verb: str, resource: str, group: str = "", name: str = "", sub: str = "") -> RequestInfo:
    return RequestInfo(True, "", verb, group, "v1", resource, sub, "default", name)


def rule(verbs: str, groups: str, resources: str, names: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"verbs": verbs.split(), "resources": resources.split()}
    made["apiGroups"] = ["" if g == "core" else g for g in groups.split()]
    return {**made, "resourceNames": names.split()} if names else made


@pytest.mark.parametrize(
    ("rule", "info", "matches"),
    [
        (rule("get", "core", "pods"), info("get", "pods"), True),
        (rule("get", "core", "pods"), info("list", "pods"), False),
        (rule("*", "core", "pods"), info("delete", "pods"), True),
        (rule("get", "core", "pods"), info("get", "pods", sub="log"), False),
        (rule("get", "core", "pods/log"), info("get", "pods", sub="log"), True),
        (rule("get", "core", "*/log"), info("get", "pods", sub="log"), True),
        (rule("get", "core", "*/log"), info("get", "pods"), False),
        (rule("get", "core", "*"), info("get", "pods", sub="log"), True),
        (rule("get", "apps", "pods"), info("get", "pods"), False),
        (rule("get", "*", "pods"), info("get", "pods", "metrics.k8s.io"), True),
        (rule("get", "core", "pods", "a b"), info("get", "pods", name="b"), True),
        (rule("get", "core", "pods", "a b"), info("get", "pods", name="c"), False),
        (rule("create", "core", "pods", "a"), info("create", "pods"), False),
    ],
)
def test_rules_on_resources(rule: Any, info: RequestInfo, matches: bool) -> None:
    assert resource_matches(rule, info) is matches


@pytest.mark.parametrize(
    ("urls", "path", "matches"),
    [
        (["/healthz"], "/healthz", True),
        (["/healthz"], "/healthz/x", False),
        (["/healthz/*"], "/healthz/x", True),
        (["*"], "/anything", True),
        (["/api*"], "/apis", True),
    ],
)
def test_rules_on_paths(urls: list[str], path: str, matches: bool) -> None:
    rule = {"verbs": ["get"], "nonResourceURLs": urls}
    assert path_matches(rule, RequestInfo(False, path, "get")) is matches


async def may(api: Any, user: User, verb: str, resource: str, namespace: str = "default", **more: str) -> bool:
    attributes = {"verb": verb, "resource": resource, "namespace": namespace, **more}
    body = {"spec": {"resourceAttributes": attributes}}
    answer = await api.ok("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, user=user)
    return bool(answer["status"]["allowed"])


async def bind(api: Any, kind: str, role: str, subject: dict[str, str], namespace: str = "") -> None:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    path = f"{ROOT}/namespaces/{namespace}/rolebindings" if namespace else f"{ROOT}/clusterrolebindings"
    body = {"metadata": {"name": f"b-{role}"}, "roleRef": reference, "subjects": [subject]}
    await api.ok("POST", path, body)


GROUP = {"kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io"}


async def test_a_cluster_role_in_one_namespace_and_everywhere(api: Any) -> None:
    assert not await may(api, JANE, "list", "pods")
    await bind(api, "ClusterRole", "view", GROUP, "default")
    assert await may(api, JANE, "list", "pods")
    assert not await may(api, JANE, "list", "pods", "kube-system")
    assert not await may(api, JANE, "list", "secrets")
    assert not await may(api, JANE, "delete", "pods")
    await bind(api, "ClusterRole", "edit", GROUP)
    assert await may(api, JANE, "delete", "pods", "kube-system")
    assert not await may(api, JANE, "create", "rolebindings", group="rbac.authorization.k8s.io")


async def test_changes_count_at_once(api: Any) -> None:
    rules = [rule("get", "core", "configmaps")]
    await api.ok("POST", f"{ROOT}/namespaces/default/roles", {"metadata": {"name": "r"}, "rules": rules})
    await bind(api, "Role", "r", GROUP, "default")
    assert await may(api, JANE, "get", "configmaps")
    wanted = {"rules": [rule("list", "core", "configmaps")]}
    await api.ok("PATCH", f"{ROOT}/namespaces/default/roles/r", wanted, kind="application/merge-patch+json")
    assert not await may(api, JANE, "get", "configmaps")
    assert await may(api, JANE, "list", "configmaps")
    await api.ok("DELETE", f"{ROOT}/namespaces/default/rolebindings/b-r")
    assert not await may(api, JANE, "list", "configmaps")


async def test_a_service_account_as_subject(api: Any) -> None:
    await bind(api, "ClusterRole", "view", {"kind": "ServiceAccount", "name": "ci", "namespace": "default"}, "default")
    account = User("system:serviceaccount:default:ci", ("system:serviceaccounts", "system:authenticated"))
    assert await may(api, account, "list", "pods")
    assert not await may(api, User("ci", ("system:authenticated",)), "list", "pods")


async def test_nobody_grants_what_he_does_not_hold(api: Any) -> None:
    await bind(api, "ClusterRole", "admin", GROUP, "default")
    roles, bindings = (f"{ROOT}/namespaces/default/{plural}" for plural in ("roles", "rolebindings"))

    async def role(name: str, *rules: Any) -> int:
        answer = await api("POST", roles, {"metadata": {"name": name}, "rules": list(rules)}, user=JANE)
        return int(answer.status)

    assert await role("fine", rule("get list", "core", "pods secrets")) == 201
    assert await role("nodes", rule("get", "core", "nodes")) == 403
    assert await role("all", rule("*", "*", "*")) == 403
    for name, code in (("view", 201), ("cluster-admin", 403)):
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        body = {"metadata": {"name": f"mine-{name}"}, "roleRef": reference, "subjects": [GROUP]}
        assert (await api("POST", bindings, body, user=JANE)).status == code
    widened = {"rules": [rule("*", "*", "*")]}
    merge = "application/merge-patch+json"
    assert (await api("PATCH", f"{roles}/fine", widened, kind=merge, user=JANE)).status == 403


async def test_reviews_by_and_for_others(api: Any) -> None:
    await bind(api, "ClusterRole", "view", GROUP, "default")
    spec = {"user": "jane", "groups": ["developers"], "resourceAttributes": {"verb": "list", "resource": "pods"}}
    path = "/apis/authorization.k8s.io/v1"
    local = f"{path}/namespaces/default/localsubjectaccessreviews"
    inside = {**spec, "resourceAttributes": {**spec["resourceAttributes"], "namespace": "default"}}
    assert (await api.ok("POST", local, {"metadata": {"namespace": "default"}, "spec": inside}))["status"]["allowed"]
    assert not (await api.ok("POST", f"{path}/subjectaccessreviews", {"spec": spec}))["status"]["allowed"]
    assert (await api("POST", f"{path}/subjectaccessreviews", {"spec": spec}, user=JANE)).status == 403
    rules = await api.ok("POST", f"{path}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, user=JANE)
    assert any("pods" in r["resources"] for r in rules["status"]["resourceRules"])


async def test_bootstrap_keeps_what_an_administrator_changed(api: Any) -> None:
    path = f"{ROOT}/clusterroles/view"
    merge = "application/merge-patch+json"
    extra = rule("get", "example.org", "gadgets")
    view = await api.ok("GET", path)
    await api.ok("PATCH", path, {"rules": [*view["rules"][1:], extra]}, kind=merge)
    off = {"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []}
    await api.ok("PATCH", f"{ROOT}/clusterroles/edit", off, kind=merge)
    await api.server.bootstrap.run("192.0.2.1", 6443, "10.96.0.1")
    rules = (await api.ok("GET", path))["rules"]
    assert view["rules"][0] in rules
    assert extra in rules
    assert not (await api.ok("GET", f"{ROOT}/clusterroles/edit")).get("rules")
