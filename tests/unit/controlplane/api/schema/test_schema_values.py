"""Structural schemas at work: what is pruned, defaulted, and refused in which words."""

from typing import Any

import pytest

from controlplane.api.schema.kind import CustomKind
from controlplane.api.status import StatusError


def kind(spec: Any, **version: Any) -> CustomKind:
    schema = {"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}}
    raw = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    return CustomKind("example.com", "Thing", raw)


def obj(spec: Any) -> Any:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def shaped(schema: Any, spec: Any) -> tuple[Any, list[str]]:
    made, warnings = kind(schema).decode(obj(spec))
    return made["spec"], warnings


def complaints(schema: Any, spec: Any, old: Any = None) -> list[str]:
    causes = kind(schema).validate(obj(spec), None if old is None else obj(old))
    return [str(cause) for cause in causes]


def of(**properties: Any) -> Any:
    return {"type": "object", "properties": properties}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(("schema", "spec", "left", "warned"), [
    (of(a=STRING), {"a": "x", "b": 1}, {"a": "x"}, ["spec.b"]),
    (of(a=of(b=STRING)), {"a": {"b": "x", "c": 1}}, {"a": {"b": "x"}}, ["spec.a.c"]),
    ({**of(a=of(b=STRING)), "x-kubernetes-preserve-unknown-fields": True}, {"z": {"y": 1}, "a": {"c": 1}},
     {"z": {"y": 1}, "a": {}}, ["spec.a.c"]),
    ({"type": "object", "additionalProperties": of(a=STRING)}, {"k": {"a": "x", "b": 1}}, {"k": {"a": "x"}},
     ["spec.k.b"]),
    (of(l={"type": "array", "items": of(a=STRING)}), {"l": [{"a": "x", "b": 1}, {}]}, {"l": [{"a": "x"}, {}]},
     ["spec.l[0].b"]),
    (of(o={"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": of(a=STRING)}}),
     {"o": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "spec": {"a": "x", "b": 1}}},
     {"o": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"a": "x"}}},
     ["spec.o.metadata.odd", "spec.o.spec.b"]),
])  # fmt: skip
def test_unknown_fields_go(schema: Any, spec: Any, left: Any, warned: list[str]) -> None:
    assert shaped(schema, spec) == (left, [f'unknown field "{path}"' for path in warned])


@pytest.mark.parametrize(("schema", "spec", "result"), [
    (of(a={**STRING, "default": "x"}), {}, {"a": "x"}),
    (of(a={**STRING, "default": "x"}), {"a": None}, {"a": "x"}),
    (of(a={**STRING, "default": "x", "nullable": True}), {"a": None}, {"a": None}),
    (of(a=STRING), {"a": None}, {}),
    (of(a=of(b={**INTEGER, "default": 1})), {}, {}),
    (of(a={**of(b={**INTEGER, "default": 1}), "default": {}}), {}, {"a": {"b": 1}}),
    (of(l={"type": "array", "items": of(b={**INTEGER, "default": 1})}), {"l": [{}, {"b": 2}]},
     {"l": [{"b": 1}, {"b": 2}]}),
    ({"type": "object", "additionalProperties": of(b={**INTEGER, "default": 1})}, {"k": {}}, {"k": {"b": 1}}),
])  # fmt: skip
def test_defaults_come_and_nulls_go(schema: Any, spec: Any, result: Any) -> None:
    assert shaped(schema, spec)[0] == result


def test_defaults_are_nobodys_shared_property() -> None:
    things = kind(of(a={"type": "array", "items": STRING, "default": ["x"]}))
    first, second = things.decode(obj({}))[0], things.decode(obj({}))[0]
    first["spec"]["a"].append("y")
    assert second["spec"]["a"] == ["x"]


