"""Who may impersonate becomes that one, with nothing of his own rights left."""

from typing import Any

from controlplane.apiserver.http import User

JANE = User("jane", ("system:authenticated",))


async def _whoami(api: Any, headers: dict[str, str], user: User | None = None) -> Any:
    more = {"user": user} if user else {}
    return await api("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, headers=headers, **more)


async def test_the_impersonated_user_is_who_asks(api: Any) -> None:
    answer = await _whoami(api, {"Impersonate-User": "jane"})
    assert answer.body["status"]["userInfo"] == {"username": "jane", "groups": ["system:authenticated"]}


async def test_the_impersonated_user_has_only_his_own_rights(api: Any) -> None:
    answer = await api("GET", "/api/v1/namespaces/default/secrets", headers={"Impersonate-User": "jane"})
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert 'User "jane" cannot list resource "secrets"' in answer.body["message"]


async def test_a_service_account_gets_its_groups(api: Any) -> None:
    answer = await _whoami(api, {"Impersonate-User": "system:serviceaccount:default:ci"})
    groups = answer.body["status"]["userInfo"]["groups"]
    assert groups == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]


async def test_who_may_not_impersonate_is_refused(api: Any) -> None:
    answer = await _whoami(api, {"Impersonate-User": "kubernetes-admin"}, user=JANE)
    assert answer.status == 403
    assert 'cannot impersonate resource "users"' in answer.body["message"]


async def test_a_group_is_a_permission_of_its_own(api: Any) -> None:
    rules = [{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}]
    await api.ok(
        "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "actor"}, "rules": rules}
    )
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "metadata": {"name": "actor"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "actor"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
    })  # fmt: skip
    assert (await _whoami(api, {"Impersonate-User": "bob"}, user=JANE)).status == 201
    headers = {"Impersonate-User": "bob", "Impersonate-Group": "system:masters"}
    assert (await _whoami(api, headers, user=JANE)).status == 403


async def test_a_group_without_a_user_is_an_error(api: Any) -> None:
    assert (await _whoami(api, {"Impersonate-Group": "system:masters"})).status == 400
