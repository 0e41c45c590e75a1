"""The Accept header: weights, wildcards, forms, and what nobody can make."""

import pytest

from controlplane.api.status import StatusError
from controlplane.apiserver.negotiation import Choice, Offer, negotiate, prefers

JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
ALL = Offer(forms=("Table", "PartialObjectMetadata"))
TABLE = "as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Choice(JSON)),
        ("*/*", Choice(JSON)),
        ("application/*", Choice(JSON)),
        (PROTOBUF, Choice(PROTOBUF)),
        (f"{PROTOBUF}, {JSON}", Choice(PROTOBUF)),
        (f"{JSON};q=0.5, {PROTOBUF}", Choice(PROTOBUF)),
        (f"{JSON};q=0.5, {PROTOBUF};q=0.4, {YAML};q=0.6", Choice(YAML)),
        (f"*/*, {YAML}", Choice(YAML)),
        (f"*/*;q=0.9, {YAML};q=0.8", Choice(JSON)),
        (f"{PROTOBUF};q=0, {JSON}", Choice(JSON)),
        ("application/cbor, application/json", Choice(JSON)),
        (f"{JSON};{TABLE},{JSON}", Choice(JSON, "Table", "v1")),
        (f"{JSON};as=Table;v=v1beta1;g=meta.k8s.io", Choice(JSON, "Table", "v1beta1")),
        (f"{JSON};as=Table;v=v9;g=meta.k8s.io,{JSON}", Choice(JSON)),
        (f"{JSON};as=Table;v=v1;g=other,{JSON}", Choice(JSON)),
        (f"{PROTOBUF};{TABLE},{JSON};{TABLE}", Choice(JSON, "Table", "v1")),
        (f"{YAML};{TABLE}", Choice(YAML, "Table", "v1")),
        (f"{PROTOBUF};stream=watch,{JSON};stream=watch", Choice(PROTOBUF)),
        (f"{JSON};stream=other,{YAML}", Choice(YAML)),
        (f"{JSON};pretty=1", Choice(JSON, pretty=True)),
        (f"{JSON};charset=utf-8;q=x", Choice(JSON)),
        ("Application/JSON", Choice(JSON)),
    ],
)
def test_choices(accept: str, expected: Choice) -> None:
    assert negotiate(accept, ALL) == expected
    assert not accept or negotiate(accept + "," + "x" * 400, ALL) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", f"{JSON};as=Table", f"{PROTOBUF};{TABLE}", ","]
)
def test_refusals(accept: str) -> None:
    with pytest.raises(StatusError) as raised:
        negotiate(accept, ALL)
    assert raised.value.code == 406
    assert raised.value.message == f"only the following media types are accepted: {JSON}, {YAML}, {PROTOBUF}"


def test_offers() -> None:
    assert negotiate(f"{PROTOBUF},{JSON}", Offer(protobuf=False)) == Choice(JSON)
    with pytest.raises(StatusError):
        negotiate(PROTOBUF, Offer(protobuf=False))
    with pytest.raises(StatusError):
        negotiate(YAML, Offer(yaml=False))
    assert prefers(f"{PROTOBUF},{JSON}", PROTOBUF, Offer())
    assert not prefers(f"{JSON},{PROTOBUF}", PROTOBUF, Offer())
    assert not prefers("text/html", PROTOBUF, Offer())
