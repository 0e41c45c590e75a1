"""CustomResourceDefinitions that are wrong, and in which words they are refused."""

from typing import Any

import pytest

from controlplane.api import defaults, validation
from controlplane.api.definitions import load
from controlplane.api.resources import builtin
from controlplane.api.validate import decode_checked

TABLE = builtin(load())
CRD = TABLE.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
ROOT = "spec.validation.openAPIV3Schema"
SPEC = f"{ROOT}.properties[spec]"


def definition(schema: Any = None, **spec: Any) -> Any:
    version = {"name": "v1", "served": True, "storage": True,
               "schema": {"openAPIV3Schema": {"type": "object"} if schema is None else schema}}  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
                 "versions": [version], **spec},
    }  # fmt: skip


def complaints(crd: Any, old: Any = None) -> list[str]:
    assert CRD is not None
    made, _ = decode_checked(CRD, crd)
    defaults.apply(CRD, made)
    if old is not None:
        defaults.apply(CRD, old)
    causes = validation.create(CRD, made) if old is None else validation.update(CRD, made, old)
    return [str(cause) for cause in causes]


def in_spec(spec: Any) -> Any:
    return definition({"type": "object", "properties": {"spec": spec}})


def test_a_good_one_has_nothing_against_it() -> None:
    assert complaints(definition()) == []


