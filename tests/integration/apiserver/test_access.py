"""Who may do what: 401 and 403 with a Status, what a node's certificate reaches, and who grants what."""

from typing import Any

import pytest

RBAC = "/apis/rbac.authorization.k8s.io/v1"
POD = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


def account(server: Any, ns: str, name: str, *rules: dict[str, Any]) -> Any:
    """A connection as a new ServiceAccount with `rules` in its namespace."""
    admin = server.connect()
    admin.ok("POST", f"/api/v1/namespaces/{ns}/serviceaccounts", {"metadata": {"name": name}})
    if rules:
        roles = f"{RBAC}/namespaces/{ns}"
        admin.ok("POST", f"{roles}/roles", {"metadata": {"name": name}, "rules": list(rules)})
        admin.ok("POST", f"{roles}/rolebindings", {
            "metadata": {"name": name}, "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ns}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        })  # fmt: skip
    token = admin.ok("POST", f"/api/v1/namespaces/{ns}/serviceaccounts/{name}/token", {"spec": {}})["status"]["token"]
    return server.connect("", token)


def refused(answer: Any, code: int, text: str = "") -> None:
    assert answer.status == code, answer.body
    status = answer.json
    assert status["kind"] == "Status" and status["code"] == code
    assert status["reason"] == {401: "Unauthorized", 403: "Forbidden"}[code]
    assert text in status["message"], status["message"]


def test_a_stranger(server: Any) -> None:
    stranger = server.connect("")
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert stranger("GET", path).status == 200
    refused(stranger("GET", "/api/v1/pods"), 403, 'User "system:anonymous" cannot list resource "pods" in API group ""')
    refused(stranger("GET", "/apis"), 403, 'cannot get path "/apis"')
    refused(stranger("GET", "/metrics"), 403)
    refused(stranger("GET", "/no/such"), 403)
    refused(stranger("DELETE", "/api/v1/namespaces/default/secrets"), 403, "deletecollection")
    assert stranger.reconnects == 0


GARBAGE = ("x", "a.b.c", "..", "e30.e30.e30", "eyJhbGciOiJub25lIn0.e30.", "x" * 5000, "\xff\xfe", "a b", '"', "%00")


@pytest.mark.parametrize("token", GARBAGE)
def test_garbage_tokens(server: Any, token: str) -> None:
    connection = server.connect("")
    for header in (f"Bearer {token}", f"Basic {token}", token, f"bearer  {token}"):
        refused(connection("GET", "/api/v1/pods", Authorization=header), 401)
    assert connection.reconnects == 0
    connection("GET", "/version", Sec_WebSocket_Protocol=f"base64url.bearer.authorization.k8s.io.{token}")


def test_tampered_and_outlived_tokens(server: Any, ns: str) -> None:
    robot = account(server, ns, "robot", {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]})
    path = f"/api/v1/namespaces/{ns}/configmaps/none"
    assert robot("GET", path).status == 404
    head, claims, signature = robot.token.split(".")
    for wrong in (
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}.{claims[:-4]}.{signature}",
        f"{head}.{claims}.",
    ):
        refused(server.connect("", wrong)("GET", path), 401)
    admin = server.connect()
    admin.ok("DELETE", f"/api/v1/namespaces/{ns}/serviceaccounts/robot")
    refused(robot("GET", path), 401)
    admin.ok("POST", f"/api/v1/namespaces/{ns}/serviceaccounts", {"metadata": {"name": "robot"}})
    refused(robot("GET", path), 401)  # the same name, but not the same account


def test_audience(server: Any, ns: str) -> None:
    admin = server.connect()
    path = f"/api/v1/namespaces/{ns}/serviceaccounts/default/token"
    other = admin.ok("POST", path, {"spec": {"audiences": ["vault"]}})["status"]["token"]
    refused(server.connect("", other)("GET", "/api"), 401)
    review = "/apis/authentication.k8s.io/v1/tokenreviews"
    seen = admin.ok("POST", review, {"spec": {"token": other, "audiences": ["vault"]}})["status"]
    assert seen["authenticated"] and seen["user"]["username"] == f"system:serviceaccount:{ns}:default"
    assert not admin.ok("POST", review, {"spec": {"token": other}})["status"].get("authenticated")


