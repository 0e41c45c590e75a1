"""Whatever is sent: a Status that says what is wrong, never a 500."""

from typing import Any

import pytest

from controlplane.apiserver.http import User

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))

BODIES = [
    b"", b"{", b"null", b"[]", b'"x"', b"1", b"{}", b"\xff\xfe", b'{"a":' * 3000, b"[" * 100_000,
    b'{"metadata":null}', b'{"metadata":[]}', b'{"metadata":"x"}', b'{"metadata":{"name":1}}',
    b'{"metadata":{"name":null}}', b'{"metadata":{"name":"../x"}}', b'{"metadata":{"name":""}}',
    b'{"metadata":{"name":"a","labels":[]}}', b'{"metadata":{"name":"a","labels":{"a":1}}}',
    b'{"metadata":{"name":"a","annotations":{"a":null}}}', b'{"metadata":{"name":"a","finalizers":"x"}}',
    b'{"metadata":{"name":"a","ownerReferences":[{}]}}', b'{"metadata":{"name":"a","namespace":"other"}}',
    b'{"metadata":{"name":"a","uid":5}}', b'{"metadata":{"name":"a","resourceVersion":"x"}}',
    b'{"metadata":{"generateName":"' + b"a" * 300 + b'"}}', b'{"metadata":{"name":"a","creationTimestamp":"x"}}',
    b'{"metadata":{"name":"a"},"spec":null}', b'{"metadata":{"name":"a"},"spec":[]}',
    b'{"metadata":{"name":"a"},"spec":"x"}', b'{"metadata":{"name":"a"},"spec":{}}',
    b'{"metadata":{"name":"a"},"status":[]}', b'{"metadata":{"name":"a"},"data":[]}',
    b'{"metadata":{"name":"a"},"rules":{}}', b'{"metadata":{"name":"a"},"rules":[{}],"roleRef":{},"subjects":[{}]}',
    b'{"metadata":{"name":"a"},"spec":{"containers":[{}],"template":{},"selector":{},"ports":[{}],"rules":[{}]}}',
    b'{"metadata":{"name":"a"},"spec":{"template":{"spec":{"containers":[{"name":1}]}},"replicas":"x"}}',
    b'{"kind":"Other","apiVersion":"v9","metadata":{"name":"a"}}',
    b'{"kind":1,"apiVersion":[],"metadata":{"name":"a"}}',
]  # fmt: skip
PATCHES = [
    *BODIES[:11], b'[{}]', b'[{"op":"x"}]', b'[{"op":"remove","path":"/nope"}]', b'[{"op":"add","path":1}]',
    b'[{"op":"replace","path":"","value":[]}]', b'[{"op":"remove","path":"/metadata"}]',
    b'{"metadata":null}', b'{"metadata":{"name":"b"}}', b'{"metadata":{"uid":"b"}}', b'{"kind":null}',
    b'{"spec":{"$patch":"x"}}', b'{"$patch":"delete"}', b'{"metadata":{"labels":1}}', b'{"spec":1}',
    b'{"metadata":{"$deleteFromPrimitiveList/finalizers":1}}', b'{"metadata":{"$setElementOrder/ownerReferences":[1]}}',
    b'{"metadata":{"ownerReferences":[{}]}}', b'{"metadata":{"resourceVersion":"1"}}',
    b'{"metadata":{"deletionTimestamp":"x"}}',
]  # fmt: skip
KINDS = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
         "application/apply-patch+yaml")  # fmt: skip


def _status(answer: Any) -> None:
    if answer.status >= 400:
        assert answer.status < 500, answer
        assert answer.body["kind"] == "Status", answer
        assert answer.body["code"] == answer.status
        assert answer.body["message"]


def _paths(api: Any) -> list[str]:
    paths = []
    for resource in api.server.table.all():
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        paths.append(root + ("/namespaces/default/" if resource.namespaced else "/") + resource.plural)
    return paths


# With every right, but not past the checks of who may grant what.
OWNER = User("owner", ("owners", "system:authenticated"))
NODE = User("system:node:a", ("system:nodes", "owners", "system:authenticated"))


async def _owners(api: Any) -> None:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subjects = [{"kind": "Group", "name": "owners", "apiGroup": "rbac.authorization.k8s.io"}]
    body = {"metadata": {"name": "owners"}, "roleRef": reference, "subjects": subjects}
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)


