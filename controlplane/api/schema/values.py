"""Validation of a value by its schema: every keyword that Kubernetes supports, in kube-openapi's words.

`check` walks a value beside its node and appends causes. With `old` (the stored value in the same place) what did not
change is not looked at again: a stricter schema does not lock objects that were stored before it (ratcheting).

Sources: k8s.io/kube-openapi/pkg/validation, apiextensions-apiserver/pkg/apiserver/validation, .../schema/listtype.
Not here: rules in CEL (rules.py).
"""

import math
from typing import Any

from controlplane.api.schema import regex
from controlplane.api.schema.formats import FORMATS
from controlplane.api.schema.structural import MISSING, Node
from controlplane.api.status import (
    Cause,
    duplicate,
    invalid_value,
    quote,
    required,
    show,
    too_long,
    too_many,
    type_invalid,
)
from controlplane.api.structure import below

_ROOT = "<nil>"
BLOCKING = frozenset(("FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid",
                      "FieldValueNotSupported"))  # fmt: skip
"""With a cause of these reasons, CEL rules are not looked at."""


def check(value: Any, node: Node, path: str, causes: list[Cause], old: Any = MISSING) -> None:
    """Append what is wrong with `value`. `path` is "" at the root."""
    if old is not MISSING and path and type(value) is type(old) and value == old:
        return
    if value is None:
        if not node.nullable and (node.type or node.int_or_string):
            causes.append(_wrong_type(node, path, "null"))
        return
    kind = kind_of(value)
    if node.int_or_string:
        if kind not in ("integer", "string"):
            causes.append(_wrong_type(node, path, kind))
            return
    elif node.type and node.type != kind and not _fits(node.type, kind, value):
        causes.append(_wrong_type(node, path, kind))
        return
    if node.enum and not any(_same(value, each) for each in node.enum):
        causes.append(_not_in_enum(node, path, value))
    if kind == "object":
        _check_object(value, node, path, causes, old)
    elif kind == "array":
        _check_list(value, node, path, causes, old)
    elif kind == "string":
        _check_string(value, node, path, causes)
    elif kind in ("integer", "number"):
        _check_number(value, node, path, causes)
    if node.any_of or node.one_of or node.all_of or node.negated is not None:
        _check_nested(value, node, path, causes)


def kind_of(value: Any) -> str:
    """JSON Schema's name of a value's type."""
    return _KINDS[type(value)]