def test_rights_are_what_the_role_says(server: Any, ns: str) -> None:
    robot = account(
        server, ns, "robot",
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"]},
    )  # fmt: skip
    own = f"/api/v1/namespaces/{ns}"
    assert robot("GET", f"{own}/configmaps").status == 200
    refused(robot("GET", "/api/v1/configmaps"), 403, "at the cluster scope")
    refused(robot("GET", f"{own}/configmaps?watch=1"), 403, "cannot watch")
    refused(robot("POST", f"{own}/configmaps", {"metadata": {"name": "x"}}), 403, "cannot create")
    assert robot("GET", f"{own}/secrets/mine").status == 404
    refused(robot("GET", f"{own}/secrets/other"), 403)
    refused(robot("GET", f"{own}/secrets"), 403)
    refused(robot("GET", "/api/v1/namespaces/kube-system/secrets/x"), 403, 'in the namespace "kube-system"')
    admin = server.connect()
    admin.ok("DELETE", f"{RBAC}/namespaces/{ns}/rolebindings/robot")
    refused(robot("GET", f"{own}/configmaps"), 403)  # at once


def test_nobody_grants_more_than_he_has(server: Any, ns: str) -> None:
    rbac = {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]}
    robot = account(server, ns, "robot", rbac | {"verbs": ["create", "get", "update", "patch"]},
                    {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]})  # fmt: skip
    path = f"{RBAC}/namespaces/{ns}"
    allowed = {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}
    robot.ok("POST", f"{path}/roles", {"metadata": {"name": "ok"}, "rules": [allowed]})
    for rule in (
        {**allowed, "resources": ["secrets"]}, {**allowed, "verbs": ["*"]}, {**allowed, "apiGroups": ["*"]},
        {**allowed, "verbs": ["delete"]}, {**allowed, "resources": ["*"]},
    ):  # fmt: skip
        more = {"metadata": {"name": "more"}, "rules": [rule]}
        refused(robot("POST", f"{path}/roles", more), 403, "attempting to grant RBAC permissions not currently held")
        patch = robot("PATCH", f"{path}/roles/ok", {"rules": [rule]}, kind="application/merge-patch+json")
        refused(patch, 403)
        refused(robot("PUT", f"{path}/roles/ok", {"metadata": {"name": "ok"}, "rules": [rule]}), 403)
    subject = [{"kind": "ServiceAccount", "name": "robot", "namespace": ns}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "up"}, "subjects": subject, "roleRef": reference}
    refused(robot("POST", f"{path}/rolebindings", binding), 403)
    refused(robot("POST", f"{RBAC}/clusterrolebindings", binding), 403)
    robot.ok("POST", f"{path}/rolebindings", {**binding, "roleRef": {**reference, "kind": "Role", "name": "ok"}})


@pytest.fixture
def agent(server: Any) -> Any:
    """The agent of node n1."""
    node = server.node("n1")
    if server.connect()("GET", "/api/v1/nodes/n1").status == 404:
        node.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    return node


