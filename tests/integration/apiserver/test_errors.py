"""Bodies, names and paths that are wrong: a clear Status, the right code, and a connection that goes on."""

import socket
import ssl
from typing import Any

import pytest

CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PROTOBUF = "application/vnd.kubernetes.protobuf"
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def cm(**metadata: Any) -> dict[str, Any]:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}


DEEP = b'{"metadata":{"name":"x"},"data":' + b'{"a":' * 20000 + b"1" + b"}" * 20000 + b"}"

CASES: list[tuple[str, str, str, Any, dict[str, str], int, str]] = [
    # name, method, path, body, headers, code, part of the message
    ("no json", "POST", CMS, b"{nope", {}, 400, ""),
    ("half json", "POST", CMS, b'{"metadata": {"name": "x"', {}, 400, ""),
    ("empty body", "POST", CMS, b"", {}, 400, ""),
    ("no body", "POST", CMS, None, {}, 400, ""),
    ("null", "POST", CMS, b"null", {}, 400, ""),
    ("list", "POST", CMS, b"[]", {}, 400, ""),
    ("number", "POST", CMS, b"3", {}, 400, ""),
    ("string", "POST", CMS, b'"x"', {}, 400, ""),
    ("bad utf-8", "POST", CMS, b'{"metadata":{"name":"\xff\xfe"}}', {}, 400, ""),
    ("lone surrogate", "POST", CMS, b'{"metadata":{"name":"a"},"data":{"k":"\\ud800"}}', {}, 400, ""),
    ("very deep", "POST", CMS, DEEP, {}, 400, ""),
    ("huge number", "POST", DEPLOYMENTS, b'{"metadata":{"name":"x"},"spec":{"replicas":1e999}}', {}, 400, ""),
    ("big integer", "POST", DEPLOYMENTS, b'{"metadata":{"name":"x"},"spec":{"replicas":99999999999999999999999}}', {},
     400, ""),
    ("metadata list", "POST", CMS, {"metadata": []}, {}, 400, ""),
    ("metadata string", "POST", CMS, {"metadata": "x"}, {}, 400, ""),
    ("metadata null", "POST", CMS, {"metadata": None}, {}, 422, "name or generateName is required"),
    ("no metadata", "POST", CMS, {}, {}, 422, "name or generateName is required"),
    ("name a number", "POST", CMS, {"metadata": {"name": 3}}, {}, 400, ""),
    ("labels a list", "POST", CMS, {"metadata": {"name": "x", "labels": ["a"]}}, {}, 400, ""),
    ("label a number", "POST", CMS, {"metadata": {"name": "x", "labels": {"a": 1}}}, {}, 400, ""),
    ("bad label", "POST", CMS, cm(name="x", labels={"a b": "c"}), {}, 422, "metadata.labels"),
    ("bad label value", "POST", CMS, cm(name="x", labels={"a": "-"}), {}, 422, "metadata.labels"),
    ("long label", "POST", CMS, cm(name="x", labels={"a": "x" * 64}), {}, 422, "metadata.labels"),
    ("bad name", "POST", CMS, cm(name="Not_A_Name"), {}, 422, 'ConfigMap "Not_A_Name" is invalid: metadata.name'),
    ("long name", "POST", CMS, cm(name="x" * 254), {}, 422, "must be no more than 253"),
    ("slash", "POST", CMS, cm(name="a/b"), {}, 422, "metadata.name"),
    ("dots", "POST", CMS, cm(name=".."), {}, 422, "metadata.name"),
    ("big annotations", "POST", CMS, cm(name="x", annotations={"a": "x" * 262145}), {}, 422, "Too long"),
    ("bad finalizer", "POST", CMS, cm(name="x", finalizers=["a b"]), {}, 422, "metadata.finalizers"),
    ("wrong kind", "POST", CMS, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}, {}, 400, "Pod"),
    ("kind a number", "POST", CMS, {"kind": 1, "apiVersion": "v1", "metadata": {"name": "x"}}, {}, 400, ""),
    ("kind a list", "POST", CMS, {"kind": [], "apiVersion": {}, "metadata": {"name": "x"}}, {}, 400, ""),
    ("wrong version", "POST", CMS, {"kind": "ConfigMap", "apiVersion": "v9", "metadata": {"name": "x"}}, {}, 400, ""),
    ("other namespace", "POST", CMS, cm(name="x", namespace="other"), {}, 400, "does not match the namespace"),
    ("resourceVersion", "POST", CMS, cm(name="x", resourceVersion="7"), {}, 400, "resourceVersion should not be set"),
    ("no such namespace", "POST", "/api/v1/namespaces/none/configmaps", cm(name="x"), {}, 404, '"none" not found'),
    ("all namespaces", "POST", "/api/v1/configmaps", cm(name="x"), {}, 405, ""),
    ("wrong type", "POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": "no"}}, {}, 400, ""),
    ("no containers", "POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": []}}, {}, 422,
     "spec.containers: Required value"),
    ("no spec", "POST", PODS, {"metadata": {"name": "p"}}, {}, 422, "spec.containers"),
    ("container null", "POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [None]}}, {}, 422, ""),
    ("quantity", "POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"limits": {"cpu": "much"}}}]}}, {}, 400, "quantities must match"),
    ("unknown policy", "POST", PODS, {"metadata": {"name": "p"}, "spec": {
        **POD["spec"], "restartPolicy": "Perhaps"}}, {}, 422, "spec.restartPolicy: Unsupported value"),  # type: ignore[dict-item]
    ("negative replicas", "POST", DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": {
        "replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}}}, {}, 422, "spec.replicas: Invalid value"),
    ("selector", "POST", DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "c"}}, "spec": POD["spec"]}}},
     {}, 422, "`selector` does not match template `labels`"),
    ("strict typo", "POST", CMS + "?fieldValidation=Strict", {**cm(name="x"), "dta": {}}, {}, 400,
     'unknown field "dta"'),
    ("strict duplicate", "POST", CMS + "?fieldValidation=Strict",
     b'{"metadata":{"name":"x"},"data":{"a":"1"},"data":{"a":"2"}}', {}, 400, "duplicate field"),
    ("fieldValidation", "POST", CMS + "?fieldValidation=Perhaps", cm(name="x"), {}, 422, "fieldValidation"),
    ("dryRun", "POST", CMS + "?dryRun=Some", cm(name="x"), {}, 400, "dryRun"),
    ("media type", "POST", CMS, b"x", {"kind": "text/plain"}, 415, ""),
    ("bad protobuf", "POST", CMS, b"k8s\x00\xff\xff\xff", {"kind": PROTOBUF}, 400, ""),
    ("no protobuf", "POST", CMS, b"hello", {"kind": PROTOBUF}, 400, ""),
    ("bad yaml", "POST", CMS, b"a: [", {"kind": "application/yaml"}, 400, ""),
    ("yaml bomb", "POST", CMS, b"a: &a [x,x]\nb: &b [*a,*a]\nc: *b\n", {"kind": "application/yaml"}, 400, "aliases"),
    ("yaml tag", "POST", CMS, b"!!python/object:os.system {}", {"kind": "application/yaml"}, 400, ""),
    ("yaml depth", "POST", CMS, b"a: " + b"[" * 50_000, {"kind": "application/yaml"}, 400, "depth"),
    ("yaml key", "POST", CMS, b"metadata: {name: x}\ndata: {1: 2}", {"kind": "application/yaml"}, 400, ""),
    ("unknown resource", "GET", "/api/v1/namespaces/default/gadgets", None, {}, 404, "could not find"),
    ("unknown group", "GET", "/apis/none.example/v1/things", None, {}, 404, ""),
    ("unknown version", "GET", "/apis/apps/v7/deployments", None, {}, 404, ""),
    ("unknown sub", "GET", PODS + "/x/nope", None, {}, 404, ""),
    ("no such object", "GET", CMS + "/nope", None, {}, 404, 'configmaps "nope" not found'),
    ("escaped slash", "GET", CMS + "/a%2Fb", None, {}, 404, ""),
    ("escaped nul", "GET", CMS + "/a%00b", None, {}, 404, ""),
    ("escaped junk", "GET", CMS + "/%ff%fe", None, {}, 404, ""),
    ("dot dot", "GET", "/api/v1/namespaces/default/configmaps/../secrets/x", None, {}, 404, ""),
    ("long path", "GET", CMS + "/" + "x" * 6000, None, {}, 404, ""),
    ("delete missing", "DELETE", CMS + "/nope", None, {}, 404, ""),
    ("put missing", "PUT", CMS + "/nope", cm(name="nope"), {}, 404, ""),
    ("put name", "PUT", CMS + "/held", cm(name="other"), {}, 400, "does not match the name on the URL"),
    ("put on list", "PUT", CMS, cm(name="x"), {}, 405, ""),
    ("post on object", "POST", CMS + "/held", cm(name="held"), {}, 405, ""),
    ("patch missing", "PATCH", CMS + "/nope", {}, {"kind": MERGE}, 404, ""),
    ("patch as json", "PATCH", CMS + "/held", {}, {}, 415, ""),
    ("patch list", "PATCH", CMS + "/held", [], {"kind": MERGE}, 400, ""),
    ("patch name", "PATCH", CMS + "/held", {"metadata": {"name": "b"}}, {"kind": MERGE}, 400, ""),
    ("patch kind", "PATCH", CMS + "/held", {"kind": "Secret"}, {"kind": MERGE}, 400, ""),
    ("patch metadata", "PATCH", CMS + "/held", {"metadata": None}, {"kind": MERGE}, 400, ""),
    ("patch metadata type", "PATCH", CMS + "/held", {"metadata": 3}, {"kind": MERGE}, 400, ""),
    ("patch type", "PATCH", CMS + "/held", {"data": [1]}, {"kind": MERGE}, 422, ""),
    ("json patch object", "PATCH", CMS + "/held", {}, {"kind": JSON_PATCH}, 400, ""),
    ("json patch op", "PATCH", CMS + "/held", [{"op": "fly", "path": "/data"}], {"kind": JSON_PATCH}, 400, ""),
    ("json patch path", "PATCH", CMS + "/held", [{"op": "remove", "path": "/no"}], {"kind": JSON_PATCH}, 422, ""),
    ("json patch test", "PATCH", CMS + "/held", [{"op": "test", "path": "/data/k", "value": "z"}],
     {"kind": JSON_PATCH}, 422, ""),
    ("json patch junk", "PATCH", CMS + "/held", [3], {"kind": JSON_PATCH}, 400, ""),
    ("json patch root", "PATCH", CMS + "/held", [{"op": "replace", "path": "", "value": 3}], {"kind": JSON_PATCH},
     400, ""),
    ("strategic directive", "PATCH", CMS + "/held", {"$patch": "fly"}, {"kind": STRATEGIC}, 400, ""),
    ("apply no manager", "PATCH", CMS + "/held", b"{}", {"kind": "application/apply-patch+yaml"}, 422, "fieldManager"),
    ("apply metadata", "PATCH", CMS + "/held?fieldManager=m", b"metadata: 3", {"kind": "application/apply-patch+yaml"},
     400, ""),
    ("bad selector", "GET", CMS + "?labelSelector=a%20b%20c", None, {}, 400, "unable to parse"),
    ("bad field", "GET", CMS + "?fieldSelector=a", None, {}, 400, ""),
    ("bad limit", "GET", CMS + "?limit=many", None, {}, 400, "strconv.ParseInt"),
    ("bad version", "GET", CMS + "?resourceVersion=abc", None, {}, 400, "resourceVersion"),
    ("bad continue", "GET", CMS + "?limit=1&continue=abc", None, {}, 400, "continue"),
    ("junk continue", "GET", CMS + "?limit=1&continue=%F0%9F%98%80", None, {}, 400, "continue"),
    ("bad watch version", "GET", CMS + "?watch=1&resourceVersion=abc", None, {}, 400, ""),
    ("bad timeout", "GET", CMS + "?watch=1&timeoutSeconds=x", None, {}, 400, "strconv.ParseInt"),
    ("bad match", "GET", CMS + "?resourceVersionMatch=Exact", None, {}, 422, "resourceVersionMatch"),
    ("future", "GET", CMS + "?resourceVersion=999999999", None, {}, 504, "Too large resource version"),
    ("not acceptable", "GET", CMS, None, {"Accept": "image/png"}, 406, ""),
    ("delete options", "DELETE", CMS + "/held", b"{nope", {}, 400, ""),
    ("delete options list", "DELETE", CMS + "/held", [], {}, 400, ""),
    ("delete options type", "DELETE", CMS + "/held", {"gracePeriodSeconds": "x"}, {}, 400, ""),
    ("delete uid", "DELETE", CMS + "/held", {"preconditions": {"uid": "other"}}, {}, 409, "Precondition failed"),
    ("delete version", "DELETE", CMS + "/held", {"preconditions": {"resourceVersion": "1"}}, {}, 409, "Precondition"),
    ("delete policy", "DELETE", CMS + "/held", {"propagationPolicy": "Perhaps"}, {}, 422, "propagationPolicy"),
    ("method", "TRACE", CMS, None, {}, 405, ""),
    ("scale", "PUT", DEPLOYMENTS + "/nope/scale", {"spec": {"replicas": 1}}, {}, 404, ""),
    ("token", "POST", "/api/v1/namespaces/default/serviceaccounts/nope/token", {}, {}, 404, ""),
    ("token short", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/robot/token",
     {"spec": {"expirationSeconds": 5}}, {}, 422, "10 minutes"),
    ("token type", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/robot/token",
     {"spec": {"audiences": 5}}, {}, 400, ""),
    ("binding", "POST", PODS + "/nope/binding", {"target": {"name": "n"}}, {}, 404, ""),
    ("binding target", "POST", PODS + "/nope/binding", {}, {}, 422, "target.name"),
    ("eviction", "POST", PODS + "/nope/eviction", {}, {}, 404, ""),
    ("log", "GET", PODS + "/nope/log", None, {}, 404, 'pods "nope" not found'),
    ("exec", "GET", PODS + "/nope/exec?command=x", None, {}, 404, ""),
    ("review", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": 3}, {}, 400, ""),
    ("empty review", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {}}, {}, 422, ""),
    ("immortal", "DELETE", "/api/v1/namespaces/default", None, {}, 403, "may not be deleted"),
]  # fmt: skip


