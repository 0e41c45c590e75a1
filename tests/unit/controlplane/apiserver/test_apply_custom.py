"""Owners of fields of custom resources: by their structural schema, and by their values where there is none."""

from typing import Any

import pytest

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
PATH = "/apis/example.com/v1/namespaces/default/widgets"


def definition() -> dict[str, Any]:
    part = {
        "type": "object", "required": ["id"],
        "properties": {
            "id": {"type": "string"}, "size": {"type": "integer"}, "proto": {"type": "string", "default": "x"},
        },
    }  # fmt: skip
    spec = {"type": "object", "properties": {
        "parts": {"type": "array", "items": part, "x-kubernetes-list-type": "map",
                  "x-kubernetes-list-map-keys": ["id", "proto"]},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "lines": {"type": "array", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
    }}  # fmt: skip
    status = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                          "subresources": {"status": {}}}],
        },
    }  # fmt: skip


def widget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


def owners(obj: Any) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())}


@pytest.fixture
async def widgets(api: Any) -> Any:
    await api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition())
    return api


async def test_lists_maps_and_free_fields(widgets: Any) -> None:
    body = widget(
        parts=[{"id": "a", "size": 1}],
        tags=["x"],
        lines=["1"],
        whole={"k": "v"},
        free={"a": {"b": 1}, "l": [1]},
        port=80,
    )
    made = await widgets.ok("PATCH", f"{PATH}/w?fieldManager=one", body, kind=APPLY)
    assert owners(made) == {"one": {"f:spec": {
        "f:parts": {'k:{"id":"a","proto":"x"}': {".": {}, "f:id": {}, "f:size": {}}},
        "f:tags": {'v:"x"': {}}, "f:lines": {}, "f:whole": {}, "f:port": {},
        "f:free": {"f:a": {".": {}, "f:b": {}}, "f:l": {}},
    }}}  # fmt: skip
    more = widget(parts=[{"id": "b"}], tags=["y"], free={"a": {"c": 2}})
    both = await widgets.ok("PATCH", f"{PATH}/w?fieldManager=two", more, kind=APPLY)
    assert [part["id"] for part in both["spec"]["parts"]] == ["a", "b"]
    assert both["spec"]["tags"] == ["x", "y"]
    assert both["spec"]["free"]["a"] == {"b": 1, "c": 2}
    conflict = await widgets("PATCH", f"{PATH}/w?fieldManager=two", widget(lines=["2"], whole={"k": "w"}), kind=APPLY)
    assert conflict.status == 409
    assert {cause["field"] for cause in conflict.body["details"]["causes"]} == {".spec.lines", ".spec.whole"}
    alone = await widgets.ok("PATCH", f"{PATH}/w?fieldManager=one", widget(tags=["x"]), kind=APPLY)
    assert alone["spec"] == {"parts": [{"id": "b", "proto": "x"}], "tags": ["x", "y"], "free": {"a": {"c": 2}}}


async def test_status_is_owned_apart_and_unknown_fields_are_refused(widgets: Any) -> None:
    await widgets.ok("PATCH", f"{PATH}/w?fieldManager=one", widget(port=1), kind=APPLY)
    ready = {**widget(), "status": {"ready": True}}
    got = await widgets.ok("PATCH", f"{PATH}/w/status?fieldManager=controller", ready, kind=APPLY)
    assert owners(got) == {"one": {"f:spec": {"f:port": {}}}, "controller": {"f:status": {"f:ready": {}}}}
    answer = await widgets("PATCH", f"{PATH}/w?fieldManager=one", widget(nope=1), kind=APPLY)
    assert answer.body["message"] == (
        "failed to create typed patch object (/w; example.com/v1, Kind=Widget): "
        ".spec.nope: field not declared in schema"
    )


async def test_a_changed_schema_counts_at_once(widgets: Any) -> None:
    await widgets.ok("PATCH", f"{PATH}/w?fieldManager=one", widget(lines=["1"]), kind=APPLY)
    change = [{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/late",
               "value": {"type": "string"}}]  # fmt: skip
    where = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
    await widgets.ok("PATCH", where, change, kind="application/json-patch+json")
    got = await widgets.ok("PATCH", f"{PATH}/w?fieldManager=two", {"spec": {"late": "x"}}, kind=MERGE)
    assert owners(got) == {"one": {"f:spec": {"f:lines": {}}}, "two": {"f:spec": {"f:late": {}}}}
    answer = await widgets("PATCH", f"{PATH}/w?fieldManager=three", widget(late="y"), kind=APPLY)
    assert answer.status == 409


async def test_rules_about_the_whole_object_do_not_mind_owners(api: Any) -> None:
    crd = definition()
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["x-kubernetes-validations"] = [
        {"rule": "self.metadata.name == 'w' && (!has(oldSelf.spec) || has(self.spec))", "message": "keep the spec"}
    ]
    await api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    await api.ok("PATCH", f"{PATH}/w?fieldManager=one", widget(port=1), kind=APPLY)
    await api.ok("PATCH", f"{PATH}/w?fieldManager=two", {"spec": {"port": 2}}, kind=MERGE)
    answer = await api("PATCH", f"{PATH}/w?fieldManager=two", {"spec": None}, kind=MERGE)
    assert (answer.status, "keep the spec" in answer.body["message"]) == (422, True)


async def test_policies_see_owners_as_a_list(api: Any) -> None:
    group = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}
    expression = "object.metadata.managedFields.size() == 2 && oldObject.metadata.managedFields[0].manager == 'one'"
    policy = {"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail",
        "validations": [{"expression": expression, "message": "two owners"}],
    }}  # fmt: skip
    await api.ok("POST", f"{group}/validatingadmissionpolicies", policy)
    binding = {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
    await api.ok("POST", f"{group}/validatingadmissionpolicybindings", binding)
    path = "/api/v1/namespaces/default/configmaps"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    await api.ok("PATCH", f"{path}/a?fieldManager=one", body, kind=APPLY)
    await api.ok("PATCH", f"{path}/a?fieldManager=two", {"data": {"j": "1"}}, kind=MERGE)
    answer = await api("PATCH", f"{path}/a?fieldManager=three", {"data": {"l": "1"}}, kind=MERGE)
    assert (answer.status, "two owners" in answer.body["message"]) == (422, True)
