"""x-kubernetes-validations: when a rule is looked at, and what it says."""

from typing import Any

from controlplane.api.schema.kind import CustomKind

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def things(**spec: Any) -> CustomKind:
    schema = {"type": "object", "properties": {"spec": {"type": "object", **spec}}}
    return CustomKind("example.com", "Thing", {"name": "v1", "schema": {"openAPIV3Schema": schema}})


def obj(spec: Any) -> Any:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def said(kind: CustomKind, spec: Any, old: Any = None) -> list[str]:
    return [str(cause) for cause in kind.validate(obj(spec), None if old is None else obj(old))]


def rules(*rules: Any) -> Any:
    return {"x-kubernetes-validations": list(rules)}


def test_a_rule_speaks_with_its_message() -> None:
    limits = {"properties": {"min": INTEGER, "max": INTEGER}}
    plain = things(**limits, **rules({"rule": "self.min <= self.max"}))
    assert said(plain, {"min": 1, "max": 2}) == []
    assert said(plain, {"min": 3, "max": 2}) == ['spec: Invalid value: "object": failed rule: self.min <= self.max']
    assert said(plain, {"min": 3}) == [
        'spec: Invalid value: "object": no such key: max evaluating rule: failed rule: self.min <= self.max'
    ]
    worded = things(**limits, **rules(
        {"rule": "self.min <= self.max", "message": "never", "reason": "FieldValueForbidden", "fieldPath": ".max",
         "messageExpression": "'at least ' + string(self.min)"},
    ))  # fmt: skip
    assert said(worded, {"min": 3, "max": 2}) == ["spec.max: Forbidden: at least 3"]


def test_changes_are_only_compared_when_there_is_something_to_compare() -> None:
    frozen = things(properties={"a": {**STRING, **rules({"rule": "self == oldSelf", "message": "is immutable"})}})
    assert said(frozen, {"a": "x"}) == []
    assert said(frozen, {"a": "y"}, {"a": "x"}) == ['spec.a: Invalid value: "string": is immutable']
    assert said(frozen, {"a": "y"}, {}) == []


def test_optional_old_self_sees_creation_too() -> None:
    rule = {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": True, "message": "begins with first"}
    once = things(properties={"a": {**STRING, **rules(rule)}})
    assert said(once, {"a": "first"}) == []
    assert said(once, {"a": "second"}) == ['spec.a: Invalid value: "string": begins with first']
    assert said(once, {"a": "second"}, {"a": "first"}) == []


def test_items_of_a_list_map_are_compared_by_their_keys() -> None:
    item = {"type": "object", "required": ["name"], "properties": {
        "name": STRING, "v": {**INTEGER, **rules({"rule": "self >= oldSelf", "message": "only grows"})}}}  # fmt: skip
    grow = things(properties={"l": {"type": "array", "items": item, "x-kubernetes-list-type": "map",
                                    "x-kubernetes-list-map-keys": ["name"]}})  # fmt: skip
    old = {"l": [{"name": "a", "v": 1}, {"name": "b", "v": 5}]}
    assert said(grow, {"l": [{"name": "b", "v": 6}, {"name": "a", "v": 1}]}, old) == []
    assert said(grow, {"l": [{"name": "b", "v": 4}]}, old) == ['spec.l[0].v: Invalid value: "integer": only grows']


def test_rules_wait_until_the_shape_is_right() -> None:
    kind = things(properties={"a": INTEGER}, **rules({"rule": "self.a > 1"}))
    assert said(kind, {"a": "x"}) == [
        'spec.a: Invalid value: "string": spec.a in body must be of type integer: "string"',
        "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct "
        "the existing errors to complete validation",
    ]


def test_names_and_numbers_are_as_cel_needs_them() -> None:
    kind = things(properties={"a-b": STRING, "namespace": STRING, "n": {"type": "number"}}, **rules(
        {"rule": "self.a__dash__b == self.__namespace__ && self.n * 0.5 == 1.0"},
    ))  # fmt: skip
    assert said(kind, {"a-b": "x", "namespace": "x", "n": 2}) == []


def test_what_was_accepted_once_stays_accepted() -> None:
    stricter = things(properties={"a": {**INTEGER, **rules({"rule": "self < 3"})}, "b": STRING})
    assert said(stricter, {"a": 5, "b": "y"}, {"a": 5, "b": "x"}) == []


def test_a_write_has_a_budget() -> None:
    item = {**INTEGER, **rules({"rule": "[1, 2].all(x, x < self + 5)"})}
    kind = things(properties={"l": {"type": "array", "items": item}})
    assert said(kind, {"l": list(range(100))}) == []
    over = said(kind, {"l": list(range(2100))})
    assert len(over) == 1
    assert "running out of cost budget" in over[0]