@pytest.mark.parametrize("user", [ADMIN, OWNER, NODE], ids=lambda user: user.name)
async def test_creating_anything(api: Any, user: User) -> None:
    await _owners(api)
    limits = [
        {"type": "Container", "default": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1"}},
        {"type": "Pod", "max": {"cpu": "2"}},
    ]
    await api.ok(
        "POST", "/api/v1/namespaces/default/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}}
    )
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    for path in _paths(api):
        for body in BODIES:
            _status(await api("POST", path, body, user=user))


@pytest.mark.parametrize("user", [ADMIN, OWNER, NODE], ids=lambda user: user.name)
async def test_replacing_and_patching_anything(api: Any, user: User) -> None:
    await _owners(api)
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    objects = {
        "/api/v1/namespaces/default/configmaps": {},
        "/api/v1/namespaces/default/secrets": {"data": {"k": "dg=="}},
        "/api/v1/namespaces/default/pods": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
        "/api/v1/namespaces/default/services": {"spec": {"ports": [{"port": 80}]}},
        "/api/v1/nodes": {},
        "/api/v1/namespaces": {},
        "/apis/apps/v1/namespaces/default/deployments": {"spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }},
        "/apis/rbac.authorization.k8s.io/v1/clusterroles": {"rules": []},
    }  # fmt: skip
    for path, extra in objects.items():
        fresh = {"metadata": {"name": "a"}, **extra}
        for sub in (
            "",
            "/status",
            "/scale",
            "/finalize",
            "/ephemeralcontainers",
            "/resize",
            "/binding",
            "/eviction",
            "/nope",
        ):
            await api.ok("POST", path, fresh)
            for body in BODIES:
                _status(await api("PUT", f"{path}/a{sub}", body, user=user))
            for kind in KINDS:
                for body in PATCHES:
                    _status(await api("PATCH", f"{path}/a{sub}", body, kind=kind, user=user))
            assert (await api("GET", f"{path}/a")).status == 200, "still there, or this was no test"
            await _remove(api, f"{path}/a")
        for sub in ("binding", "eviction", "token", "nope"):
            await api.ok("POST", path, fresh)
            for body in BODIES:
                _status(await api("POST", f"{path}/a/{sub}", body, user=user))
            await _remove(api, f"{path}/a")
        await api.ok("POST", path, fresh)
        for body in BODIES:
            _status(await api("DELETE", f"{path}/a?dryRun=All", body, user=user))
        assert (await api("GET", f"{path}/a")).status == 200, "still there, or this was no test"


async def _remove(api: Any, path: str) -> None:
    await api("PATCH", path, {"metadata": {"finalizers": None}}, kind=KINDS[1])
    await api("PUT", f"{path}/finalize", {"metadata": {"name": "a"}, "spec": {"finalizers": []}})
    await api("DELETE", f"{path}?gracePeriodSeconds=0")
    await api("PUT", f"{path}/finalize", {"metadata": {"name": "a"}, "spec": {"finalizers": []}})
    assert (await api("GET", path)).status == 404


@pytest.mark.parametrize("query", [
    "limit=%00", "continue=%FF", "watch=x", "timeoutSeconds=-1", "labelSelector=(", "fieldSelector=%3D", "dryRun=x",
    "fieldValidation=x", "pretty=x", "gracePeriodSeconds=x", "propagationPolicy=x", "resourceVersion=%20",
    "%00=%00", "=&&=", "labelSelector=" + "a," * 5000,
])  # fmt: skip
async def test_queries(api: Any, query: str) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    for method, target in (
        ("GET", path),
        ("POST", path),
        ("DELETE", f"{path}/a"),
        ("DELETE", path),
        ("GET", f"{path}/a"),
    ):
        if method == "GET" and "watch" in query:
            continue
        _status(await api(method, f"{target}?{query}", {"metadata": {"name": "a"}} if method == "POST" else None))


@pytest.mark.parametrize("path", [
    "/", "//", "/api", "/api/", "/api/v1/", "/api/v2", "/apis/none", "/apis/apps/v9", "/apis/apps/v1/none",
    "/api/v1/namespaces/default/pods/a/b/c/d", "/api/v1/nodes/a/proxy", "/api/v1/namespaces//pods",
    "/api/v1/namespaces/default/pods/none/log", "/api/v1/namespaces/default/pods/none/exec",
    "/api/v1/namespaces/default/services/none/proxy/x", "/openapi/v3/none", "/openapi/v9", "/healthz/none",
    "/api/v1/namespaces/%2e%2e/pods", "/api/v1/pods/a", "/version/x", "/metrics/x",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"])
async def test_paths(api: Any, path: str, method: str) -> None:
    answer = await api(method, path, b"{}")
    assert answer.status < 500, answer


async def test_media_types(api: Any) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    assert (await api("POST", path, b"x", kind="text/html")).status == 415
    assert (await api("POST", path, b"\x00", kind="application/vnd.kubernetes.protobuf")).status == 400
    assert (await api("POST", path, b"k8s\x00\xff\xff\xff", kind="application/vnd.kubernetes.protobuf")).status == 400
    assert (await api("POST", path, b"a: [", kind="application/yaml")).status == 400
    made = await api("POST", path, b"metadata: {name: y}\ndata: {a: b}\n", kind="application/yaml")
    assert made.status == 201
    assert (await api("PATCH", f"{path}/y", b"{}", kind="application/json")).status == 415
    dated = await api("POST", path, b"metadata: {name: d, labels: {a: 2020-01-01}}\n", kind="application/yaml")
    assert dated.body["metadata"]["labels"] == {"a": "2020-01-01"}
