"""The structural check."""

from typing import Any

import pytest

from controlplane.api import definitions, resources, validate
from controlplane.api.status import StatusError

TABLE = resources.builtin(definitions.load())


def check(obj: dict[str, Any], mode: str = "Warn") -> tuple[dict[str, Any], list[str]]:
    resource = TABLE.for_object(obj["apiVersion"], obj["kind"])
    assert resource is not None
    return validate.decode_checked(resource, obj, mode)


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}


def test_a_fitting_object_is_returned_as_it_is() -> None:
    obj = pod(containers=[{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}}}])
    assert check(obj) == (obj, [])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"nodeName": 3}, "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string"),
        (
            {"activeDeadlineSeconds": "30"},
            "json: cannot unmarshal string into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
        (
            {"containers": {"a": 1}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            {"containers": [{"name": "a", "env": [{"name": "A", "value": True}]}]},
            "json: cannot unmarshal bool into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            {"nodeSelector": {"a": True}},
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        (
            {"priority": 2**40},
            f"json: cannot unmarshal number {2**40} into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_wrong_types_are_said_in_the_decoders_words(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(StatusError) as raised:
        check(pod(**spec))
    assert raised.value.code == 400
    assert raised.value.message == f'Pod in version "v1" cannot be handled as a Pod: {words}'


def test_unknown_fields_are_dropped_and_told() -> None:
    obj, warnings = check(pod(frob=1, containers=[{"name": "a", "imag": "b"}]))
    assert obj["spec"] == {"containers": [{"name": "a"}]}
    assert warnings == ['unknown field "spec.frob"', 'unknown field "spec.containers[0].imag"']
    assert check(pod(frob=1), "Ignore")[1] == []
    with pytest.raises(StatusError) as raised:
        check(pod(frob=1), "Strict")
    assert raised.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.frob"'
    )


def test_nulls_are_dropped_or_become_zero() -> None:
    obj = pod(nodeName=None, containers=[{"name": "a", "args": [None, "b"]}], nodeSelector={"a": None})
    obj["metadata"]["creationTimestamp"] = None
    checked, warnings = check(obj, "Strict")
    assert checked["metadata"] == {"name": "a"} and not warnings
    assert checked["spec"] == {"containers": [{"name": "a", "args": ["", "b"]}], "nodeSelector": {"a": ""}}


def test_quantities_and_times_become_canonical() -> None:
    obj = pod(containers=[{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x/y": 2}}}])
    obj["metadata"]["creationTimestamp"] = "2026-01-31T13:00:00.5+01:00"
    checked, _ = check(obj)
    assert checked["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "1Gi", "x/y": "2"}
    assert checked["metadata"]["creationTimestamp"] == "2026-01-31T12:00:00Z"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": "2026-01-31T12:00:00Z"}}
    assert check(lease)[0]["spec"]["renewTime"] == "2026-01-31T12:00:00.000000Z"


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01T00:00:00Z", "2026-01-31", 5, "2026-01-31T25:00:00Z"])
def test_bad_times(time: Any) -> None:
    obj = pod()
    obj["metadata"]["creationTimestamp"] = time
    with pytest.raises(StatusError):
        check(obj)


def test_base64_fields() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "YQ==", "b": "Y\nQ==", "c": "", "d": None}}
    assert check(secret)[0]["data"] == {"a": "YQ==", "b": "YQ==", "c": "", "d": ""}
    with pytest.raises(StatusError, match="illegal base64 data at input byte 0"):
        check({"apiVersion": "v1", "kind": "Secret", "data": {"a": "!"}})
    with pytest.raises(StatusError, match="illegal base64 data"):
        check({"apiVersion": "v1", "kind": "Secret", "data": {"a": "YQ="}})


def test_free_form_objects_stay() -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"a": {"default": {"x": 1}}}}}}]
        },
    }
    obj, warnings = check(crd, "Strict")
    assert not warnings
    assert obj["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["a"]["default"] == {"x": 1}


@pytest.mark.parametrize("body", [None, [], 1, "x"])
def test_bodies_that_are_no_objects(body: Any) -> None:
    resource = TABLE.find("", "v1", "pods")
    assert resource is not None
    with pytest.raises(StatusError):
        validate.decode_checked(resource, body)


def test_duplicate_fields() -> None:
    assert validate.duplicate_fields(b'{"a":1,"b":{"c":[{"d":1,"d":2}]},"a":2}') == ["b.c[0].d", "a"]
    assert validate.duplicate_fields(b'{"a":[1,[]],"b":{}}') == [] == validate.duplicate_fields(b"{")
    resource = TABLE.find("", "v1", "pods")
    assert resource is not None
    assert validate.decode_checked(resource, pod(), duplicates=['duplicate field "a"'])[1] == ['duplicate field "a"']


@pytest.mark.parametrize("resource", TABLE.all(), ids=lambda r: f"{r.api_version}-{r.plural}")
def test_every_kind_has_a_structure(resource: resources.Resource) -> None:
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "a"}}
    assert validate.decode_checked(resource, obj, "Strict") == (obj, [])
    with pytest.raises(StatusError, match="unknown field"):
        validate.decode_checked(resource, obj | {"frob": 1}, "Strict")


def test_nesting_has_an_end() -> None:
    props: dict[str, Any] = {}
    for _ in range(3000):
        props = {"not": props}
    version = {"name": "v1", "schema": {"openAPIV3Schema": props}}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [version]}}
    with pytest.raises(StatusError, match="nested too deeply"):
        check(crd)