@pytest.mark.parametrize(("spec", "complaint"), [
    ({"group": "example"}, 'spec.group: Invalid value: "example": should be a domain with at least one dot'),
    ({"scope": "Global"}, 'spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced"'),
    ({"names": {"plural": "things", "kind": "Thing", "listKind": "Thing"}},
     'spec.names.listKind: Invalid value: "Thing": kind and listKind may not be the same'),
    ({"preserveUnknownFields": True}, "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set "
     "x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"),
    ({"conversion": {"strategy": "Webhook"}},
     "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
])  # fmt: skip
def test_what_it_says_of_itself(spec: Any, complaint: str) -> None:
    assert complaint in complaints(definition(**spec))


def test_its_name_follows_from_its_names() -> None:
    crd = definition()
    crd["metadata"]["name"] = "other.example.com"
    assert complaints(crd) == [
        'metadata.name: Invalid value: "other.example.com": must be spec.names.plural+"."+spec.group'
    ]


def test_protected_groups_want_an_approval() -> None:
    crd = definition(group="x.k8s.io")
    crd["metadata"]["name"] = "things.x.k8s.io"
    (found,) = complaints(crd)
    assert found.startswith("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must")
    crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, an experiment"}
    assert complaints(crd) == []


@pytest.mark.parametrize(("schema", "complaint"), [
    ({}, f"{SPEC}.type: Required value: must not be empty for specified object fields"),
    ({"type": "array"}, f"{SPEC}.items: Required value: must be specified"),
    ({"type": "array", "items": {}}, f"{SPEC}.items.type: Required value: must not be empty for specified array items"),
    ({"type": "thing"}, f'{SPEC}.type: Unsupported value: "thing": supported values: "array", "boolean", "integer", '
     '"number", "object", "string"'),
    ({"type": "array", "items": {"type": "string"}, "uniqueItems": True},
     f"{SPEC}.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes "
     "quadratic"),
    ({"type": "object", "additionalProperties": False},
     f"{SPEC}.additionalProperties: Forbidden: additionalProperties cannot be set to false"),
    ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
     f"{SPEC}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"),
    ({"type": "object", "$ref": "x"}, f"{SPEC}.$ref: Forbidden: $ref is not supported"),
    ({"type": "string", "pattern": "["}, f'{SPEC}.pattern: Invalid value: "[": must be a valid regular expression, but '
     "isn't: error parsing regexp: missing closing ]: `[`"),
    ({"type": "object", "anyOf": [{"type": "string"}]},
     f"{SPEC}.anyOf[0].type: Forbidden: must be empty to be structural"),
    ({"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]},
     f"{SPEC}.properties[a]: Required value: because it is defined in {SPEC}.anyOf[0].properties[a]"),
    ({"type": "integer", "default": "x"},
     f'{SPEC}.default: Invalid value: "string": {SPEC}.default in body must be of type integer: "string"'),
    ({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
     f"{SPEC}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"),
    ({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
      "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
     f"{SPEC}.items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must "
     "have a default or be a required property"),
    ({"type": "string", "x-kubernetes-list-type": "set"},
     f'{SPEC}.type: Invalid value: "string": must be array if x-kubernetes-list-type is specified'),
    ({"type": "object", "x-kubernetes-embedded-resource": True},
     f"{SPEC}.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without "
     "x-kubernetes-preserve-unknown-fields"),
])  # fmt: skip
def test_schemas_must_be_structural(schema: Any, complaint: str) -> None:
    assert complaint in complaints(in_spec(schema))


@pytest.mark.parametrize("schema", [
    {"x-kubernetes-int-or-string": True},
    {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"x-kubernetes-preserve-unknown-fields": True},
    {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    {"type": "object", "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "oneOf": [{"required": ["a"]}]},
    {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
])  # fmt: skip
def test_schemas_that_are(schema: Any) -> None:
    assert complaints(in_spec(schema)) == []


def test_a_root_has_its_own_rules() -> None:
    assert complaints(definition({"type": "string"})) == [
        f'{ROOT}.type: Invalid value: "string": must be object at the root'
    ]
    assert complaints(definition({"type": "object", "properties": {"metadata": {
        "type": "object", "properties": {"labels": {"type": "object"}}}}})) == [
        f"{ROOT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but "
        "metadata is implicitly specified"
    ]  # fmt: skip


@pytest.mark.parametrize(("rule", "at", "complaint"), [
    ({"rule": "self.x +"}, "rule", "compilation failed: ERROR: <input>:1:9: Syntax error"),
    ({"rule": "'text'"}, "rule", "cel expression must evaluate to a bool"),
    ({"rule": " "}, "rule", "Required value: rule is not specified"),
    ({"rule": "true", "message": "a\nb"}, "message", "message must not contain line breaks"),
    ({"rule": "true", "reason": "Odd"}, "reason", "Unsupported value"),
    ({"rule": "true", "messageExpression": "1"}, "messageExpression", "must evaluate to a string"),
])  # fmt: skip
def test_rules_must_compile(rule: Any, at: str, complaint: str) -> None:
    (found,) = complaints(in_spec({"type": "object", "x-kubernetes-validations": [rule]}))
    assert found.startswith(f"{SPEC}.x-kubernetes-validations[0].{at}: ")
    assert complaint in found


def test_changes_cannot_be_compared_everywhere() -> None:
    rule = {"rule": "self == oldSelf"}
    (found,) = complaints(in_spec({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [rule]}}))
    assert found.endswith(f"oldSelf cannot be used on the uncorrelatable portion of the schema within {SPEC}")


def test_what_may_not_change() -> None:
    old = definition()
    old["status"] = {"storedVersions": ["v1", "v0"], "conditions": [{"type": "Established", "status": "True"}]}
    new = definition(scope="Cluster")
    new["status"] = old["status"]
    found = complaints(new, old)
    assert 'spec.scope: Invalid value: "Cluster": field is immutable' in found
    lost = 'status.storedVersions[1]: Invalid value: "v0": missing from spec.versions; v0 was previously a storage'
    assert any(each.startswith(lost) for each in found)


def test_columns_fields_and_subresources_point_somewhere() -> None:
    crd = in_spec({"type": "object", "properties": {"color": {"type": "string"}, "list": {"type": "array", "items": {
        "type": "string"}}}})  # fmt: skip
    crd["spec"]["versions"][0] |= {
        "additionalPrinterColumns": [{"name": "C", "type": "color", "jsonPath": "spec.color"}],
        "selectableFields": [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.odd"}, {"jsonPath": ".spec.list"}],
        "subresources": {"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": ".status.replicas"}},
    }
    found = complaints(crd)
    for text in (
        'spec.additionalPrinterColumns[0].type: Invalid value: "color": must be one of boolean,date,integer,number,str',
        'spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec.color": must be a simple json path starting',
        'spec.versions[0].selectableFields[1].jsonPath: Invalid value: ".spec.odd": is an invalid path: does not match',
        'spec.versions[0].selectableFields[2].jsonPath: Invalid value: ".spec.list": must point to a field of type',
        'spec.subresources.scale.specReplicasPath: Invalid value: ".status.x": should be a json path under .spec',
    ):
        assert any(each.startswith(text) for each in found), found
