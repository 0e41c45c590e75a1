"""The published definitions, as loaded."""

import json

import pytest

from controlplane.api import definitions


def test_for_gvk_finds_the_schema_of_a_kind() -> None:
    name, schema = definitions.load().for_gvk("apps", "v1", "Deployment") or ("", {})
    assert name == "io.k8s.api.apps.v1.Deployment"
    assert schema["properties"]["spec"]["$ref"] == "#/$defs/io.k8s.api.apps.v1.DeploymentSpec"
    assert definitions.load().for_gvk("apps", "v9", "Deployment") is None


def test_load_is_cached_and_accepts_patch_versions() -> None:
    assert definitions.load("v1.37.1") == definitions.load("v1.37.1")
    assert definitions.load().version == "1.37"
    assert definitions.versions()[0] == "1.37"


def test_unknown_version_is_said_with_the_known_ones() -> None:
    with pytest.raises(definitions.UnknownVersion, match=r"no definitions of Kubernetes 1\.99; installed: 1\.37"):
        definitions.load("1.99")


def test_schemas_are_in_published_form() -> None:
    loaded = definitions.load()
    assert len(loaded.schemas) > 800
    for name, schema in loaded.schemas.items():
        text = json.dumps(schema)
        assert '"null"' not in text, name
        assert '"oneOf": [' not in text, name
    assert loaded.schemas[definitions.QUANTITY]["type"] == "string"
    assert loaded.schemas[definitions.INT_OR_STRING]["format"] == "int-or-string"
    assert "enum" not in loaded.schemas["io.k8s.api.core.v1.Pod"]["properties"]["kind"]
    assert loaded.schemas["io.k8s.api.core.v1.Pod"]["description"].startswith("Pod is a collection")


def test_resolve_follows_references() -> None:
    loaded = definitions.load()
    pod = loaded.schemas["io.k8s.api.core.v1.Pod"]
    assert "containers" in loaded.resolve(pod["properties"]["spec"])["properties"]
    assert loaded.resolve(pod) is pod


def test_closure_is_closed() -> None:
    loaded = definitions.load()
    names = loaded.closure(["io.k8s.api.apps.v1.Deployment"])
    assert "io.k8s.api.core.v1.Container" in names
    assert "io.k8s.api.core.v1.Node" not in names
    for name in names:
        assert set(loaded.references(name)) <= names