@pytest.fixture(scope="module")
def held(server: Any) -> Any:
    """A connection for the whole module, and an object and an account that the cases talk about."""
    connection = server.connect()
    connection("POST", CMS, {**cm(name="held"), "data": {"k": "v"}})
    connection("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    connection("POST", "/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": "robot"}})
    return connection


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_clear_status(
    held: Any, method: str, path: str, body: Any, headers: dict[str, str], code: int, text: str
) -> None:
    before = held.reconnects
    answer = held(method, path, body, **headers)
    assert answer.status == code, answer.body[:600]
    assert answer.headers["content-type"] == "application/json"
    status = answer.json
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == code and status["reason"] and status["message"]
    assert text in status["message"], status
    if code == 422 and "Invalid" in status["reason"] and "patch" not in path and method == "POST":
        assert status["details"].get("causes") is not None
    assert held("GET", CMS + "/held").status == 200
    assert held.reconnects == before, "the connection was closed"


def test_oversized(server: Any, held: Any) -> None:
    answer = server.connect()("POST", CMS, {**cm(name="big"), "data": {"k": "x" * (4 << 20)}})
    assert answer.status == 413 and answer.json["reason"] == "RequestEntityTooLarge"
    answer = held("POST", CMS, {**cm(name="big"), "data": {"k": "x" * (2 << 20)}})
    assert answer.status == 422 and answer.json["details"]["causes"]


def test_bytes_that_are_no_http(server: Any, held: Any) -> None:
    context = ssl.create_default_context(cafile=str(server.layout.ca_cert))
    for junk in (b"BREW /api HTTP/1.1\r\n\r\n", b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n",
                 b"GET / HTTP/9.9\r\n\r\n", b"POST /api HTTP/1.1\r\n" * 3 + b"\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 70000 + b"\r\n\r\n"):  # fmt: skip
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(junk)
            answer = b"".join(iter(lambda: tls.recv(4096), b""))
            assert answer[9:12] == b"400" and b'"kind":"Status"' in answer, (junk[:40], answer)
    assert held("GET", CMS + "/held").status == 200


def test_a_client_that_goes_away_half_way(server: Any, held: Any) -> None:
    context = ssl.create_default_context(cafile=str(server.layout.ca_cert))
    for _ in range(5):
        raw = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        tls = context.wrap_socket(raw, server_hostname="127.0.0.1")
        tls.sendall(b"POST " + CMS.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        tls.close()
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    plain.close()
    assert held("GET", CMS + "/held").status == 200