@pytest.mark.parametrize(("schema", "value", "complaint"), [
    (INTEGER, "x", 'spec.f: Invalid value: "string": spec.f in body must be of type integer: "string"'),
    (STRING, 1, 'spec.f: Invalid value: "integer": spec.f in body must be of type string: "integer"'),
    ({"type": "boolean"}, 1, 'spec.f: Invalid value: "integer": spec.f in body must be of type boolean: "integer"'),
    ({"x-kubernetes-int-or-string": True}, [],
     'spec.f: Invalid value: "array": spec.f in body must be of type integer,string: "array"'),
    ({**INTEGER, "maximum": 3}, 4, "spec.f: Invalid value: 4: spec.f in body should be less than or equal to 3"),
    ({**INTEGER, "minimum": 3, "exclusiveMinimum": True}, 3,
     "spec.f: Invalid value: 3: spec.f in body should be greater than 3"),
    ({**INTEGER, "multipleOf": 2}, 3, "spec.f: Invalid value: 3: spec.f in body should be a multiple of 2"),
    ({**STRING, "maxLength": 2}, "abc", "spec.f: Too long: may not be more than 2 bytes"),
    ({**STRING, "minLength": 2}, "a", 'spec.f: Invalid value: "a": spec.f in body should be at least 2 chars long'),
    ({**STRING, "pattern": "^a$"}, "b", "spec.f: Invalid value: \"b\": spec.f in body should match '^a$'"),
    ({**STRING, "enum": ["b", "a"]}, "c", 'spec.f: Unsupported value: "c": supported values: "b", "a"'),
    ({**STRING, "format": "date-time"}, "x",
     'spec.f: Invalid value: "x": spec.f in body must be of type date-time: "x"'),
    ({**STRING, "format": "ipv4"}, "1.2.3",
     'spec.f: Invalid value: "1.2.3": spec.f in body must be of type ipv4: "1.2.3"'),
    ({"type": "array", "items": STRING, "maxItems": 1}, ["a", "b"], "spec.f: Too many: 2: must have at most 1 item"),
    ({"type": "array", "items": STRING, "minItems": 1}, [],
     "spec.f: Invalid value: []: spec.f in body should have at least 1 items"),
    ({"type": "array", "items": STRING, "x-kubernetes-list-type": "set"}, ["a", "a"],
     'spec.f[1]: Duplicate value: "a"'),
    ({"type": "array", "items": INTEGER}, [1, "x"],
     'spec.f[1]: Invalid value: "string": spec.f[1] in body must be of type integer: "string"'),
    ({"type": "object", "required": ["a"], "properties": {"a": STRING}}, {}, "spec.f.a: Required value"),
    ({"type": "object", "additionalProperties": STRING, "maxProperties": 1}, {"a": "", "b": ""},
     "spec.f: Too many: 2: must have at most 1 item"),
])  # fmt: skip
def test_complaints_in_kubernetes_words(schema: Any, value: Any, complaint: str) -> None:
    assert complaints(of(f=schema), {"f": value}) == [complaint]


def test_alternatives() -> None:
    schema = {**of(a=STRING, b=STRING), "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert complaints(schema, {"a": "x"}) == []
    assert complaints(schema, {"a": "x", "b": "y"}) == [
        '<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives'
    ]
    assert complaints(schema, {})[0] == (
        '<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid'
    )
    forbidden = {**of(a=STRING), "not": {"required": ["a"]}}
    assert complaints(forbidden, {"a": "x"}) == ['<nil>: Invalid value: "": "spec" must not validate the schema (not)']


def test_what_did_not_change_is_not_looked_at_again() -> None:
    schema = of(a={**INTEGER, "maximum": 1}, b=STRING)
    assert complaints(schema, {"a": 5, "b": "y"}, {"a": 5, "b": "x"}) == []
    assert complaints(schema, {"a": 6}, {"a": 5}) != []


def test_metadata_must_be_metadata() -> None:
    with pytest.raises(StatusError, match=r'^Thing in version "v1" cannot be handled as a Thing: json: cannot unm'):
        kind(of()).decode({**obj({}), "metadata": {"labels": {"a": 1}}})
