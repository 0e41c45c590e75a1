"""Custom resources over bare HTTPS: definitions come, change and go, and their objects with them."""

import time
from collections.abc import Callable
from typing import Any

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Make = Callable[..., Any]


def definition(
    kind: str, group: str, *, scope: str = "Namespaced", versions: list[Any] | None = None, **version: Any
) -> Any:
    """A definition of one version whose spec takes a text, a number and a list."""
    spec = {"type": "object", "properties": {
        "text": {"type": "string", "default": "hello"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "items": {"type": "object", "required": ["name"], "properties": {
                      "name": {"type": "string"}, "port": {"type": "integer"}}}},
    }}  # fmt: skip
    schema = {"type": "object", "properties": {"spec": spec, "status": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}  # fmt: skip
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": scope, "names": {"plural": plural, "kind": kind},
                 "versions": versions or [one]},
    }  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition never came true"
        time.sleep(0.02)
    return found


def conditions(crd: Any) -> dict[str, str]:
    return {c["type"]: c["status"] for c in crd["status"]["conditions"]}


def test_a_definition_is_served_when_its_creator_hears_of_it(admin: Any) -> None:
    made = admin.ok("POST", CRDS, definition("Shirt", "a.example.com"))
    assert conditions(made) == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["status"]["acceptedNames"] == {
        "plural": "shirts", "singular": "shirt", "kind": "Shirt", "listKind": "ShirtList"
    }  # fmt: skip
    listed = admin.ok("GET", "/apis/a.example.com/v1/shirts")
    assert (listed["kind"], listed["items"]) == ("ShirtList", [])
    assert "a.example.com" in [g["name"] for g in admin.ok("GET", "/apis")["groups"]]
    aggregated = admin.ok("GET", "/apis", Accept="application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    assert "a.example.com" in [g["metadata"]["name"] for g in aggregated["items"]]
    paths = admin.ok("GET", "/openapi/v3")["paths"]
    document = admin.ok("GET", paths["apis/a.example.com/v1"]["serverRelativeURL"])
    assert "text" in document["components"]["schemas"]["com.example.a.v1.Shirt"]["properties"]["spec"]["properties"]
    assert "com.example.a.v1.Shirt" in admin.ok("GET", "/openapi/v2")["definitions"]


def test_objects_are_pruned_defaulted_and_validated(admin: Any) -> None:
    admin.ok("POST", CRDS, definition("Hat", "b.example.com"))
    hats = "/apis/b.example.com/v1/namespaces/default/hats"
    hat = {"apiVersion": "b.example.com/v1", "kind": "Hat", "metadata": {"name": "one"}}
    answer = admin("POST", hats, {**hat, "spec": {"brim": 1}})
    assert answer.headers["warning"] == '299 - "unknown field \\"spec.brim\\""'
    assert answer.json["spec"] == {"text": "hello"}
    assert answer.json["metadata"]["generation"] == 1
    strict = admin("POST", f"{hats}?fieldValidation=Strict", {**hat, "spec": {"brim": 1}})
    assert strict.status == 400
    assert strict.json["message"].endswith('strict decoding error: unknown field "spec.brim"')
    wrong = admin("POST", hats, {**hat, "metadata": {"name": "two"}, "spec": {"replicas": "x", "text": None}})
    assert wrong.status == 422
    assert [(c["field"], c["message"]) for c in wrong.json["details"]["causes"]] == [
        ("spec.replicas", 'Invalid value: "string": spec.replicas in body must be of type integer: "string"')
    ]
    twice = {"ports": [{"name": "a"}, {"name": "a"}]}
    doubled = admin("POST", hats, {**hat, "metadata": {"name": "two"}, "spec": twice})
    assert doubled.json["message"] == (
        'Hat.b.example.com "two" is invalid: spec.ports[1]: Duplicate value: {"name":"a"}'
    )


def test_deleting_a_definition_deletes_its_objects(admin: Any) -> None:
    admin.ok("POST", CRDS, definition("Sock", "c.example.com"))
    socks = "/apis/c.example.com/v1/namespaces/default/socks"
    for name, finalizers in (("free", []), ("held", ["example.com/hold"])):
        admin.ok("POST", socks, {"apiVersion": "c.example.com/v1", "kind": "Sock",
                                 "metadata": {"name": name, "finalizers": finalizers}})  # fmt: skip
    watch = admin.watch(f"{socks}?watch=1&resourceVersion=0")
    with watch:
        deleting = admin.ok("DELETE", f"{CRDS}/socks.c.example.com")
        assert deleting["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        until(lambda: [i["metadata"]["name"] for i in admin.ok("GET", socks)["items"]] == ["held"])
        refused = admin("POST", socks, {"apiVersion": "c.example.com/v1", "kind": "Sock", "metadata": {"name": "new"}})
        assert refused.status == 405
        assert refused.json["message"] == "create not allowed while custom resource definition is terminating"
        assert conditions(admin.ok("GET", f"{CRDS}/socks.c.example.com"))["Terminating"] == "True"
        admin.ok("PATCH", f"{socks}/held", {"metadata": {"finalizers": None}}, kind="application/merge-patch+json")
        until(lambda: admin("GET", f"{CRDS}/socks.c.example.com").status == 404)
        while watch.next() is not None:
            pass  # it ends, rather than wait for objects that cannot come
    assert admin("GET", socks).status == 404
    assert "c.example.com" not in [g["name"] for g in admin.ok("GET", "/apis")["groups"]]


def test_definitions_survive_a_restart(fresh_server: Make) -> None:
    server = fresh_server()
    admin = server.connect()
    admin.ok("POST", CRDS, definition("Coat", "d.example.com"))
    coats = "/apis/d.example.com/v1/namespaces/default/coats"
    admin.ok("POST", coats, {"apiVersion": "d.example.com/v1", "kind": "Coat", "metadata": {"name": "c"}, "spec": {}})
    server.kill()
    server.start()
    assert server.connect().ok("GET", f"{coats}/c")["spec"] == {"text": "hello"}
