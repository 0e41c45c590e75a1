"""Device claims and slices: every version there and back, and in the shape that each version's schema has."""

from typing import Any

import pytest

from controlplane.api import convert, definitions, resources, validate

GROUP = "resource.k8s.io"
SELECTOR = [{"cel": {"expression": "true"}}]
EXACT = {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1,
                                  "selectors": SELECTOR}}  # fmt: skip
CHOICE = {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "gpu", "allocationMode": "All"}]}
CLAIM = {"devices": {"requests": [EXACT, CHOICE], "constraints": [{"matchAttribute": "a.b/c"}]}}
DEVICE = {"name": "d0", "attributes": {"model": {"string": "x"}}, "capacity": {"memory": {"value": "1Gi"}}}
POOL = {"name": "p", "generation": 1, "resourceSliceCount": 1}
OBJECTS: dict[str, dict[str, Any]] = {
    "ResourceClaim": {"spec": CLAIM},
    "ResourceClaimTemplate": {"spec": {"spec": CLAIM}},
    "ResourceSlice": {"spec": {"driver": "d.example.com", "nodeName": "n", "pool": POOL, "devices": [DEVICE]}},
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("stored", ["v1", "v1beta2"])
@pytest.mark.parametrize(("other", "served"), [("v1beta1", "1.34"), ("v1alpha3", "1.33"), ("v1beta2", "1.33")])
def test_there_and_back(kind: str, stored: str, other: str, served: str) -> None:
    obj = {"apiVersion": f"{GROUP}/{stored}", "kind": kind, "metadata": {"name": "x"}, **OBJECTS[kind]}
    before = repr(obj)
    converted = convert.convert(obj, f"{GROUP}/{other}")
    assert repr(obj) == before
    assert converted["apiVersion"] == f"{GROUP}/{other}"
    loaded = definitions.load(served)
    resource = resources.builtin(loaded).by_kind(GROUP, other, kind)
    assert resource is not None
    assert validate.check_body(resource.schema, kind, other, converted, "Strict", definitions=loaded)[1] == []
    assert convert.convert(converted, f"{GROUP}/{stored}") == obj
    flat = converted["apiVersion"].endswith(("v1beta1", "v1alpha3"))
    assert convert.same_shape(kind, f"{GROUP}/{stored}", f"{GROUP}/{other}") is not flat


def test_shapes() -> None:
    obj = {"apiVersion": f"{GROUP}/v1", "kind": "ResourceClaim", "metadata": {}, "spec": CLAIM}
    first, second = convert.convert(obj, f"{GROUP}/v1beta1")["spec"]["devices"]["requests"]
    assert (first["deviceClassName"], first["count"]) == ("gpu", 1)
    assert "exactly" not in first and second == CHOICE
    piece = {"apiVersion": f"{GROUP}/v1", "kind": "ResourceSlice", "metadata": {}, **OBJECTS["ResourceSlice"]}
    [device] = convert.convert(piece, f"{GROUP}/v1alpha3")["spec"]["devices"]
    assert device == {"name": "d0", "basic": {"attributes": DEVICE["attributes"], "capacity": {"memory": "1Gi"}}}
    empty = {"apiVersion": f"{GROUP}/v1", "kind": "ResourceClaim", "metadata": {}, "spec": {"devices": {}}}
    assert convert.convert(empty, f"{GROUP}/v1beta1")["spec"] == {"devices": {}}
