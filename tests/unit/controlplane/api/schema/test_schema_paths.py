"""JSONPath of columns and selectable fields, the cells they make, and formats of texts."""

from typing import Any

import pytest

from controlplane.api.schema.columns import Columns
from controlplane.api.schema.formats import FORMATS
from controlplane.api.schema.paths import BadPath, Path, get, simple

OBJECT = {
    "metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"a.b/c": "d"}},
    "spec": {"list": [{"name": "a", "n": 1}, {"name": "b", "n": 2}], "text": "t", "flag": False, "map": {"k": 1}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Odd", "status": "False"}]},
}


@pytest.mark.parametrize(("path", "found"), [
    (".spec.text", ["t"]),
    (".spec.missing.deep", []),
    (".spec.list[0].name", ["a"]),
    (".spec.list[-1].name", ["b"]),
    (".spec.list[*].n", [1, 2]),
    (".spec.list[0:1].n", [1]),
    (".spec.list[5].n", []),
    ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
    (".status.conditions[?(@.type!='Ready')].type", ["Odd"]),
    (".spec.list[?(@.n>1)].name", ["b"]),
    (".metadata.annotations['a.b/c']", ["d"]),
    (r".metadata.annotations.a\.b/c", ["d"]),
    ("..name", ["x", "a", "b"]),
    (".spec['text','flag']", ["t", False]),
    ("{.spec.text}", ["t"]),
])  # fmt: skip
def test_paths_find(path: str, found: list[Any]) -> None:
    assert Path(path).find(OBJECT) == found


@pytest.mark.parametrize("path", [".spec[", ".spec[a]", ".spec.list[?(@.n >> 1)]", ".a b"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(BadPath):
        Path(path)


def test_simple_paths_are_fields() -> None:
    assert simple(".spec['a.b'].c") == ("spec", "a.b", "c")
    assert get(OBJECT, simple(".spec.map.k")) == 1
    with pytest.raises(BadPath):
        simple(".spec[0]")


def test_cells() -> None:
    columns = Columns([
        {"name": "Text", "type": "string", "jsonPath": ".spec.text"},
        {"name": "Map", "type": "string", "jsonPath": ".spec.map", "priority": 1},
        {"name": "Flag", "type": "boolean", "jsonPath": ".spec.flag"},
        {"name": "N", "type": "integer", "jsonPath": ".spec.list[0].n"},
        {"name": "Odd", "type": "integer", "jsonPath": ".spec.text"},
        {"name": "Missing", "type": "string", "jsonPath": ".spec.nothing"},
        {"name": "When", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])  # fmt: skip
    assert [c["name"] for c in columns.definitions] == ["Name", "Text", "Map", "Flag", "N", "Odd", "Missing", "When"]
    assert columns.definitions[2]["priority"] == 1
    now = 1767225600.0 + 3600 * 30
    assert columns.cells(OBJECT, now) == ["x", "t", '{"k":1}', False, 1, None, None, "30h"]
    assert [c["name"] for c in Columns([]).definitions] == ["Name", "Age"]


@pytest.mark.parametrize(("form", "good", "bad"), [
    ("date-time", "2026-01-01T00:00:00.5+01:00", "2026-01-01"),
    ("date", "2026-01-31", "2026-02-31"),
    ("duration", "1h30m", "1 lightyear"),
    ("duration", "3 days", "h"),
    ("uri", "https://x/y", "x y"),
    ("email", "a@b.c", "a.b.c"),
    ("hostname", "a-b.c", "-a"),
    ("ipv6", "::1", "1.2.3.4"),
    ("cidr", "10.0.0.1/8", "10.0.0.1"),
    ("mac", "00:11:22:33:44:55", "00:11"),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
    ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
    ("isbn10", "0-306-40615-2", "0-306-40615-3"),
    ("isbn13", "978-0-306-40615-7", "978-0-306-40615-8"),
    ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
    ("byte", "aGk=", "aGk"),
    ("hexcolor", "#fff", "#ggg"),
    ("k8s-short-name", "a-b", "A"),
])  # fmt: skip
def test_formats(form: str, good: str, bad: str) -> None:
    assert FORMATS[form](good)
    assert not FORMATS[form](bad)
