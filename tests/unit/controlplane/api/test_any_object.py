"""Any object that fits its schema goes through check, defaults, rules, patches and tables without an exception."""

import contextlib
import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api import defaults, definitions, patch, resources, tables, validate, validation
from controlplane.api.definitions import INT_OR_STRING, MICRO_TIME, QUANTITY, TIME, ref_name
from controlplane.api.status import StatusError

LOADED = definitions.load()
TABLE = resources.builtin(LOADED)
Schema = dict[str, Any]

WORDS = [
    "",
    "a",
    "A b",
    "TCP",
    "ClusterIP",
    "Always",
    "x/y",
    "10.0.0.1",
    "In",
    "Exists",
    "RollingUpdate",
    "0%",
    "a.b/c",
]
SPECIAL: dict[str, list[Any]] = {
    QUANTITY: ["1", "-1", "500m", "1Gi"],
    INT_OR_STRING: [0, 1, "http", "25%", ""],
    TIME: ["2026-01-31T12:00:00Z"],
    MICRO_TIME: ["2026-01-31T12:00:00.000000Z"],
}


def value(schema: Schema, chance: random.Random, depth: int, schemas: Any = LOADED.schemas) -> Any:
    if (ref := schema.get("$ref")) is not None:
        name = ref_name(ref)
        if name in SPECIAL:
            return chance.choice(SPECIAL[name])
        return value(schemas[name], chance, depth, schemas)
    kind = schema.get("type")
    if kind == "object":
        if depth <= 0:
            return {}
        if "properties" in schema:
            fields = schema["properties"]
            density = chance.random()
            chosen = [name for name in fields if chance.random() < density]
            return {name: value(fields[name], chance, depth - 1, schemas) for name in chosen}
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return {chance.choice(WORDS): value(values, chance, depth - 1, schemas) for _ in range(chance.randrange(3))}
        return {}
    if kind == "array":
        if depth <= 0:
            return []
        return [value(schema["items"], chance, depth - 1, schemas) for _ in range(chance.randrange(3))]
    if schema.get("format") == "byte":
        return chance.choice(["", "YQ=="])
    return {
        "string": chance.choice(WORDS),
        "boolean": chance.random() < 0.5,
        "integer": chance.choice([-1, 0, 1, 80, 70000]),
        "number": 0.5,
        None: {},
    }[kind]


def some(resource: resources.Resource, chance: random.Random) -> Any:
    obj = value({"$ref": f"#/$defs/{resource.schema}"}, chance, 6)
    return obj | {"apiVersion": resource.api_version, "kind": resource.kind}


@pytest.mark.parametrize("resource", TABLE.all(), ids=lambda r: f"{r.api_version}-{r.kind}")
@settings(max_examples=12, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_every_kind(resource: resources.Resource, chance: random.Random) -> None:
    obj, other = some(resource, chance), some(resource, chance)
    assert validate.decode_checked(resource, obj, "Strict") == (obj, [])
    assert validate.decode_checked(resource, other, "Strict") == (other, [])
    defaults.apply(resource, obj)
    once = copy.deepcopy(obj)
    assert validate.decode_checked(resource, obj, "Strict") == (obj, []), "defaults fit the schema"
    defaults.apply(resource, obj)
    assert obj == once, "defaults are stable"
    defaults.apply(resource, other)
    before = copy.deepcopy((obj, other))
    validation.create(resource, obj)
    validation.update(resource, other, obj)
    assert patch.merge_patch(obj, other) is not None
    shown = obj if "metadata" in obj else obj | {"metadata": {}}
    assert len(tables.cells(resource, shown, 0.0)) == len(tables.columns(resource))
    with contextlib.suppress(StatusError):  # a list item without its merge key is the client's fault
        patch.strategic_merge(obj, other, resource.schema, LOADED)
    assert (obj, other) == before, "rules and patches only look"


@pytest.mark.parametrize("version", ["1.29", "1.32", "1.34"])
def test_defaults_of_older_versions_set_no_field_that_they_do_not_know(version: str) -> None:
    old = definitions.load(version)
    schemas = old.schemas
    for resource in resources.builtin(old).all():
        for seed in range(3):
            obj = value(schemas[resource.schema], random.Random(seed), 6, schemas)
            obj |= {"apiVersion": resource.api_version, "kind": resource.kind}
            obj, _ = validate.decode_checked(resource, obj, "Strict", definitions=old)
            defaults.apply(resource, obj)
            _, unknown = validate.check_body(
                resource.schema, resource.kind, resource.version, obj, "Warn", definitions=old
            )
            assert unknown == []
