"""Literals of named types become maps, and nothing else changes."""

import pytest

from controlplane.api.cel.environment import compile_expression
from controlplane.api.cel.structs import as_maps


@pytest.mark.parametrize(("text", "written"), [
    ("Object{spec: Object.spec{replicas: 3}}", '{"spec": {"replicas": 3}}'),
    ("Object{metadata: Object.metadata{labels: {'a': 'x{y: z}'}}}", "{\"metadata\": {\"labels\": {'a': 'x{y: z}'}}}"),
    ('[JSONPatch{op: "add", path: "/a", value: {"b": 1}}]', '[{"op": "add", "path": "/a", "value": {"b": 1}}]'),
    ("Object{?spec: optional.none()}", '{?"spec": optional.none()}'),
    ("has(object.spec) ? Object{a: object.b ? c : d} : Object{}", 'has(object.spec) ? {"a": object.b ? c : d} : {}'),
    ("Object{a__dash__b: 1, __namespace__: 2}", '{"a-b": 1, "namespace": 2}'),
    ("object.Objects{a: 1}", "object.Objects{a: 1}"),
])  # fmt: skip
def test_as_maps(text: str, written: str) -> None:
    assert as_maps(text) == written


def test_they_evaluate() -> None:
    text = """Object{
      spec: Object.spec{
        list: object.list.map(x, Object.spec.list{name: x, on: true})
      }
    }"""
    made = compile_expression(as_maps(text), ("object",)).evaluate({"object": {"list": ["a"]}})
    assert made == {"spec": {"list": [{"name": "a", "on": True}]}}
    assert compile_expression("jsonpatch.escapeKey('a/b~c')", ()).evaluate({}) == "a~1b~0c"
