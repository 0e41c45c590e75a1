"""Answers in protobuf: every kind of every version goes to protobuf and back without loss."""

import base64
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api import definitions, resources, wire
from controlplane.api.definitions import INT_OR_STRING, MICRO_TIME, QUANTITY, RAW_EXTENSION, TIME, ref_name
from controlplane.api.wire import frames
from controlplane.api.wire.encoder import varint
from controlplane.api.wire.table import table

LOADED = definitions.load()
TABLE = resources.builtin(LOADED)
SCHEMAS = {name: LOADED.schemas[name] for name in LOADED.schemas}
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

UNNUMBERED = {"runningInUserNamespace", "derivedAttributes", "compatibilityGroups"}
"""Fields of the newest definitions whose numbers were not published yet: JSON only."""

FREE: dict[str, Callable[[random.Random], Any]] = {
    QUANTITY: lambda chance: chance.choice(["1", "-1", "500m", "1Gi", "1e3"]),
    INT_OR_STRING: lambda chance: chance.choice([0, 1, -1, "http", "25%", ""]),
    TIME: lambda chance: chance.choice(["2026-01-31T12:00:00Z", "1960-01-31T12:00:01Z"]),
    MICRO_TIME: lambda chance: chance.choice(["2026-01-31T12:00:00.000001Z", "1969-12-31T23:59:59.999999Z"]),
    f"{META}FieldsV1": lambda chance: {"f:spec": {"f:a": {}, 'k:{"name":"é"}': {".": {}}}},
    RAW_EXTENSION: lambda chance: {"apiVersion": "v1", "kind": "X", "n": [1, None, 0.5]},
    f"{EXTENSIONS}JSON": lambda chance: chance.choice([0, "x", [1], {"a": None}]),
    f"{EXTENSIONS}JSONSchemaPropsOrBool": lambda chance: chance.choice([True, False, {"type": "string"}]),
    f"{EXTENSIONS}JSONSchemaPropsOrArray": lambda chance: chance.choice([{"type": "string"}, [{"minimum": 1.5}, {}]]),
    f"{EXTENSIONS}JSONSchemaPropsOrStringArray": lambda chance: chance.choice([["a", "b"], {"type": "object"}]),
}


def value(schema: Any, chance: random.Random, depth: int, schemas: Any) -> Any:
    """Something that fits a schema, and nothing that Go would drop: no empty text, no empty list, no false switch."""
    if (ref := schema.get("$ref")) is not None:
        name = ref_name(ref)
        made = FREE.get(name)
        return made(chance) if made else value(schemas[name], chance, depth, schemas)
    kind = schema.get("type")
    if kind == "object":
        if "properties" in schema:
            if depth <= 0:
                return {}
            fields = {
                name: each
                for name, each in schema["properties"].items()
                if name not in {"apiVersion", "kind"} | UNNUMBERED
            }
            density = chance.choice([0.2, 0.6, 1.0])
            chosen = [name for name in fields if chance.random() < density]
            return {name: value(fields[name], chance, depth - 1, schemas) for name in chosen}
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return {key: value(values, chance, depth - 1, schemas) for key in chance.sample(["a", "b/c", "é"], 2)}
        return {}
    if kind == "array":
        return [value(schema["items"], chance, depth - 1, schemas) for _ in range(chance.randrange(1, 3))]
    if schema.get("format") == "byte":
        return base64.b64encode(chance.randbytes(chance.randrange(1, 5))).decode()
    return {
        "string": chance.choice(["a", "A b", "ü", "x" * 200]),
        "boolean": True,
        "integer": chance.choice([1, 80, 70000, -1, 2**31 - 1]),
        "number": chance.choice([0.5, 3]),
        None: {"free": True},
    }[kind]


@pytest.mark.parametrize("resource", TABLE.all(), ids=lambda r: f"{r.api_version}-{r.kind}")
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_there_and_back(resource: resources.Resource, seed: int) -> None:
    found = value({"$ref": f"#/$defs/{resource.schema}"}, random.Random(seed), 6, SCHEMAS)
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, **found}
    body = wire.encode(obj)
    assert body is not None
    again = wire.decode(body)
    assert _pruned(again) == _pruned(obj)
    assert wire.encode(again) == body


def _pruned(obj: Any) -> Any:
    """Without messages that have nothing in them: inlined ones cannot be told from absent ones."""
    if isinstance(obj, dict):
        made = {key: _pruned(each) for key, each in obj.items()}
        return {key: each for key, each in made.items() if each != [] and each != {}}
    return [_pruned(each) for each in obj] if isinstance(obj, list) else obj


def test_kinds_of_old_versions_have_messages() -> None:
    """But for alpha versions that are no more in the newest one: they are served in JSON only."""
    missing = set()
    for version in definitions.versions():
        if tuple(map(int, version.split("."))) >= (1, 29):
            every = resources.builtin(definitions.load(version)).all()
            missing |= {
                (each.api_version, each.kind) for each in every if not wire.message_of(each.api_version, each.kind)
            }
    assert all("alpha" in version for version, _ in missing), sorted(missing)


def test_numbers_as_go_writes_them() -> None:
    assert [varint(n) for n in (0, 127, 128, 300, 16_384)] == [b"\0", b"\x7f", b"\x80\1", b"\xac\2", b"\x80\x80\1"]
    assert varint(-1) == b"\xff" * 9 + b"\1"
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan"}
    assert wire.encode(options) == (
        b"k8s\0\n\x13\n\x02v1\x12\x0dDeleteOptions\x12\x0a\x08\x00\x22\x06Orphan\x1a\x00\x22\x00"
    )


def test_the_empty_that_means_something_stays() -> None:
    volume: dict[str, Any] = {"name": "v", "emptyDir": {}}
    probe = {"httpGet": {"port": "http"}, "periodSeconds": 1}
    spec = {"volumes": [volume], "containers": [{"name": "c", "livenessProbe": probe}], "securityContext": {}}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    assert wire.decode(wire.encode(obj) or b"") == obj


def test_what_does_not_fit_is_left_out() -> None:
    obj = {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "creationTimestamp": "yesterday", "labels": None, "generation": "x", "finalizers": 3},
        "data": {"k": "v"}, "unknown": 1,
    }  # fmt: skip
    again = wire.decode(wire.encode(obj) or b"")
    assert again == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    assert wire.encode({"apiVersion": "example.com/v1", "kind": "Own", "metadata": {}}) is None


def test_lists_and_frames() -> None:
    one = wire.framed(wire.message("core.v1.ConfigMap", {"metadata": {"name": "a"}}))
    pieces = frames.list_body("v1", "ConfigMapList", {"resourceVersion": "7"}, [one, one])
    whole = {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}
    assert b"".join(pieces) == wire.encode({**whole, "items": [{"metadata": {"name": "a"}}] * 2})
    empty = frames.list_body("v1", "ConfigMapList", {"resourceVersion": "7"}, [])
    assert b"".join(empty) == wire.encode({**whole, "items": []})
    frame = frames.watch_frame("ADDED", b"body")
    assert frame == b"\x00\x00\x00\x0f\x0a\x05ADDED\x12\x06\x0a\x04body"


def test_every_message_that_is_mentioned_is_there() -> None:
    known = table()
    for name in known.kinds.values():
        _compile_all(name, set())


def _compile_all(name: str, seen: set[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    for field in table().fields(name):
        if len(field.type) > 1:
            _compile_all(field.type, seen)
