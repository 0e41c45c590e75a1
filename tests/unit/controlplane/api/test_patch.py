"""JSON, merge and strategic merge patches."""

import contextlib
import copy
from typing import Any

import jsonpatch  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import definitions, patch
from controlplane.api.status import StatusError

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


def strategic(doc: dict[str, Any], change: dict[str, Any], schema: str = POD) -> dict[str, Any]:
    before, asked = copy.deepcopy(doc), copy.deepcopy(change)
    result = patch.strategic_merge(doc, change, schema, definitions.load())
    assert (doc, change) == (before, asked), "inputs must not change"
    return result


# --- JSON patch


@pytest.mark.parametrize(
    ("doc", "op", "result"),
    [
        ({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"a": 1, "b": 2}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": {"x/y": 1, "m~n": 2}}, {"op": "remove", "path": "/a/x~1y"}, {"a": {"m~n": 2}}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a": 1}, {"op": "replace", "path": "/a", "value": {"b": None}}, {"a": {"b": None}}),
        ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/c"}, {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a": [1, {"b": 1.0}]}, {"op": "test", "path": "/a", "value": [1, {"b": 1}]}, {"a": [1, {"b": 1.0}]}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {"b": 1}}, {"b": 1}),
        ({"a": 1}, {"op": "test", "path": "/b", "value": None}, {"a": 1}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/-1"}, {"a": [1]}),
        ({"a": [1, 2]}, {"op": "add", "path": "/a/-1", "value": 3}, {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/-2", "value": 3}, {"a": [3, 2]}),
    ],
)
def test_json_patch(doc: Any, op: Any, result: Any) -> None:
    before = copy.deepcopy(doc)
    assert patch.json_patch(doc, [op]) == result
    assert doc == before


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ({"op": "remove", "path": "/nope"}, 422),
        ({"op": "replace", "path": "/nope", "value": 1}, 422),
        ({"op": "add", "path": "/nope/x", "value": 1}, 422),
        ({"op": "add", "path": "/list/9", "value": 1}, 422),
        ({"op": "add", "path": "/list/01", "value": 1}, 422),
        ({"op": "remove", "path": "/list/-"}, 422),
        ({"op": "remove", "path": "/list/-2"}, 422),
        ({"op": "test", "path": "/map/a/b", "value": None}, 422),
        ({"op": "test", "path": "/list", "value": [True]}, 422),
        ({"op": "move", "from": "/map", "path": "/map/x"}, 422),
        ({"op": "add", "path": "/scalar/x", "value": 1}, 422),
        ({"op": "add", "path": "nope", "value": 1}, 400),
        ({"op": "add", "path": "/x"}, 400),
        ({"op": "frob", "path": "/x"}, 400),
        ({"op": "copy", "path": "/x"}, 400),
        ("nonsense", 400),
    ],
)
def test_json_patch_errors(op: Any, code: int) -> None:
    with pytest.raises(StatusError) as raised:
        patch.json_patch({"list": [1], "map": {}, "scalar": 1}, [op])
    assert raised.value.code == code


def test_json_patches_have_bounds() -> None:
    add = {"op": "add", "path": "/a", "value": 1}
    with pytest.raises(StatusError) as raised:
        patch.json_patch({}, [add] * 10_001)
    assert raised.value.code == 413
    double = [{"op": "copy", "from": "/a", "path": "/a/x"}, {"op": "copy", "from": "/a", "path": "/a/y"}]
    with pytest.raises(StatusError) as raised:
        patch.json_patch({"a": {"b": "x" * 100}}, double * 40)
    assert raised.value.code == 422
    assert "accumulated size increase of copy" in raised.value.message


VALUES = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc/~", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(VALUES, VALUES)
def test_json_patches_made_by_another_library_do_what_they_say(one: Any, other: Any) -> None:
    before = copy.deepcopy(one)
    ops = jsonpatch.make_patch({"root": one}, {"root": other}).patch
    assert patch.json_patch({"root": one}, ops) == {"root": other}
    assert one == before


# --- merge patch


@pytest.mark.parametrize(
    ("doc", "change", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_in_the_rfc(doc: Any, change: Any, result: Any) -> None:
    assert patch.merge_patch(doc, change) == result


def test_merge_patch_shares_what_it_does_not_touch() -> None:
    doc = {"a": {"x": 1}, "b": {"y": 1}}
    result = patch.merge_patch(doc, {"b": {"y": 2}})
    assert result["a"] is doc["a"] and doc["b"] == {"y": 1}


# --- strategic merge patch


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(items)}}


