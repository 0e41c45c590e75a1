"""Sets of fields in the form in which managedFields has them (FieldsV1): trees of dicts, and their algebra.

    {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
     "f:spec": {"f:ports": {"k:{\\"port\\":80,\\"protocol\\":\\"TCP\\"}": {".": {}, "f:name": {}}}}}

A key is one step of a path: f: a field, k: a list item by its keys, v: a value of a set, i: a place. A node is in the
set itself if it is empty or has "."; otherwise only what is below it is. The tree that is stored is the tree that is
worked on, so nothing is translated on the way; operations never change what they are given, share what they can, and
return the first set itself when the outcome is the same. The root is the exception to the rule about empty nodes: an
empty root is the empty set.

Rules: the published format of metav1.FieldsV1, and the set operations of structured-merge-diff's fieldpath.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

FieldSet = dict[str, Any]

LEAF: FieldSet = {}
"""A node without anything below. Shared; never to be changed."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class BadFieldSet(ValueError):
    """Something that is no field set in the FieldsV1 form."""


def field(name: str) -> str:
    return "f:" + name


def key(keys: dict[str, Any]) -> str:
    """The step to a list item by its keys: k:{"name":"a"}."""
    return "k:" + _encode(keys).decode()


def value(of: Any) -> str:
    """The step to an item of a list that is a set: v:"a"."""
    return "v:" + _encode(of).decode()


def has(node: FieldSet) -> bool:
    """Whether a node (not the root) is in the set itself."""
    return not node or "." in node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in either of two sets."""
    if not one:
        return other
    return _union(one, other) if other else one


def _union(one: FieldSet, other: FieldSet) -> FieldSet:
    result = one
    for step, theirs in other.items():
        mine = one.get(step)
        if mine is None:
            both = theirs
        elif not mine:
            both = theirs if not theirs or "." in theirs else {".": LEAF, **theirs}
        elif not theirs:
            both = mine if "." in mine else {".": LEAF, **mine}
        else:
            both = _union(mine, theirs)
        if both is not mine:
            if result is one:
                result = dict(one)
            result[step] = both
    return result


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in `one` and not in `other`; what is below a node of `other` stays."""
    result = one
    for step, theirs in other.items():
        mine = one.get(step)
        if mine is None:
            continue
        left = _without(mine, theirs)
        if left is not mine:
            if result is one:
                result = dict(one)
            if left is None:
                del result[step]
            else:
                result[step] = left
    return result


def _without(mine: FieldSet, theirs: FieldSet) -> FieldSet | None:
    """The node `mine` without the node `theirs`; None if nothing is left."""
    if not mine:
        return None if has(theirs) else mine
    if not theirs:
        if "." not in mine:
            return mine
        rest = {step: node for step, node in mine.items() if step != "."}
        return rest or None
    rest = difference(mine, theirs)
    if rest is mine:
        return mine
    if not rest:
        return None
    return LEAF if len(rest) == 1 and "." in rest else rest


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in both sets."""
    result: FieldSet = {}
    for step, theirs in other.items():
        mine = one.get(step)
        if mine is None:
            continue
        if not mine or not theirs:
            if has(mine) and has(theirs):
                result[step] = LEAF
        elif both := intersection(mine, theirs):
            result[step] = LEAF if len(both) == 1 and "." in both else both
    return result


def without_below(fields: FieldSet, *names: str) -> FieldSet:
    """The set without these top-level fields and all that is below them."""
    steps = {field(name) for name in names} & fields.keys()
    return {step: node for step, node in fields.items() if step not in steps} if steps else fields


def paths(fields: FieldSet) -> Iterator[tuple[str, ...]]:
    """Every member as its steps."""
    for step, node in fields.items():
        if has(node):
            yield (step,)
        for below in paths(node):
            if below != (".",):
                yield (step, *below)


def path_text(steps: tuple[str, ...]) -> str:
    """A path as Kubernetes writes it: .spec.containers[name="a"].image"""
    return "".join(map(_step_text, steps))


def _step_text(step: str) -> str:
    kind, text = step[:2], step[2:]
    if kind == "f:":
        return "." + text
    if kind == "i:":
        return f"[{text}]"
    of = _decode(text)
    if kind == "v:":
        return f"[={value_text(of)}]"
    return "[" + ",".join(f"{name}={value_text(each)}" for name, each in sorted(of.items())) + "]"


def value_text(of: Any) -> str:
    """A value inside a path."""
    return msgspec.json.encode(of).decode()


def canonical(fields: Any, depth: int = 0) -> FieldSet:
    """A set that a client wrote, checked, with the steps spelled as this module spells them. Raises BadFieldSet."""
    if not isinstance(fields, dict):
        raise BadFieldSet(f"a field set must be an object, got {type(fields).__name__}")
    if depth > 200:
        raise BadFieldSet("nested too deeply")
    result: FieldSet = {}
    for step, node in fields.items():
        if step == ".":
            if depth and len(fields) > 1:
                result["."] = LEAF
            continue
        below = canonical(node, depth + 1)
        same = _canonical_step(step)
        result[same] = _union_nodes(result[same], below) if same in result else below
    return result


def _union_nodes(one: FieldSet, other: FieldSet) -> FieldSet:
    return _union({"f:": one}, {"f:": other})["f:"]  # type: ignore[no-any-return]


def _canonical_step(step: str) -> str:
    kind, text = step[:2], step[2:]
    if kind == "f:":
        return step
    if kind not in ("k:", "v:", "i:"):
        raise BadFieldSet(f"invalid path element: {step!r}")
    try:
        of = _decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BadFieldSet(f"invalid path element {step!r}: {error}") from None
    if (kind == "k:" and not (isinstance(of, dict) and of)) or (kind == "i:" and type(of) is not int):
        raise BadFieldSet(f"invalid path element: {step!r}")
    return kind + _encode(of).decode()
