"""Admission that users configure, against the real server: webhooks that really listen, policies in CEL."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

REG = "/apis/admissionregistration.k8s.io/v1"


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.fixture
def configure(admin: Any) -> Iterator[Callable[..., Any]]:
    """Make objects of admissionregistration.k8s.io; they are gone after the test."""
    made: list[str] = []

    def create(plural: str, body: Any) -> Any:
        path = f"{REG}/{plural}"
        answer = admin("POST", path, {"apiVersion": "admissionregistration.k8s.io/v1", **body})
        if answer.status == 201:
            made.append(f"{path}/{body['metadata']['name']}")
        return answer

    yield create
    for path in made:
        admin("DELETE", path)


CONFIGMAPS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"],
              "resources": ["configmaps"]}  # fmt: skip


def webhook(name: str, client: Any, ns: str, **more: Any) -> Any:
    return {
        "name": name, "clientConfig": client, "rules": [CONFIGMAPS], "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}, **more,
    }  # fmt: skip


def patches(*operations: Any) -> Any:
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(operations).encode()).decode(),
    }


def test_a_validating_webhook_refuses(admin: Any, hook: Any, configure: Any, ns: str) -> None:
    config = {"metadata": {"name": "refuse"}, "webhooks": [webhook("refuse.example.com", hook.client, ns)]}
    assert configure("validatingwebhookconfigurations", config).status == 201
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    hook.answer = lambda request: {"allowed": request["name"] != "bad", "warnings": ["think twice"],
                                   "status": {"message": "bad is bad", "code": 403, "reason": "Forbidden"}}  # fmt: skip
    good = admin("POST", maps, {"metadata": {"name": "good"}, "data": {"a": "b"}})
    assert (good.status, good.headers["warning"]) == (201, '299 - "think twice"')
    asked = hook.seen[-1]
    assert asked["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert (asked["operation"], asked["namespace"], asked["dryRun"]) == ("CREATE", ns, False)
    assert asked["userInfo"]["username"] == "kubernetes-admin"
    assert (asked["object"]["data"], asked["oldObject"]) == ({"a": "b"}, None)
    bad = admin("POST", maps, {"metadata": {"name": "bad"}})
    assert (bad.status, bad.json["reason"]) == (403, "Forbidden")
    assert bad.json["message"] == 'admission webhook "refuse.example.com" denied the request: bad is bad'
    assert admin("GET", f"{maps}/bad").status == 404
    hook.answer = lambda request: {"allowed": False}
    kept = admin("DELETE", f"{maps}/good")
    assert kept.json["message"] == 'admission webhook "refuse.example.com" denied the request without explanation'
    assert (hook.seen[-1]["operation"], hook.seen[-1]["object"]) == ("DELETE", None)
    assert admin("POST", "/api/v1/namespaces/default/configmaps?dryRun=All", {"metadata": {"name": "x"}}).status == 201


def test_mutating_webhooks_change_in_turn(admin: Any, hook: Any, configure: Any, ns: str) -> None:
    def answer(request: Any) -> Any:
        data = request["object"].get("data") or {}
        if "first" not in data:
            return patches({"op": "add", "path": "/data", "value": {**data, "first": "1"}})
        if "second" not in data:
            return patches({"op": "add", "path": "/data/second", "value": "2"},
                           {"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}})  # fmt: skip
        return {"allowed": True}

    hook.answer = answer
    hooks = [webhook("a.example.com", hook.client, ns, reinvocationPolicy="IfNeeded"),
             webhook("b.example.com", hook.client, ns)]  # fmt: skip
    configure("mutatingwebhookconfigurations", {"metadata": {"name": "change"}, "webhooks": hooks})
    made = admin.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", {"metadata": {"name": "m"}})
    assert made["data"] == {"first": "1", "second": "2"}
    assert made["metadata"]["labels"] == {"seen": "yes"}
    assert len(hook.seen) == 3  # the first was asked again after the second's change
    assert made["metadata"]["uid"]


def test_webhooks_that_do_not_answer(admin: Any, hook: Any, configure: Any, ns: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = {"url": f"https://127.0.0.1:{closed.getsockname()[1]}/", "caBundle": hook.bundle}
        strict = webhook("strict.example.com", nobody, ns, matchConditions=[
            {"name": "only-strict", "expression": "object.metadata.name == 'strict'"}])  # fmt: skip
        lenient = webhook("lenient.example.com", nobody, ns, failurePolicy="Ignore")
        config = {"metadata": {"name": "absent"}, "webhooks": [strict, lenient]}
        configure("validatingwebhookconfigurations", config)
        maps = f"/api/v1/namespaces/{ns}/configmaps"
        failed = admin("POST", maps, {"metadata": {"name": "strict"}})
        assert failed.status == 500
        said = failed.json["message"]
        assert said.startswith(
            'Internal error occurred: failed calling webhook "strict.example.com": failed to call webhook: Post "https://'
        )
        assert "connect: " in said
        assert admin("POST", maps, {"metadata": {"name": "other"}}).status == 201


def test_side_effects_and_dry_runs(admin: Any, hook: Any, configure: Any, ns: str) -> None:
    body = {"metadata": {"name": "x"}}
    maps = f"/api/v1/namespaces/{ns}/configmaps?dryRun=All"
    careful = webhook("careful.example.com", hook.client, ns, sideEffects="NoneOnDryRun")
    configure("validatingwebhookconfigurations", {"metadata": {"name": "careful"}, "webhooks": [careful]})
    assert admin("POST", maps, body).status == 201
    assert hook.seen[-1]["dryRun"] is True
    invalid = configure("validatingwebhookconfigurations", {"metadata": {"name": "odd"}, "webhooks": [
        webhook("odd.example.com", hook.client, ns, sideEffects="Some")]})  # fmt: skip
    assert 'Unsupported value: "Some": supported values: "None", "NoneOnDryRun"' in invalid.json["message"]


def test_a_service_is_found_by_its_endpoints(admin: Any, hook: Any, configure: Any, ns: str) -> None:
    address = _own_address()
    if address.startswith("127."):
        pytest.skip("this machine has no address that a Service may have")
    admin("POST", "/api/v1/namespaces", {"metadata": {"name": "admission"}})
    admin.ok("POST", "/api/v1/namespaces/admission/services", {
        "metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "targetPort": hook.port}]}})  # fmt: skip
    service = {"name": "hook", "namespace": "admission", "path": "/review"}
    named = webhook("svc.example.com", {"service": service, "caBundle": hook.bundle}, ns)
    configure("validatingwebhookconfigurations", {"metadata": {"name": "svc"}, "webhooks": [named]})
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    failed = admin("POST", maps, {"metadata": {"name": "x"}})
    assert 'no endpoints available for service "hook"' in failed.json["message"]
    admin.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/admission/endpointslices", {
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"port": hook.port}]})  # fmt: skip
    assert admin("POST", maps, {"metadata": {"name": "x"}}).status == 201
    assert hook.seen


def policy(name: str, **spec: Any) -> Any:
    rule = {**CONFIGMAPS, "operations": ["CREATE", "UPDATE"]}
    return {"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [rule]}, **spec}}


def binding(name: str, ns: str, *actions: str, **spec: Any) -> Any:
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}}
    return {"metadata": {"name": f"{name}-here"}, "spec": {
        "policyName": name, "validationActions": list(actions) or ["Deny"], "matchResources": selector,
        **spec}}  # fmt: skip


def test_a_policy_denies_warns_and_asks(admin: Any, configure: Any, ns: str) -> None:
    made = configure("validatingadmissionpolicies", policy("keys", variables=[
        {"name": "count", "expression": "has(object.data) ? size(object.data) : 0"},
    ], validations=[
        {"expression": "variables.count <= 2", "messageExpression": "'too many keys: ' + string(variables.count)"},
        {"expression": "object.metadata.name != 'secret' || authorizer.group('').resource('secrets').namespace("
                       "object.metadata.namespace).check('delete').allowed()", "reason": "Forbidden"},
        {"expression": "oldObject == null || oldObject.data == object.data", "message": "data stays"},
    ]))  # fmt: skip
    assert made.status == 201
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    many = {"metadata": {"name": "c"}, "data": {"a": "1", "b": "2", "c": "3"}}
    assert admin("POST", f"{maps}?dryRun=All", many).status == 201  # nobody has bound it yet
    configure("validatingadmissionpolicybindings", binding("keys", ns))
    refused = admin("POST", maps, many)
    assert (refused.status, refused.json["reason"]) == (422, "Invalid")
    assert refused.json["message"] == (
        "configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'keys' with binding 'keys-here' denied request: "
        "too many keys: 3"
    )
    fine = {"metadata": {"name": "secret"}, "data": {"a": "1"}}
    assert admin("POST", maps, fine).status == 201
    changed = admin("PUT", f"{maps}/secret", {**fine, "data": {"a": "2"}})
    assert changed.json["message"].endswith("denied request: data stays")
    assert admin("POST", "/api/v1/namespaces/default/configmaps?dryRun=All", many).status == 201


def test_a_policy_with_parameters_only_warns(admin: Any, configure: Any, ns: str) -> None:
    configure("validatingadmissionpolicies", policy("limit", paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[{"expression": "size(object.data) <= int(params.data.most)"}]))  # fmt: skip
    ref = {"name": "limits", "namespace": ns, "parameterNotFoundAction": "Deny"}
    configure("validatingadmissionpolicybindings", binding("limit", ns, "Warn", paramRef=ref))
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    first = admin("POST", maps, {"metadata": {"name": "limits"}, "data": {"most": "1"}})
    assert "no params found for policy binding with `Deny`" in first.headers["warning"]
    second = admin("POST", maps, {"metadata": {"name": "c"}, "data": {"a": "", "b": ""}})
    assert second.status == 201
    assert second.headers["warning"] == (
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'limit' with binding 'limit-here': failed expression: "
        'size(object.data) <= int(params.data.most)"'
    )


def test_policies_must_compile(configure: Any) -> None:
    answer = configure("validatingadmissionpolicies", policy("odd", validations=[{"expression": "object.foo +"}]))
    assert answer.status == 422
    assert "spec.validations[0].expression: Invalid value" in answer.json["message"]
    assert "compilation failed: ERROR: <input>:1:13: Syntax error" in answer.json["message"]


def test_a_mutating_policy_changes_objects(admin: Any, configure: Any, ns: str) -> None:
    made = configure("mutatingadmissionpolicies", policy("mark", reinvocationPolicy="Never", variables=[
        {"name": "labels", "expression": "has(object.metadata.labels) ? object.metadata.labels : {}"},
    ], matchConditions=[{"name": "unmarked", "expression": "!('marked' in variables.labels)"}], mutations=[
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'marked': params.data.text}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/data', value: {'by': request.userInfo.username}}]"}},
    ], paramKind={"apiVersion": "v1", "kind": "ConfigMap"}))  # fmt: skip
    assert made.status == 201, made.body
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    admin.ok("POST", maps, {"metadata": {"name": "words"}, "data": {"text": "hello"}})
    bound = binding("mark", ns, paramRef={"name": "words", "namespace": ns, "parameterNotFoundAction": "Deny"})
    del bound["spec"]["validationActions"]
    assert configure("mutatingadmissionpolicybindings", bound).status == 201
    changed = admin.ok("POST", maps, {"metadata": {"name": "c", "labels": {"own": "1"}}})
    assert changed["metadata"]["labels"] == {"own": "1", "marked": "hello"}
    assert changed["data"] == {"by": "kubernetes-admin"}
    admin.ok("DELETE", f"{maps}/words")
    refused = admin("POST", maps, {"metadata": {"name": "d"}})
    assert refused.status == 403
    assert refused.json["message"].endswith(
        "policy 'mark' with binding 'mark-here' denied request: failed to configure binding: no params found for "
        "policy binding with `Deny` parameterNotFoundAction"
    )
    odd = configure("mutatingadmissionpolicies", policy("odd", reinvocationPolicy="Never", mutations=[
        {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: }]"}}]))  # fmt: skip
    assert "spec.mutations[0].jsonPatch.expression: Invalid value" in odd.json["message"]


def test_a_mutating_policy_merges_by_keys(admin: Any, configure: Any, ns: str) -> None:
    pods = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    configure("mutatingadmissionpolicies", {"metadata": {"name": "sidecar"}, "spec": {
        "matchConstraints": {"resourceRules": [pods]}, "reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": """
                Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
                    containers: [Object.spec.template.spec.containers{name: "side", image: "mesh"}]
                }}}}"""}}]}})  # fmt: skip
    bound = binding("sidecar", ns)
    del bound["spec"]["validationActions"]
    configure("mutatingadmissionpolicybindings", bound)
    labels = {"app": "x"}
    made = admin.ok("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", {
        "metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "app"}]}}}})  # fmt: skip
    containers = made["spec"]["template"]["spec"]["containers"]
    assert [(c["name"], c["imagePullPolicy"]) for c in containers] == [("main", "Always"), ("side", "Always")]