def test_lists_merge_by_key() -> None:
    doc = containers({"name": "a", "image": "x"}, {"name": "b", "image": "y"})
    result = strategic(doc, containers({"name": "b", "image": "z"}))
    assert result == containers({"name": "a", "image": "x"}, {"name": "b", "image": "z"})
    assert result["spec"]["containers"][0] is doc["spec"]["containers"][0]


def test_a_new_item_leads_unless_the_order_is_given() -> None:
    doc = containers({"name": "a"})
    assert strategic(doc, containers({"name": "b"})) == containers({"name": "b"}, {"name": "a"})
    order = {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}
    change = {"spec": {"containers": [{"name": "b"}], **order}}
    assert strategic(doc, change) == containers({"name": "a"}, {"name": "b"})


def test_order_alone_reorders() -> None:
    doc = containers({"name": "a"}, {"name": "b"}, {"name": "c"})
    change = {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}
    # b stood before c, and keeps that place; then the order asked for.
    assert strategic(doc, change) == containers({"name": "b"}, {"name": "c"}, {"name": "a"})


def test_items_are_deleted_and_lists_replaced_by_directive() -> None:
    doc = containers({"name": "a"}, {"name": "b"})
    assert strategic(doc, containers({"$patch": "delete", "name": "a"})) == containers({"name": "b"})
    assert strategic(doc, containers({"$patch": "replace"}, {"name": "n"})) == containers({"name": "n"})


def test_maps_are_replaced_and_emptied_by_directive() -> None:
    doc = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    assert strategic(doc, {"metadata": {"labels": {"$patch": "replace", "c": "3"}}}) == {
        "metadata": {"labels": {"c": "3"}}
    }
    assert strategic(doc, {"metadata": {"labels": {"$patch": "delete"}}}) == {"metadata": {"labels": {}}}
    assert strategic(doc, {"metadata": {"labels": {"a": None}}}) == {"metadata": {"labels": {"b": "2"}}}


def test_primitive_lists_merge_as_sets_and_delete() -> None:
    doc = {"metadata": {"finalizers": ["a", "b"]}}
    assert strategic(doc, {"metadata": {"finalizers": ["b", "c"]}}) == {"metadata": {"finalizers": ["a", "b", "c"]}}
    assert strategic(doc, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}) == {
        "metadata": {"finalizers": ["b"]}
    }
    change = {"metadata": {"finalizers": ["c"], "$setElementOrder/finalizers": ["c", "a", "b"]}}
    assert strategic(doc, change) == {"metadata": {"finalizers": ["c", "a", "b"]}}


def test_atomic_lists_are_replaced() -> None:
    doc = containers({"name": "a", "args": ["1", "2"]})
    assert strategic(doc, containers({"name": "a", "args": ["3"]})) == containers({"name": "a", "args": ["3"]})


