"""Patches: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch (Kubernetes).

Pure functions from a document and a patch to a new document. Inputs are never changed, and parts that a patch does
not touch are shared with the result: the path to a change is copied, nothing else. A strategic merge patch is a merge
patch whose lists are merged too, where the definitions say by which key (x-kubernetes-patch-strategy and -merge-key),
with directives inside the patch for the rest ($patch, $retainKeys, $setElementOrder/…, $deleteFromPrimitiveList/…).
Server-side apply is another thing (apply.py).
"""

import re
from typing import Any, NamedTuple

import msgspec

from controlplane.api.definitions import Definitions, Schema, ref_name
from controlplane.api.status import StatusError, bad_request

Object = dict[str, Any]
_MAX_OPERATIONS = 10_000
_MAX_COPIED_BYTES = 3 << 20
_MISSING = object()


def _rejected(detail: str) -> StatusError:
    message = f"the server rejected our request due to an error in our request: {detail}"
    return StatusError(422, "Invalid", message, {"causes": [{"message": detail}]})


# --- JSON patch ------------------------------------------------------------------------------------------------------


def json_patch(doc: Any, ops: Any) -> Any:
    """`doc` after the operations of a JSON patch, in order.

    Raises StatusError: 400 for something that is no JSON patch, 413 for one with too many operations, 422 for an
    operation that does not apply.
    """
    if not isinstance(ops, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(ops) > _MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(ops)}"
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity is too large: {message}")
    copied = 0
    try:
        for op in ops:
            if isinstance(op, dict) and op.get("op") == "copy":
                # A copy costs nothing here, but copies of copies would be gigabytes when they are written out.
                copied += len(msgspec.json.encode(_source(doc, op)))
                if copied > _MAX_COPIED_BYTES:
                    raise _rejected(
                        f"Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding "
                        f"the limit {_MAX_COPIED_BYTES}"
                    )
            doc = _json_operation(doc, op)
    except RecursionError:
        raise bad_request("error decoding patch: nested too deeply") from None
    return doc


def _json_operation(doc: Any, op: Any) -> Any:
    if not isinstance(op, dict) or not isinstance(op.get("path"), str):
        raise bad_request("error decoding patch: an operation needs op and path")
    kind = op.get("op")
    path = _pointer(op["path"])
    if kind in ("add", "replace", "test") and "value" not in op:
        raise bad_request(f"error decoding patch: {kind} operation {op['path']!r} has no value")
    if kind == "add":
        return _add(doc, path, op["value"])
    if kind == "remove":
        return _remove(doc, path)
    if kind == "replace":
        _look(doc, path, "replace operation does not apply")
        return _replace(doc, path, op["value"])
    if kind == "test":
        there = _look(doc, path, "test operation does not apply", None if op["value"] is None else _MISSING)
        if not _same(there, op["value"]):
            raise _rejected(f"testing path {op['path']} failed: value differs")
        return doc
    if kind in ("move", "copy"):
        source, value = _pointer(op["from"]), _source(doc, op)
        if kind == "copy":
            return _add(doc, path, value)
        if path[: len(source)] == source and path != source:
            raise _rejected(f"move operation does not apply: cannot move {op['from']} into itself")
        return _add(_remove(doc, source), path, value)
    raise bad_request(f"error decoding patch: Unexpected kind: {kind}")


