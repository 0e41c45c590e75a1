"""The walks of an apply: which fields a configuration has, what it makes of the live object, what it no longer wants.

Apply only, so paths and completeness matter more here than time. Functions take a type (types.py) and values; values
are never changed, and results share what did not change. Rules: structured-merge-diff's merge, toFieldSet,
removeItems and EnsureNamedFieldsAreMembers.
"""

from typing import Any

from controlplane.api.apply.fieldset import LEAF, FieldSet, field, has, path_text
from controlplane.api.apply.types import ATOM, List, Map, Several, Struct, Type


def applied(of: Type, value: Any, errors: list[str] | None = None, path: tuple[str, ...] = ()) -> FieldSet | None:
    """The node of what somebody says who says `value`: an object only by its fields, an item of a list also itself.

    None if it says nothing. What does not fit the type goes to `errors`, in Kubernetes' words, with its path.
    """
    if of is ATOM:
        return LEAF
    if value is None:
        return LEAF
    if isinstance(of, Struct | Map):
        if type(value) is not dict:
            return _complain(errors, path, "map", value) if not _is_free(of) else LEAF
        if not value:
            return None
        return _applied_fields(of, value, errors, path)
    if isinstance(of, List):
        if type(value) is not list:
            return _complain(errors, path, "list", value)
        return _applied_items(of, value, errors, path)
    return LEAF


def _is_free(of: Type) -> bool:
    return isinstance(of, Map) and of.values is of


def _applied_fields(of: Struct | Map, value: Any, errors: list[str] | None, path: tuple[str, ...]) -> FieldSet | None:
    node: FieldSet = {}
    for name, each in value.items():
        step = field(name)
        known = True
        if isinstance(of, Map):
            known, below_of = False, of.values
        else:
            entry = of.entry(name)
            known = name in of.entries
            if entry is None:
                if errors is not None:
                    errors.append(f"{path_text((*path, step))}: field not declared in schema")
                continue
            below_of = entry[1]
        below = applied(below_of, each, errors, (*path, step))
        if each is None or each == {} or below is LEAF:
            node[step] = LEAF
        elif below is not None:
            node[step] = below if known or has(below) else {".": LEAF, **below}
        elif not known:
            node[step] = LEAF
    return node or None


def _applied_items(of: List, value: list[Any], errors: list[str] | None, path: tuple[str, ...]) -> FieldSet | None:
    items = of.keyed(value)
    if items is None:
        if errors is not None:
            errors.append(
                f"{path_text(path)}: element {_unkeyed(of, value)}: associative list with keys has an element that "
                f"omits key field {_keys(of)} (and doesn't have default value)"
            )
        return LEAF
    node: FieldSet = {}
    for step, item in items.items():
        if type(item) is Several:
            if errors is not None:
                errors.append(f"{path_text(path)}: duplicate entries for key {path_text((step,))}")
            node[step] = LEAF
            continue
        below = applied(of.item, item, errors, (*path, step))
        node[step] = {".": LEAF, **below} if below else LEAF
    return node or None


def _unkeyed(of: List, value: list[Any]) -> int:
    return next(index for index, item in enumerate(value) if of.step(item) is None)


def _keys(of: List) -> str:
    return '"' + '", "'.join(getattr(of, "keys", ())) + '"'


def _complain(errors: list[str] | None, path: tuple[str, ...], wanted: str, value: Any) -> FieldSet:
    if errors is not None:
        errors.append(f"{path_text(path)}: expected {wanted}, got {_go_value(value)}")
    return LEAF


def _go_value(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return f"&value.valueUnstructured{{Value:{shown}}}"


def merged(of: Type, live: Any, config: Any) -> Any:
    """`live` with `config` over it: objects and granular lists field by field and item by item, all else replaced."""
    if isinstance(of, Struct | Map) and type(config) is dict:
        result = dict(live) if type(live) is dict else {}
        for name, each in config.items():
            if each is None:
                result.pop(name, None)
                continue
            entry = of.entry(name) if isinstance(of, Struct) else (name, of.values)
            result[name] = merged(entry[1] if entry else ATOM, result.get(name), each)
        return result
    if isinstance(of, List) and type(config) is list:
        return _merged_lists(of, live if type(live) is list else [], config)
    return config


def _merged_lists(of: List, live: list[Any], config: list[Any]) -> list[Any]:
    """The items of `config` in its order; items that only `live` has stay before those that they were before."""
    said = [(of.step(item), item) for item in config]
    order = {step for step, _ in said}
    before: dict[str | None, Any] = {}
    had = [(of.step(item), item) for item in live]
    for step, item in had:
        before.setdefault(step, item)
    shared = [step for step, _ in said if step in before]
    result, taken, at = [], 0, 0
    while at < len(had) or taken < len(said):
        if at < len(had):
            step, item = had[at]
            if step not in order:
                result.append(item)
                at += 1
                continue
            if not shared or step != shared[0]:  # its turn comes later, or has been
                at += 1
                continue
        if taken < len(said):
            step, item = said[taken]
            result.append(merged(of.item, before.get(step), item))
            taken += 1
            if shared and shared[0] == step:
                shared.pop(0)
    return result


def removed(of: Type, value: Any, fields: FieldSet) -> Any:
    """`value` without the members of `fields`, each with all that is in it; None if nothing is left."""
    if isinstance(of, Struct | Map) and type(value) is dict:
        kept = {}
        for name, each in value.items():
            node = fields.get(field(name))
            if node is None:
                kept[name] = each
            elif not has(node):
                entry = of.entry(name) if isinstance(of, Struct) else (name, of.values)
                left = removed(entry[1] if entry else ATOM, each, node)
                if left is not None:
                    kept[name] = left
        return kept or None
    if isinstance(of, List) and type(value) is list:
        items = []
        for item in value:
            step = of.step(item)
            node = fields.get(step) if step is not None else None
            if node is None:
                items.append(item)
            elif not has(node):
                left = removed(of.item, item, node)
                if left is not None:
                    items.append(left)
        return items or None
    return value


def with_parents(of: Type, fields: FieldSet) -> FieldSet:
    """`fields` and all known fields on the way to them. A set may say of an object only what is in it; whoever owns
    that also holds the object itself. Map keys and list items are held only by who says so."""
    result: FieldSet = {}
    for step, node in fields.items():
        below_of: Type = ATOM
        named = False
        if isinstance(of, Struct) and step.startswith("f:"):
            entry = of.entry(step[2:])
            below_of, named = (entry[1] if entry else ATOM), step[2:] in of.entries
        elif isinstance(of, Map) and step.startswith("f:"):
            below_of = of.values
        elif isinstance(of, List):
            below_of = of.item
        if node:
            node = with_parents(below_of, node)
            if named and "." not in node:
                node = {".": LEAF, **node}
        result[step] = node
    return result
