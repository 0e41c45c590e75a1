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


def version(name: str, spec: Any, *, storage: bool = False, **more: Any) -> Any:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}, **more}


def test_versions_show_the_same_object(admin: Any) -> None:
    texts = {"a": {"type": "string"}}
    old, new = (
        version("v1beta1", texts, storage=True),
        version("v1", {**texts, "b": {"type": "string", "default": "B"}}),
    )
    admin.ok("POST", CRDS, definition("Bag", "e.example.com", versions=[old, new]))
    bags = "/apis/e.example.com/{}/namespaces/default/bags"
    bag = {
        "apiVersion": "e.example.com/v1beta1",
        "kind": "Bag",
        "metadata": {"name": "one"},
        "spec": {"a": "x", "b": 1},
    }
    assert admin.ok("POST", bags.format("v1beta1"), bag)["spec"] == {"a": "x"}
    shown = admin.ok("GET", bags.format("v1") + "/one")
    assert (shown["apiVersion"], shown["spec"]) == ("e.example.com/v1", {"a": "x", "b": "B"})
    (listed,) = admin.ok("GET", bags.format("v1"))["items"]
    assert listed == shown
    patched = admin.ok("PATCH", bags.format("v1") + "/one", {"spec": {"a": "y"}}, kind="application/merge-patch+json")
    assert patched["spec"] == {"a": "y", "b": "B"}
    assert admin.ok("GET", bags.format("v1beta1") + "/one")["spec"] == {"a": "y"}
    assert [v["version"] for v in admin.ok("GET", "/apis/e.example.com")["versions"]] == ["v1", "v1beta1"]


def test_a_change_of_schema_is_live(admin: Any) -> None:
    made = admin.ok("POST", CRDS, definition("Cap", "f.example.com"))
    caps = "/apis/f.example.com/v1/namespaces/default/caps"
    cap = {"apiVersion": "f.example.com/v1", "kind": "Cap", "metadata": {"name": "old"}, "spec": {"replicas": 2}}
    admin.ok("POST", caps, cap)
    before = admin.ok("GET", "/openapi/v3")["paths"]["apis/f.example.com/v1"]
    with admin.watch(f"{caps}?watch=1&resourceVersion=0") as watch:
        assert watch.next()["object"]["metadata"]["name"] == "old"
        spec = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"] |= {"color": {"type": "string", "default": "blue"}}
        spec["properties"]["replicas"]["maximum"] = 1
        changed = admin.ok("PUT", f"{CRDS}/caps.f.example.com", made)
        assert changed["metadata"]["generation"] == 2
        assert watch.next() is None  # ended: what it would show is another thing now
    assert admin.ok("GET", f"{caps}/old")["spec"]["color"] == "blue"
    assert admin.ok("GET", caps)["items"][0]["spec"]["color"] == "blue"
    assert admin.ok("GET", "/openapi/v3")["paths"]["apis/f.example.com/v1"] != before
    labelled = {"metadata": {"labels": {"a": "b"}}}  # what was valid once does not stand in the way
    admin.ok("PATCH", f"{caps}/old", labelled, kind="application/merge-patch+json")
    refused = admin("PATCH", f"{caps}/old", {"spec": {"replicas": 3}}, kind="application/merge-patch+json")
    assert "should be less than or equal to 1" in refused.json["message"]


def test_versions_come_and_go(admin: Any) -> None:
    one = version("v1", {}, storage=True)
    made = admin.ok("POST", CRDS, definition("Tie", "g.example.com", versions=[one]))
    path = f"{CRDS}/ties.g.example.com"
    made["spec"]["versions"] = [{**one, "storage": False}, version("v2", {}, storage=True)]
    both = admin.ok("PUT", path, made)
    assert both["status"]["storedVersions"] == ["v1", "v2"]
    assert admin("GET", "/apis/g.example.com/v2/ties").status == 200
    both["spec"]["versions"] = both["spec"]["versions"][1:]
    refused = admin("PUT", path, both)
    assert refused.status == 422
    assert "v1 was previously a storage version" in refused.json["message"]
    moved = {"status": {"storedVersions": ["v2"]}}
    both = admin.ok("PATCH", f"{path}/status", moved, kind="application/merge-patch+json")
    assert both["status"]["storedVersions"] == ["v2"]
    both["spec"]["versions"] = both["spec"]["versions"][1:]
    admin.ok("PUT", path, both)
    assert admin("GET", "/apis/g.example.com/v1/ties").status == 404


