"""Server-side apply without a server: the algebra of field sets, who owns what, and the laws of applying."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import definitions
from controlplane.api.apply import compile as compiled
from controlplane.api.apply import fieldset, managers
from controlplane.api.apply.fieldset import LEAF, difference, intersection, union
from controlplane.api.apply.managers import Writer
from controlplane.api.status import StatusError

Object = dict[str, Any]
POD = "io.k8s.api.core.v1.Pod"
ROOT = compiled.of_definition(POD, definitions.load(), has_status=True)
STATUS = compiled.of_definition(POD, definitions.load(), "status", has_status=True)


def no_versions(_: str) -> None:
    return None


def writer(manager: str, now: str = "2026-11-21T00:00:00Z", subresource: str = "") -> Writer:
    return Writer(manager, "v1", subresource, now)


def apply(live: Object | None, config: Object, manager: str, *, force: bool = False, now: str = "") -> Object:
    who = writer(manager, now or "2026-11-21T00:00:00Z")
    before = copy.deepcopy((live, config))
    result = managers.apply(ROOT, live, config, who, no_versions, force=force)
    assert (live, config) == before
    return result


def update(old: Object, new: Object, manager: str, now: str = "2026-11-21T00:00:01Z", subresource: str = "") -> Object:
    root = STATUS if subresource == "status" else ROOT
    entries = managers.updated(root, old, new, writer(manager, now, subresource), no_versions)
    return {**new, "metadata": {**new["metadata"], "managedFields": entries}}


def owners(obj: Object) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}


def plain(obj: Object) -> Object:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


def pod(**spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


# --- field sets


_STEPS = st.sampled_from(["f:a", "f:b", 'k:{"n":1}', 'v:"x"'])
_NODES: Any = st.recursive(
    st.just(LEAF), lambda inner: st.dictionaries(_STEPS | st.just("."), inner, min_size=1, max_size=3), max_leaves=8
)
_SETS = st.dictionaries(_STEPS, _NODES, max_size=4).map(fieldset.canonical)


def members(fields: Any) -> set[tuple[str, ...]]:
    return set(fieldset.paths(fields))


@given(_SETS, _SETS)
def test_field_sets_are_sets(one: Any, other: Any) -> None:
    before = copy.deepcopy((one, other))
    assert members(union(one, other)) == members(one) | members(other)
    assert members(difference(one, other)) == members(one) - members(other)
    assert members(intersection(one, other)) == members(one) & members(other)
    assert (one, other) == before


@given(_SETS, _SETS)
def test_an_outcome_that_is_the_same_is_the_same_object(one: Any, other: Any) -> None:
    both = union(one, other)
    assert union(both, other) is both
    rest = difference(one, other)
    assert difference(rest, other) is rest


@given(_SETS)
def test_steps_have_one_spelling(fields: Any) -> None:
    assert fieldset.canonical(fields) == fields
    spaced = {step.replace('{"n":1}', '{ "n" : 1 }'): node for step, node in fields.items()}
    assert fieldset.canonical(spaced) == fields


@pytest.mark.parametrize("bad", [[], {"a": {}}, {"k:{": {}}, {"k:{}": {}}, {"k:1": {}}, {"i:x": {}}, {"f:a": 1}])
def test_what_is_no_field_set(bad: Any) -> None:
    with pytest.raises(fieldset.BadFieldSet):
        fieldset.canonical(bad)


def test_paths_as_kubernetes_writes_them() -> None:
    steps = ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:tags", 'v:"a b"', "i:3")
    assert fieldset.path_text(steps) == '.spec.ports[port=80,protocol="TCP"].tags[="a b"][3]'


# --- applying


_VALUES = st.sampled_from(["1", "2"])
_LABELS = st.dictionaries(st.sampled_from(["a", "b", "c"]), _VALUES, max_size=3)
_ENV = st.dictionaries(st.sampled_from(["X", "Y"]), _VALUES, max_size=2).map(
    lambda env: [{"name": name, "value": value} for name, value in env.items()]
)
_CONTAINERS = st.dictionaries(st.sampled_from(["c", "d"]), st.tuples(_VALUES, _ENV), max_size=2).map(
    lambda many: [{"name": name, "image": image, "env": env} for name, (image, env) in many.items()]
)


@st.composite
def configs(draw: Any) -> Object:
    config: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    if labels := draw(_LABELS):
        config["metadata"]["labels"] = labels
    if draw(st.booleans()):
        config["metadata"]["finalizers"] = draw(st.lists(st.sampled_from(["x", "y"]), unique=True, min_size=1))
    if containers := draw(_CONTAINERS):
        config["spec"] = {"containers": containers}
    if draw(st.booleans()):
        config.setdefault("spec", {})["nodeSelector"] = draw(_LABELS)
    return config


@given(st.lists(st.tuples(st.sampled_from("mn"), configs()), max_size=3), configs())
def test_an_apply_repeated_changes_nothing(past: list[Any], config: Object) -> None:
    live = None
    for manager, said in past:
        live = apply(live, said, manager, force=True)
    once = apply(live, config, "m", force=True, now="2026-11-21T00:00:05Z")
    assert apply(once, config, "m", now="2026-11-21T00:00:09Z") == once
    assert apply(once, config, "m", force=True, now="2026-11-21T00:00:09Z") == once


@given(configs(), configs())
def test_who_says_nothing_leaves_what_others_say(one: Object, other: Object) -> None:
    base = apply(None, one, "m")
    both = apply(base, other, "n", force=True)
    nothing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    left = apply(both, nothing, "m")
    assert "m" not in owners(left)
    assert owners(left).get("n") == owners(both).get("n")
    alone = apply(None, other, "n")
    assert as_sets(plain(left)) == as_sets(plain(alone))


def as_sets(value: Any, name: str = "") -> Any:
    """Without the order of lists, and without what is empty: both mean nothing here."""
    if isinstance(value, dict):
        return {key: inner for key, each in value.items() if (inner := as_sets(each)) not in ({}, [])}
    if isinstance(value, list):
        return sorted((as_sets(each) for each in value), key=repr)
    return value


@given(configs(), configs())
def test_appliers_who_agree_may_come_in_any_order(one: Object, other: Object) -> None:
    try:
        first = apply(apply(None, one, "m"), other, "n")
    except StatusError as error:
        assert error.code == 409
        with pytest.raises(StatusError):
            apply(apply(None, other, "n"), one, "m")
        return
    second = apply(apply(None, other, "n"), one, "m")
    assert as_sets(plain(first)) == as_sets(plain(second))
    assert {m: members(f) for m, f in owners(first).items()} == {m: members(f) for m, f in owners(second).items()}


@given(configs(), configs())
def test_force_has_the_last_word_and_owns_it_alone(one: Object, other: Object) -> None:
    live = apply(None, one, "m")
    forced = apply(live, other, "n", force=True)
    for name, value in (other["metadata"].get("labels") or {}).items():
        assert forced["metadata"]["labels"][name] == value
    contested = None
    try:
        apply(live, other, "n")
    except StatusError as error:
        contested = {cause["field"] for cause in error.details["causes"]}
    mine = {fieldset.path_text(path) for path in members(owners(forced).get("m", {}))}
    assert not contested or not (mine & contested)


@given(configs(), configs())
def test_updates_own_what_they_change_and_nobody_else_does(one: Object, other: Object) -> None:
    live = apply(None, one, "m")
    new = {**other, "metadata": {**other["metadata"], "managedFields": live["metadata"].get("managedFields")}}
    after = update(live, new, "u")
    found = owners(after)
    if "u" in found and "m" in found:
        assert not members(found["u"]) & members(found["m"])
    if live["metadata"].get("managedFields"):
        again = update(after, copy.deepcopy(after), "v")
        assert again == after
    said = managers.applied(ROOT.whole, plain(new)) or {}
    for fields in found.values():  # nobody owns what is not there
        assert members(fields) - {()} <= members(ROOT.owned.everything(plain(new))) | members(said)


# --- special cases


def test_duplicates_in_the_live_object_do_not_wipe_the_owners() -> None:
    twice = [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "name": "b"}]
    live = apply(None, pod(containers=[{"name": "c", "image": "1"}]), "m")
    doubled = {**live, "spec": {"containers": [{"name": "c", "image": "1", "ports": twice}]}}
    after = update(live, doubled, "u")
    assert owners(after)["m"] == owners(live)["m"]
    ports = owners(after)["u"]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:ports"]
    assert ports == {".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': {}}
    other = update(after, {**after, "metadata": {**after["metadata"], "labels": {"a": "b"}}}, "w")
    assert owners(other)["u"] == owners(after)["u"]
    mended = apply(other, pod(containers=[{"name": "c", "image": "2", "ports": twice[:1]}]), "m", force=True)
    assert mended["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_items_of_the_live_list_keep_their_places() -> None:
    live = apply(None, pod(containers=[{"name": n, "image": "1"} for n in "abc"]), "m")
    after = apply(live, pod(containers=[{"name": n, "image": "1"} for n in "cxa"]), "n")
    assert [c["name"] for c in after["spec"]["containers"]] == ["b", "c", "x", "a"]


def test_a_null_is_said_and_not_stored() -> None:
    live = apply(None, pod(nodeName=None, hostname="a"), "m")
    assert live["spec"] == {"hostname": "a"}
    assert owners(live)["m"] == {"f:spec": {"f:nodeName": {}, "f:hostname": {}}}


def test_times_move_only_with_values() -> None:
    live = apply(None, pod(hostname="a"), "m", now="2026-11-21T00:00:01Z")
    shared = apply(live, pod(hostname="a"), "n", now="2026-11-21T00:00:02Z")
    times = {entry["manager"]: entry["time"] for entry in shared["metadata"]["managedFields"]}
    assert times == {"m": "2026-11-21T00:00:01Z", "n": "2026-11-21T00:00:02Z"}
    assert [entry["manager"] for entry in shared["metadata"]["managedFields"]] == ["m", "n"]
    changed = update(shared, {**shared, "spec": {"hostname": "b"}}, "u", now="2026-11-21T00:00:03Z")
    assert owners(changed) == {"u": {"f:spec": {"f:hostname": {}}}}


def test_what_a_write_does_not_touch_is_passed_on_as_it_is() -> None:
    live = apply(None, pod(hostname="a"), "m")
    after = update(live, {**live, "status": {"phase": "Running"}}, "kubelet", subresource="status")
    assert after["metadata"]["managedFields"][0] is live["metadata"]["managedFields"][0]
    assert after["metadata"]["managedFields"][1]["fieldsV1"] == {"f:status": {"f:phase": {}}}
    heartbeat = {**after, "status": {"phase": "Failed"}}
    later = update(after, heartbeat, "kubelet", now="2026-11-21T00:00:09Z", subresource="status")
    assert later["metadata"]["managedFields"][1]["fieldsV1"] is after["metadata"]["managedFields"][1]["fieldsV1"]


def test_a_status_in_the_object_itself_belongs_to_nobody() -> None:
    live = apply(None, {**pod(hostname="a"), "status": {"phase": "Running"}}, "m")
    assert owners(live) == {"m": {"f:spec": {"f:hostname": {}}}}