def test_retain_keys_drops_the_rest_of_a_union() -> None:
    doc = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic(doc, change, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}
    with pytest.raises(StatusError):
        strategic(doc, {"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}}, DEPLOYMENT)


def test_nested_lists_merge_by_their_own_keys() -> None:
    port = {"containerPort": 80, "protocol": "TCP"}
    doc = containers({"name": "a", "ports": [port], "env": [{"name": "X", "value": "1"}]})
    change = containers(
        {"name": "a", "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "X", "value": None}]}
    )
    assert strategic(doc, change) == containers(
        {"name": "a", "ports": [port | {"name": "http"}], "env": [{"name": "X"}]}
    )


def test_new_values_lose_their_directives_and_nulls() -> None:
    change = {"spec": {"volumes": [{"name": "v", "emptyDir": {"$patch": "replace", "medium": None}}]}}
    assert strategic({}, change) == {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}


@pytest.mark.parametrize(
    "change",
    [
        containers({"image": "x"}),
        containers({"name": "a", "$patch": "frob"}),
        {"spec": {"$patch": "frob"}},
        {"spec": {"containers": [{"name": "x"}], "$setElementOrder/containers": [{"name": "a"}]}},
        {"spec": {"$setElementOrder/containers": "a"}},
        {"spec": {"containers": ["a"]}},
    ],
)
def test_bad_strategic_patches(change: dict[str, Any]) -> None:
    with pytest.raises(StatusError) as raised:
        strategic(containers({"name": "a"}), change)
    assert raised.value.code == 400


@given(st.permutations(["a", "b", "c", "d"]), st.integers(0, 4))
def test_a_full_order_is_obeyed(order: list[str], known: int) -> None:
    doc = containers(*({"name": name} for name in "abcd"[:known]))
    names = [{"name": name} for name in order]
    change = {"spec": {"containers": names, "$setElementOrder/containers": names}}
    assert strategic(doc, change)["spec"]["containers"] == names


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_merging_keyed_lists_loses_and_doubles_nothing(old: list[str], new: list[str]) -> None:
    result = strategic(containers(*({"name": n} for n in old)), containers(*({"name": n} for n in new)))
    found = [item["name"] for item in result["spec"]["containers"]]
    assert sorted(found) == sorted({*old, *new})
    assert [n for n in found if n in new] == new


def test_nesting_has_an_end() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": deep}
    for act in (
        lambda: patch.merge_patch({}, deep),
        lambda: patch.strategic_merge({}, deep, POD, definitions.load()),
        lambda: patch.json_patch({}, [{"op": "replace", "path": "", "value": 1}] * 2),
    ):
        with contextlib.suppress(StatusError):
            act()


# --- random operations, and laws


_POINTERS = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "c~0d", "e~1f"]), max_size=3).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
_OPERATIONS = st.one_of(
    st.builds(
        lambda op, path, value: {"op": op, "path": path, "value": value},
        st.sampled_from(["add", "replace", "test"]), _POINTERS, VALUES,
    ),
    st.builds(lambda path: {"op": "remove", "path": path}, _POINTERS.filter(bool)),
    st.builds(
        lambda op, path, source: {"op": op, "path": path, "from": source},
        st.sampled_from(["move", "copy"]), _POINTERS, _POINTERS.filter(bool),
    ),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c~d", "e/f"]), VALUES, max_size=4), st.lists(_OPERATIONS, max_size=4)
)
def test_any_json_patch_does_what_another_library_does(doc: Any, ops: list[Any]) -> None:
    before = copy.deepcopy(doc)
    try:
        wanted: Any = jsonpatch.JsonPatch(ops).apply(copy.deepcopy(doc))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, IndexError):
        wanted = StatusError
    try:
        found = patch.json_patch(doc, ops)
    except StatusError:
        found = StatusError
    assert doc == before
    if wanted is not StatusError:
        assert found == wanted


@given(VALUES, VALUES)
def test_a_merge_patch_applied_twice_is_a_merge_patch_applied_once(one: Any, change: Any) -> None:
    once = patch.merge_patch({"root": one}, {"root": change})
    assert patch.merge_patch(once, {"root": change}) == once


_ITEMS = st.lists(st.sampled_from("abcd"), unique=True, max_size=4).flatmap(
    lambda names: st.tuples(*(st.builds(lambda i, n=n: {"name": n, "image": i}, st.sampled_from("xy")) for n in names))
)


@given(_ITEMS, _ITEMS, st.sets(st.sampled_from("abcd")))
def test_a_strategic_patch_is_idempotent_and_says_the_last_word(old: Any, new: Any, gone: set[str]) -> None:
    deleted = [{"name": name, "$patch": "delete"} for name in sorted(gone) if name not in {n["name"] for n in new}]
    change = containers(*new, *deleted)
    once = strategic(containers(*old), change)
    assert strategic(once, change) == once
    found = {item["name"]: item for item in once["spec"]["containers"]}
    wanted = {n["name"]: n for n in old if n["name"] not in gone} | {n["name"]: n for n in new}
    assert found == wanted


@given(_ITEMS, st.permutations(["a", "b", "c", "d"]))
def test_patches_of_different_items_commute(old: Any, names: list[str]) -> None:
    doc = containers(*old)
    one = containers({"name": names[0], "image": "1"})
    other = containers({"name": names[1], "image": "2"})

    def as_map(result: Any) -> Any:
        return {item["name"]: item for item in result["spec"]["containers"]}

    assert as_map(strategic(strategic(doc, one), other)) == as_map(strategic(strategic(doc, other), one))