def test_the_first_to_take_a_name_has_it(admin: Any) -> None:
    admin.ok("POST", CRDS, definition("Pin", "h.example.com"))
    second = definition("Needle", "h.example.com")
    second["spec"]["names"]["kind"] = "Pin"
    made = admin.ok("POST", CRDS, second)
    assert conditions(made) == {"NamesAccepted": "False", "Established": "False"}
    refusal = next(c for c in made["status"]["conditions"] if c["type"] == "NamesAccepted")
    assert (refusal["reason"], refusal["message"]) == ("ListKindConflict", '"PinList" is already in use')
    assert admin("GET", "/apis/h.example.com/v1/needles").status == 404
    admin.ok("DELETE", f"{CRDS}/pins.h.example.com")
    path = f"{CRDS}/needles.h.example.com"
    until(lambda: conditions(admin.ok("GET", path)).get("Established") == "True")
    assert admin("GET", "/apis/h.example.com/v1/needles").status == 200


def test_status_is_apart_when_there_is_a_subresource(admin: Any) -> None:
    subresources = {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.n"}}
    admin.ok("POST", CRDS, definition("Shoe", "i.example.com", subresources=subresources))
    shoes = "/apis/i.example.com/v1/namespaces/default/shoes"
    shoe = {"apiVersion": "i.example.com/v1", "kind": "Shoe", "metadata": {"name": "s"},
            "spec": {"replicas": 2}, "status": {"n": 9}}  # fmt: skip
    made = admin.ok("POST", shoes, shoe)
    assert "status" not in made
    merge = {"kind": "application/merge-patch+json"}
    both = {"spec": {"replicas": 5}, "status": {"n": 3}, "metadata": {"labels": {"a": "b"}}}
    after = admin.ok("PATCH", f"{shoes}/s/status", both, **merge)
    assert (after["spec"]["replicas"], after["status"], after["metadata"]["generation"]) == (2, {"n": 3}, 1)
    assert "labels" not in after["metadata"]
    assert admin.ok("PATCH", f"{shoes}/s", both, **merge)["metadata"]["generation"] == 2
    scale = admin.ok("GET", f"{shoes}/s/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 5}, {"replicas": 3})
    scale["spec"]["replicas"] = 7
    assert admin.ok("PUT", f"{shoes}/s/scale", scale)["spec"]["replicas"] == 7
    assert admin.ok("GET", f"{shoes}/s")["metadata"]["generation"] == 3
    refused = admin("PATCH", f"{shoes}/s/scale", {"spec": {"replicas": 70}}, **merge)
    assert "should be less than or equal to 10" in refused.json["message"]


def test_selectable_fields_and_columns(admin: Any) -> None:
    more = {
        "selectableFields": [{"jsonPath": ".spec.text"}],
        "additionalPrinterColumns": [{"name": "Text", "type": "string", "jsonPath": ".spec.text"},
                                     {"name": "N", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1}],
    }  # fmt: skip
    admin.ok("POST", CRDS, definition("Belt", "j.example.com", **more))
    belts = "/apis/j.example.com/v1/namespaces/default/belts"
    for name in ("red", "blue"):
        admin.ok("POST", belts, {"apiVersion": "j.example.com/v1", "kind": "Belt", "metadata": {"name": name},
                                 "spec": {"text": name, "replicas": 1}})  # fmt: skip
    chosen = admin.ok("GET", f"{belts}?fieldSelector=spec.text%3Dred")["items"]
    assert [each["metadata"]["name"] for each in chosen] == ["red"]
    assert admin("GET", f"{belts}?fieldSelector=spec.replicas%3D1").status == 400
    table = admin.ok("GET", belts, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Text", "N"]
    assert [row["cells"] for row in table["rows"]] == [["blue", "blue", 1], ["red", "red", 1]]
    with admin.watch(f"{belts}?watch=1&fieldSelector=spec.text%3Dred&resourceVersion=0") as watch:
        assert watch.next()["object"]["metadata"]["name"] == "red"
        admin.ok("PATCH", f"{belts}/red", {"spec": {"text": "pink"}}, kind="application/merge-patch+json")
        assert watch.next()["type"] == "DELETED"


def test_forms_that_custom_objects_have_not(admin: Any) -> None:
    admin.ok("POST", CRDS, definition("Glove", "k.example.com"))
    gloves = "/apis/k.example.com/v1/namespaces/default/gloves"
    glove = {"apiVersion": "k.example.com/v1", "kind": "Glove", "metadata": {"name": "g"}}
    admin.ok("POST", gloves, glove)
    assert admin("GET", gloves, Accept="application/vnd.kubernetes.protobuf").status == 406
    both = admin("GET", gloves, Accept="application/vnd.kubernetes.protobuf,application/json")
    assert both.headers["content-type"] == "application/json"
    strategic = admin("PATCH", f"{gloves}/g", {}, kind="application/strategic-merge-patch+json")
    assert strategic.status == 415
    assert "strategic" not in strategic.json["message"]