def _source(doc: Any, op: Object) -> Any:
    """What a move or copy takes."""
    if not isinstance(op.get("from"), str):
        raise bad_request(f"error decoding patch: {op['op']} operation needs from")
    return _look(doc, _pointer(op["from"]), f"{op['op']} operation does not apply")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise bad_request(f"error decoding patch: path {text!r} must start with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _same(one: Any, other: Any) -> bool:
    """JSON equality: numbers by value, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _index(part: str, end: int) -> int:
    """A place in a list, at most `end`. Negative ones count from behind, as Kubernetes lets them."""
    if re.fullmatch(r"-[1-9][0-9]*", part) and -int(part) <= end + 1:
        return end + 1 + int(part)
    if not re.fullmatch(r"0|[1-9][0-9]*", part) or int(part) > end:
        raise _rejected(f"unable to access invalid index: {part}")
    return int(part)


def _look(doc: Any, path: list[str], complaint: str, otherwise: Any = _MISSING) -> Any:
    """The value at `path`; for a field that is not there `otherwise`, or an error."""
    for at, part in enumerate(path):
        if isinstance(doc, dict) and part in doc:
            doc = doc[part]
        elif isinstance(doc, list):
            doc = doc[_index(part, len(doc) - 1)]
        elif isinstance(doc, dict) and otherwise is not _MISSING and at == len(path) - 1:
            return otherwise
        else:
            raise _rejected(f"{complaint}: doc is missing path: /{'/'.join(path)}: missing value")
    return doc


def _replace(doc: Any, path: list[str], value: Any) -> Any:
    """`doc` with `value` at an existing `path`; containers on the way are copied."""
    if not path:
        return value
    if isinstance(doc, dict):
        return doc | {path[0]: _replace(doc[path[0]], path[1:], value)}
    copy = list(doc)
    at = _index(path[0], len(doc) - 1)
    copy[at] = _replace(doc[at], path[1:], value)
    return copy


def _add(doc: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _look(doc, path[:-1], "add operation does not apply")
    last = path[-1]
    if isinstance(parent, dict):
        return _replace(doc, path[:-1], parent | {last: value})
    if isinstance(parent, list):
        at = len(parent) if last == "-" else _index(last, len(parent))
        return _replace(doc, path[:-1], [*parent[:at], value, *parent[at:]])
    raise _rejected(f"add operation does not apply: doc is missing path: /{'/'.join(path)}: missing value")


def _remove(doc: Any, path: list[str]) -> Any:
    if not path:
        return None
    _look(doc, path, "remove operation does not apply")
    parent = _look(doc, path[:-1], "remove operation does not apply")
    if isinstance(parent, dict):
        return _replace(doc, path[:-1], {key: value for key, value in parent.items() if key != path[-1]})
    at = _index(path[-1], len(parent) - 1)
    return _replace(doc, path[:-1], parent[:at] + parent[at + 1 :])


# --- merge patch -----------------------------------------------------------------------------------------------------


def merge_patch(doc: Any, patch: Any) -> Any:
    """`doc` with the fields of `patch` in place of its own; null deletes a field, lists are replaced whole.

    Raises StatusError 400 for a patch that is nested too deeply.
    """
    try:
        return _merge(doc, patch)
    except RecursionError:
        raise bad_request("error decoding patch: nested too deeply") from None


def _merge(doc: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value) if isinstance(value, dict) else value
    return result


# --- strategic merge patch -------------------------------------------------------------------------------------------

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_DIRECTIVES = ("$patch", "$retainKeys")


class _Rule(NamedTuple):
    """How one field merges: lists by `key` (or as sets) if `merge`; maps unless `replace`."""

    merge: bool
    replace: bool
    key: str
    below: str
    """Definition of the value, of its items or of its values; "" if they have none."""


_NO_RULE = _Rule(False, False, "", "")
_rules: dict[tuple[int, str], tuple[Definitions, dict[str, _Rule]]] = {}


def _rules_of(name: str, definitions: Definitions) -> dict[str, _Rule]:
    if not name:
        return {}
    known = _rules.get((id(definitions), name))
    if known is None:
        properties = definitions.schemas[name].get("properties", {})
        rules = {field: _rule(schema) for field, schema in properties.items()}
        known = _rules[id(definitions), name] = (definitions, rules)
    return known[1]


def _rule(schema: Schema) -> _Rule:
    strategies = schema.get("x-kubernetes-patch-strategy", "").split(",")
    values = schema.get("additionalProperties")
    inner = schema.get("items") or (values if isinstance(values, dict) else None) or schema
    return _Rule(
        merge="merge" in strategies,
        replace="replace" in strategies,
        key=schema.get("x-kubernetes-patch-merge-key", ""),
        below=ref_name(inner.get("$ref", "")),
    )


def strategic_merge(doc: Object, patch: Any, schema_name: str, definitions: Definitions) -> Object:
    """`doc`, an object of the definition `schema_name`, after a strategic merge patch. Raises StatusError 400."""
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a strategic merge patch must be an object")
    try:
        return _Strategic(definitions).merge(doc, patch, schema_name)
    except RecursionError:
        raise bad_request("error decoding patch: nested too deeply") from None


class _Strategic:
    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions

    def merge(self, original: Object, patch: Object, name: str) -> Object:
        directive = patch.get("$patch")
        if directive == "replace":
            return {key: value for key, value in patch.items() if key != "$patch"}
        if directive == "delete":
            return {}
        if directive not in (None, "merge"):
            raise bad_request(f"unknown patch type found: {directive}")
        rules = _rules_of(name, self.definitions)
        result = dict(original)
        if "$retainKeys" in patch:
            _retain(result, patch)
        for key, value in patch.items():
            if key.startswith(_DELETE):
                field = key[len(_DELETE) :]
                gone = _list(value, key)
                if isinstance(result.get(field), list):
                    result[field] = [item for item in result[field] if item not in gone]
            elif key in _DIRECTIVES or key.startswith(_ORDER):
                continue
            elif value is None:
                result.pop(key, None)
            elif key not in result:
                result[key] = _without_directives(value)
            else:
                result[key] = self._value(result[key], value, rules.get(key, _NO_RULE))
        for key, value in patch.items():
            if key.startswith(_ORDER):
                field = key[len(_ORDER) :]
                rule = rules.get(field, _NO_RULE)
                _check_order(patch.get(field), _list(value, key), rule.key, key)
                if isinstance(result.get(field), list):
                    before = original.get(field)
                    result[field] = _ordered(result[field], value, before if isinstance(before, list) else [], rule.key)
        return result

    def _value(self, original: Any, value: Any, rule: _Rule) -> Any:
        if isinstance(value, dict) and isinstance(original, dict) and not rule.replace:
            return self.merge(original, value, rule.below)
        if isinstance(value, list) and isinstance(original, list) and rule.merge:
            return self._lists(original, value, rule)
        return _without_directives(value)

    def _lists(self, original: list[Any], patch: list[Any], rule: _Rule) -> list[Any]:
        if not any(isinstance(item, dict) for item in (*original, *patch)):
            merged = list({_hashable(item): item for item in (*original, *patch)}.values())
            return _ordered(merged, patch, original, "")
        if not rule.key:
            raise bad_request("cannot merge lists without merge key")
        for item in patch:
            if not isinstance(item, dict):
                raise bad_request("all values in a list to be merged must be of the same type")
        if any(item.get("$patch") == "replace" for item in patch):
            return [_without_directives(item) for item in patch if "$patch" not in item]
        result = list(original)
        added = []
        for item in patch:
            key = _merge_key(item, rule.key)
            if item.get("$patch") == "delete":
                result = [each for each in result if each.get(rule.key) != key]
                continue
            if item.get("$patch") not in (None, "merge"):
                raise bad_request(f"unknown patch type found: {item['$patch']}")
            at = next((i for i, each in enumerate(result) if each.get(rule.key) == key), None)
            if at is None:
                result.append(_without_directives(item))
            else:
                result[at] = self.merge(result[at], item, rule.below)
            added.append(item)
        return _ordered(result, added, original, rule.key)


def _merge_key(item: Object, key: str) -> Any:
    if key not in item:
        raise bad_request(f"map: {_short(item)} does not contain declared merge key: {key}")
    return item[key]


def _short(value: Any) -> str:
    text = " ".join(f"{key}:{each}" for key, each in value.items())
    return f"map[{text[:200]}]"


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad_request(f"the value of {key} must be a list")
    return value


def _retain(result: Object, patch: Object) -> None:
    keep = _list(patch["$retainKeys"], "$retainKeys")
    for key in patch:
        if not key.startswith("$") and patch[key] is not None and key not in keep:
            raise bad_request(f"$retainKeys list does not have all the keys in the patch: {key}")
    for key in [key for key in result if key not in keep]:
        del result[key]


def _check_order(items: Any, order: list[Any], key: str, directive: str) -> None:
    wanted = [_identity(item, key) for item in order]
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and "$patch" in item:
            continue
        if _identity(item, key) not in wanted:
            raise bad_request(f"The order in patch list does not match {directive} list: {_identity(item, key)}")


def _identity(item: Any, key: str) -> Any:
    return item.get(key) if key and isinstance(item, dict) else item


def _ordered(merged: list[Any], wanted: list[Any], before: list[Any], key: str) -> list[Any]:
    """`merged` with the items in `wanted` in its order and all others in the order of `before`.

    An item of `before` goes ahead of a wanted one only if it did so before; where that is unknown, wanted ones lead.
    """
    first = {_hashable(_identity(item, key)): place for place, item in reversed(list(enumerate(wanted)))}
    old = {_hashable(_identity(item, key)): place for place, item in reversed(list(enumerate(before)))}
    led = [(_hashable(_identity(item, key)), item) for item in merged]
    patched = sorted((pair for pair in led if pair[0] in first), key=lambda pair: first[pair[0]])
    others = sorted((pair for pair in led if pair[0] not in first), key=lambda pair: old.get(pair[0], -1))
    result = []
    i = j = 0
    while i < len(others) and j < len(patched):
        left, right = old.get(others[i][0]), old.get(patched[j][0])
        if left is not None and right is not None and left < right:
            result.append(others[i][1])
            i += 1
        else:
            result.append(patched[j][1])
            j += 1
    result += [item for _, item in others[i:]]
    result += [item for _, item in patched[j:]]
    return result


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else value


def _without_directives(value: Any) -> Any:
    """A new value as it is stored: nulls are dropped, and directives, which have nothing to act on."""
    if isinstance(value, dict):
        return {
            key: _without_directives(each)
            for key, each in value.items()
            if each is not None and key not in _DIRECTIVES and not key.startswith((_ORDER, _DELETE))
        }
    if isinstance(value, list):
        kept = (item for item in value if not (isinstance(item, dict) and item.get("$patch") == "delete"))
        return [_without_directives(item) for item in kept]
    return value