def test_a_node_reads_only_what_its_pods_refer_to(server: Any, ns: str, agent: Any) -> None:
    admin = server.connect()
    own = f"/api/v1/namespaces/{ns}"
    for name in ("used", "pulled", "unused"):
        admin.ok("POST", f"{own}/secrets", {"metadata": {"name": name}})
    admin.ok("POST", f"{own}/configmaps", {"metadata": {"name": "cm"}})
    admin.ok("POST", "/api/v1/namespaces/kube-system/secrets", {"metadata": {"name": f"used-{ns}"}})
    for path in (f"{own}/secrets/used", f"{own}/secrets", "/api/v1/secrets", "/api/v1/namespaces/kube-system/secrets",
                 f"/api/v1/namespaces/kube-system/secrets/used-{ns}", f"{own}/configmaps/cm",
                 f"{own}/secrets?watch=1", f"{own}/secrets?fieldSelector=metadata.name=used"):  # fmt: skip
        refused(agent("GET", path), 403)
    spec = {
        "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "cm"}}]}],
        "imagePullSecrets": [{"name": "pulled"}], "volumes": [{"name": "v", "secret": {"secretName": "used"}}],
    }  # fmt: skip
    admin.ok("POST", f"{own}/pods", {"metadata": {"name": "p"}, "spec": spec})
    refused(agent("GET", f"{own}/secrets/used"), 403)  # not bound yet
    admin.ok("POST", f"{own}/pods/p/binding", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}})
    for path in (f"{own}/secrets/used", f"{own}/secrets/pulled", f"{own}/configmaps/cm",
                 f"{own}/secrets?fieldSelector=metadata.name=used"):  # fmt: skip
        assert agent("GET", path).status == 200, path
    with agent.watch(f"{own}/secrets/used?watch=1&timeoutSeconds=1") as watch:
        assert watch.next()["object"]["metadata"]["name"] == "used"
        assert watch.next() is None  # and nothing of its neighbours
    for path in (f"{own}/secrets/unused", f"{own}/secrets", f"/api/v1/namespaces/kube-system/secrets/used-{ns}",
                 f"{own}/secrets?fieldSelector=metadata.name!=used",
                 f"{own}/secrets?fieldSelector=metadata.name=unused,metadata.name=used",
                 f"{own}/secrets?fieldSelector=metadata.name=used,metadata.name=unused"):  # fmt: skip
        answer = agent("GET", path)
        assert answer.status == 403 or not answer.json["items"], (path, answer.body)
    refused(agent("DELETE", f"{own}/secrets/used"), 403)
    refused(server.node("n2")("GET", f"{own}/secrets/used"), 403)  # another node
    admin.ok("DELETE", f"{own}/pods/p?gracePeriodSeconds=0")
    refused(agent("GET", f"{own}/secrets/used"), 403)


def test_node_restriction(server: Any, ns: str, agent: Any) -> None:
    admin = server.connect()
    admin("POST", "/api/v1/nodes", {"metadata": {"name": "other"}})
    merge = {"kind": "application/merge-patch+json"}
    refused(agent("PATCH", "/api/v1/nodes/other/status", {"status": {"phase": "x"}}, **merge), 403)
    refused(agent("POST", "/api/v1/nodes", {"metadata": {"name": "third"}}), 403)
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/trusted": "yes"}}}
    refused(agent("PATCH", "/api/v1/nodes/n1", label, **merge), 403)
    agent.ok("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"free": "yes"}}}, **merge)
    refused(agent("PATCH", "/api/v1/nodes/n1", {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}, **merge),
            403)  # fmt: skip
    refused(agent("DELETE", "/api/v1/nodes/n1"), 403)
    refused(agent("POST", f"/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "p"}, **POD}), 403)
    admin.ok("POST", f"/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "p"}, **POD})
    refused(agent("PATCH", f"/api/v1/namespaces/{ns}/pods/p/status", {"status": {"phase": "Running"}}, **merge), 403)
    refused(agent("DELETE", f"/api/v1/namespaces/{ns}/pods/p"), 403)
    refused(agent("POST", f"/api/v1/namespaces/{ns}/serviceaccounts/default/token", {"spec": {}}), 403)
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    admin("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
    agent.ok("POST", lease, {"metadata": {"name": "n1"}})
    refused(agent("POST", lease, {"metadata": {"name": "other"}}), 403)
    refused(agent("PUT", f"{lease}/other", {"metadata": {"name": "other"}}), 403)
    refused(agent("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"), 403)


def test_impersonation_is_not_silently_ignored(server: Any) -> None:
    """A caller who asks to be somebody else must never get his own rights instead."""
    answer = server.connect()("GET", "/api/v1/secrets", Impersonate_User="nobody")
    assert answer.status == 403, answer.body[:200]
