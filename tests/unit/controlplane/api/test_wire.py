"""Protobuf bodies: what kubectl 1.37 really sent (kubectl_bodies.json: path -> body in hex), and what nobody should."""

import json
import struct
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import definitions, resources, validate, wire
from controlplane.api.status import StatusError

TABLE = resources.builtin(definitions.load())
BODIES = {
    path: bytes.fromhex(body)
    for path, body in json.loads(Path(__file__).with_name("kubectl_bodies.json").read_text()).items()
}


def body_for(plural: str) -> dict[str, Any]:
    return wire.decode(next(body for path, body in BODIES.items() if path.endswith(f"/{plural}")))


# A small encoder, enough for tests.


def varint(value: int) -> bytes:
    out = b""
    value &= (1 << 64) - 1
    while value > 127:
        out, value = out + bytes((value & 127 | 128,)), value >> 7
    return out + bytes((value,))


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return wire.MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw) + field(3, "") + field(4, "")


def test_a_deployment_as_kubectl_sends_it() -> None:
    obj = body_for("deployments")
    assert obj == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "nginx", "image": "nginx:1.25", "ports": [{"containerPort": 80}], "resources": {}}
                    ]
                },
            },
            "strategy": {},
        },
        "status": {},
    }


def test_other_bodies() -> None:
    assert body_for("configmaps")["data"] == {"a": "1", "empty": ""}
    assert body_for("secrets")["data"] == {"p": b64encode(b"w").decode()}
    assert body_for("services")["spec"]["ports"][0]["targetPort"] == "http"
    assert body_for("poddisruptionbudgets")["spec"]["minAvailable"] == "50%"
    assert body_for("resourcequotas")["spec"]["hard"] == {"cpu": "1", "memory": "1G"}
    assert body_for("token")["spec"] == {"expirationSeconds": 600}
    rule = body_for("ingresses")["spec"]["rules"][0]
    assert rule["host"] == "a.com" and rule["http"]["paths"][0]["backend"]["service"]["port"] == {"number": 80}


@pytest.mark.parametrize("path", BODIES)
def test_every_body_fits_its_schema(path: str) -> None:
    obj = wire.decode(BODIES[path])
    group, _, version = obj["apiVersion"].rpartition("/")
    found = definitions.load().for_gvk(group, version, obj["kind"])
    assert found is not None
    assert validate.check_body(found[0], obj["kind"], version, obj, "Strict")[1] == []


def test_inlined_messages_and_the_special_ones() -> None:
    http = field(2, field(1, "/") + field(2, field(1, 0) + field(2, 80) + field(3, "")) + field(4, ""))
    probe = field(1, http) + field(2, 0) + field(3, 5) + field(7, 0)
    secret = field(1, field(1, "s")) + field(2, "k") + field(3, 0)
    container = field(1, "c") + field(7, field(1, "A") + field(2, "") + field(3, field(4, secret))) + field(10, probe)
    volume = field(1, "v") + field(2, field(2, b""))
    amount = field(1, "memory") + field(2, field(1, "1Gi"))
    spec = field(1, volume) + field(2, container) + field(4, 0) + field(11, 0) + field(21, 0) + field(32, amount)
    created = field(8, field(1, 1_800_000_000) + field(2, 0))
    meta = field(1, "p") + created + field(9, b"") + field(17, field(1, "m") + field(7, field(1, b'{"f:a":{}}')))
    pod = wire.decode(envelope("v1", "Pod", field(1, meta) + field(2, spec)))
    assert pod["metadata"] == {
        "name": "p",
        "creationTimestamp": "2027-01-15T08:00:00Z",
        "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}],
    }
    assert pod["spec"] == {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [
            {
                "name": "c",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}}}],
                "livenessProbe": {
                    "httpGet": {"path": "/", "port": 80},
                    "timeoutSeconds": 5,
                    "terminationGracePeriodSeconds": 0,
                },
            }
        ],
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "overhead": {"memory": "1Gi"},
    }


def test_delete_options_of_any_version_and_negative_numbers() -> None:
    body = envelope("apps/v1", "DeleteOptions", field(1, -1) + field(4, "Foreground"))
    assert wire.decode(body) == {
        "apiVersion": "apps/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": -1,
        "propagationPolicy": "Foreground",
    }


def test_custom_resource_schemas() -> None:
    inner = field(5, "string") + field(8, field(1, b'{"a":1}')) + field(9, b"")
    entry = field(1, "x") + field(2, inner.replace(field(9, b""), varint(9 << 3 | 1) + struct.pack("<d", 1.0)))
    items = field(24, field(1, field(5, "integer")))
    props = field(29, entry) + items + field(30, field(1, 1)) + field(38, 1) + field(3, "#/a")
    version = field(1, "v1") + field(2, 1) + field(4, field(1, props))
    crd = wire.decode(envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version))))
    assert crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == {
        "properties": {"x": {"type": "string", "default": {"a": 1}, "maximum": 1}},
        "items": {"type": "integer"},
        "additionalProperties": True,
        "x-kubernetes-preserve-unknown-fields": True,
        "$ref": "#/a",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        wire.MAGIC,
        envelope("v9", "Pod", b""),
        envelope("v1", "Pod", b"\xff"),
        envelope("v1", "Pod", field(1, 7)),
        envelope("v1", "Pod", field(1, field(1, b"\xff"))),
        envelope("v1", "Pod", b"\x0a\xff\xff\xff\xff\x0f"),
        wire.MAGIC + field(1, field(1, "v1") + field(2, "Pod")) + field(3, "gzip"),
        envelope("v1", "Pod", field(1, field(8, field(1, 2**62)))),
    ],
)
def test_bad_bodies_are_bad_requests(body: bytes) -> None:
    with pytest.raises(StatusError) as raised:
        wire.decode(body)
    assert raised.value.code == 400


def test_nesting_has_an_end() -> None:
    props = b""
    for _ in range(500):
        props = field(28, props)
    version = field(1, "v1") + field(4, field(1, props))
    with pytest.raises(StatusError, match="nested too deeply"):
        wire.decode(envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version))))


@given(st.sampled_from(sorted(BODIES)), st.data())
def test_damaged_bodies_never_break_the_decoder(path: str, data: Callable[..., Any]) -> None:
    body = bytearray(BODIES[path])
    for _ in range(data.draw(st.integers(1, 4))):  # type: ignore[attr-defined]
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))  # type: ignore[attr-defined]
    try:
        assert isinstance(wire.decode(bytes(body)), dict)
    except StatusError as error:
        assert error.code == 400


@given(st.binary(max_size=200))
def test_noise_never_breaks_the_decoder(noise: bytes) -> None:
    try:
        wire.decode(envelope("v1", "Pod", noise))
    except StatusError as error:
        assert error.code == 400