_KINDS: dict[type, str] = {
    dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip


def _fits(wanted: str, kind: str, value: Any) -> bool:
    if wanted == "number":
        return kind == "integer"
    return wanted == "integer" and kind == "number" and math.isfinite(value) and float(value).is_integer()


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _name(path: str) -> str:
    return path or ""


def _wrong_type(node: Node, path: str, kind: str) -> Cause:
    wanted = "integer,string" if node.int_or_string else node.type
    return type_invalid(path or _ROOT, kind, f"{_name(path)} in body must be of type {wanted}: {quote(kind)}")


def _not_in_enum(node: Node, path: str, value: Any) -> Cause:
    allowed = ", ".join(quote(each if isinstance(each, str) else show(each)) for each in node.enum)
    return Cause("FieldValueNotSupported", path, f"Unsupported value: {show(value)}: supported values: {allowed}")


# --- strings and numbers ----------------------------------------------------------------------------------------------


def _check_string(value: str, node: Node, path: str, causes: list[Cause]) -> None:
    raw = node.raw
    limit = raw.get("maxLength")
    if limit is not None and len(value) > limit:
        causes.append(too_long(path, limit))
    least = raw.get("minLength")
    if least is not None and len(value) < least:
        causes.append(invalid_value(path, value, f"{_name(path)} in body should be at least {least} chars long"))
    if node.pattern and not regex.compiled(node.pattern).search(value):
        causes.append(invalid_value(path, value, f"{_name(path)} in body should match '{node.pattern}'"))
    form = raw.get("format")
    if form:
        known = FORMATS.get(form.replace("-", "") if form == "date-time" else form)
        if known is not None and not known(value):
            detail = f"{_name(path)} in body must be of type {form}: {quote(value)}"
            causes.append(type_invalid(path, value, detail))


def _check_number(value: int | float, node: Node, path: str, causes: list[Cause]) -> None:
    raw = node.raw
    most, least, factor = raw.get("maximum"), raw.get("minimum"), raw.get("multipleOf")
    if most is not None:
        exclusive = raw.get("exclusiveMaximum")
        if value > most or (exclusive and value == most):
            words = "less than" if exclusive else "less than or equal to"
            causes.append(invalid_value(path, value, f"{_name(path)} in body should be {words} {_number(most)}"))
    if least is not None:
        exclusive = raw.get("exclusiveMinimum")
        if value < least or (exclusive and value == least):
            words = "greater than" if exclusive else "greater than or equal to"
            causes.append(invalid_value(path, value, f"{_name(path)} in body should be {words} {_number(least)}"))
    if factor and not _is_multiple(value, factor):
        causes.append(invalid_value(path, value, f"{_name(path)} in body should be a multiple of {_number(factor)}"))


def _is_multiple(value: int | float, factor: int | float) -> bool:
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0
    ratio = value / factor
    return abs(ratio - round(ratio)) < 1e-9 * max(1.0, abs(ratio))


def _number(number: int | float) -> str:
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e21 else repr(number)


# --- objects and lists ------------------------------------------------------------------------------------------------


def _check_object(value: dict[str, Any], node: Node, path: str, causes: list[Cause], old: Any) -> None:
    raw = node.raw
    causes.extend(required(below(path, key)) for key in node.required if key not in value)
    most, least = raw.get("maxProperties"), raw.get("minProperties")
    if most is not None and len(value) > most:
        causes.append(too_many(path, len(value), most))
    if least is not None and len(value) < least:
        detail = f"{_name(path)} in body should have at least {least} properties"
        causes.append(invalid_value(path, value, detail))
    properties, additional = node.properties, node.additional
    was = old if type(old) is dict else {}
    for key, each in value.items():
        inner = properties.get(key)
        if inner is not None or (inner := additional) is not None:
            check(each, inner, below(path, key), causes, was.get(key, MISSING))


def _check_list(value: list[Any], node: Node, path: str, causes: list[Cause], old: Any) -> None:
    raw = node.raw
    most, least = raw.get("maxItems"), raw.get("minItems")
    if most is not None and len(value) > most:
        causes.append(too_many(path, len(value), most))
    if least is not None and len(value) < least:
        causes.append(invalid_value(path, value, f"{_name(path)} in body should have at least {least} items"))
    if raw.get("uniqueItems") and len({show(each) for each in value}) < len(value):
        causes.append(invalid_value(path, value, f"{_name(path)} in body shouldn't contain duplicates"))
    if node.list_type == "set":
        _check_set(value, path, causes)
    elif node.list_type == "map":
        _check_keys(value, node, path, causes)
    if node.items is not None:
        was = by_keys(old, node) if node.list_type == "map" and type(old) is list else {}
        for index, each in enumerate(value):
            before = was.get(key_of(each, node), MISSING) if was else MISSING
            check(each, node.items, f"{path}[{index}]", causes, before)


def _check_set(value: list[Any], path: str, causes: list[Cause]) -> None:
    seen = set()
    for index, each in enumerate(value):
        text = show(each)
        if text in seen:
            causes.append(duplicate(f"{path}[{index}]", each))
        seen.add(text)


def _check_keys(value: list[Any], node: Node, path: str, causes: list[Cause]) -> None:
    seen = set()
    for index, each in enumerate(value):
        key = key_of(each, node)
        if key is None:
            continue
        if key in seen:
            keys = {name: each[name] for name in node.map_keys if name in each}
            causes.append(duplicate(f"{path}[{index}]", keys))
        seen.add(key)


def key_of(item: Any, node: Node) -> str | None:
    """What tells an item of a list-map from the others; None if it is no object."""
    if type(item) is not dict:
        return None
    return show([item.get(name) for name in node.map_keys])


def by_keys(items: list[Any], node: Node) -> dict[str | None, Any]:
    """The items of a list-map by their keys."""
    return {key_of(item, node): item for item in items}


# --- junctors ---------------------------------------------------------------------------------------------------------


def _check_nested(value: Any, node: Node, path: str, causes: list[Cause]) -> None:
    if node.any_of:
        failures = [_failures(value, each, path) for each in node.any_of]
        if all(failures):
            causes.append(_junctor(f"{quote(path)} must validate at least one schema (anyOf)"))
            causes.extend(_least(failures))
    if node.one_of:
        failures = [_failures(value, each, path) for each in node.one_of]
        right = sum(1 for each in failures if not each)
        if right != 1:
            found = f"Found {right} valid alternatives" if right else "Found none valid"
            causes.append(_junctor(f"{quote(path)} must validate one and only one schema (oneOf). {found}"))
            if not right:
                causes.extend(_least(failures))
    if node.all_of:
        failures = [_failures(value, each, path) for each in node.all_of]
        wrong = [each for each in failures if each]
        for each in wrong:
            causes.extend(each)
        if wrong:
            text = ". None validated" if len(wrong) == len(failures) else ""
            causes.append(_junctor(f"{quote(path)} must validate all the schemas (allOf){text}"))
    if node.negated is not None and not _failures(value, node.negated, path):
        causes.append(_junctor(f"{quote(path)} must not validate the schema (not)"))


def _junctor(text: str) -> Cause:
    return invalid_value(_ROOT, "", text)


def _failures(value: Any, node: Node, path: str) -> list[Cause]:
    found: list[Cause] = []
    check(value, node, path, found)
    return found


def _least(failures: list[list[Cause]]) -> list[Cause]:
    """The alternative that came closest."""
    return min(failures, key=lambda each: len(each))
