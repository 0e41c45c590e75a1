"""Label and field selectors."""

import pytest

from controlplane.api.selectors import EVERYTHING, NOTHING, from_map, from_selector, parse_fields, parse_labels

LABELS = {"app": "web", "tier": "front", "rev": "7", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier != back", True),
        ("app=db", False),
        ("app!=db", True),
        ("missing!=x", True),
        ("app in (web,db)", True),
        ("app in (db)", False),
        ("app notin (db, api)", True),
        ("missing notin (x)", True),
        ("app", True),
        ("!app", False),
        ("! missing", True),
        ("rev>6", True),
        ("rev>7", False),
        ("rev<8,rev>6", True),
        ("app>3", False),
        ("empty=", True),
        ("empty in ()", True),
        ("empty in (,x)", True),
        ("example.com/x", False),
        ("app=web,missing", False),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    selector = parse_labels(text)
    assert selector.matches(LABELS) is matches
    assert parse_labels(str(selector)).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "a,",
        ",a",
        "=x",
        "a in x",
        "a in (x",
        "a in (x y)",
        "a=b=c",
        "a>x",
        "-a",
        "a=-b",
        "x/y/z",
        "a in x)",
        "(a)",
    ],
)
def test_bad_label_selectors(text: str) -> None:
    with pytest.raises(ValueError):
        parse_labels(text)


def test_selector_objects() -> None:
    assert from_selector(None) is NOTHING and not NOTHING.matches(LABELS) and not NOTHING.empty
    assert from_selector({}).empty and EVERYTHING.matches(None)
    selector = from_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector.matches(LABELS) and not selector.matches(LABELS | {"old": ""})
    with pytest.raises(ValueError, match="not a valid label selector operator"):
        from_selector({"matchExpressions": [{"key": "a", "operator": "Near"}]})
    with pytest.raises(ValueError, match="values set can't be empty"):
        from_selector({"matchExpressions": [{"key": "a", "operator": "In"}]})


def test_service_selectors_select_nothing_when_empty() -> None:
    assert not from_map({}).matches(LABELS) and from_map({"app": "web"}).matches(LABELS)


def test_field_selectors() -> None:
    selector = parse_fields("metadata.name=web,spec.nodeName!=node-1,status.phase==Running")
    assert selector.matches({"metadata.name": "web", "status.phase": "Running"})
    assert not selector.matches({"metadata.name": "web", "status.phase": "Running", "spec.nodeName": "node-1"})
    assert selector.exact("metadata.name") == "web" and selector.exact("spec.nodeName") is None
    assert parse_fields("").empty
    assert parse_fields(r"a=b\,c\=d\\").requirements[0].value == "b,c=d\\"


@pytest.mark.parametrize("text", ["a", "a=b=c", "=a,b"])
def test_bad_field_selectors(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fields(text)
