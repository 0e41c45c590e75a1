"""How the fields of a kind merge, compiled from its schema, and the two walks that every write makes.

`everything` says which fields a value has; `compare` says which fields differ between two. A place in a schema is an
ATOM (a scalar, or a list or map that is owned as one), a Struct (known fields), a Map, a list of Items (told apart by
keys), a list of Values (a set), or DEDUCED (no schema: maps are granular, lists are atoms). `compare` descends only
where two values differ, so an update costs what it changes.

Not here: where types come from (compile.py), what applying needs (merge.py), who owns a field (managers.py).
Source of the rules: structured-merge-diff's typed values, as the API server configures them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from controlplane.api.apply import fieldset
from controlplane.api.apply.fieldset import LEAF, FieldSet

_MISSING: Final = object()
_LONGEST_SHAPE, _MOST_SHAPES, _MOST_STEPS, _LONGEST_STEP = 12, 64, 4096, 64
Entry = tuple[str, "Type"]
"""The step to a field, and its type."""


class Type:
    """A place in a schema; this one is an atom."""

    python: type = object

    def everything(self, value: Any) -> FieldSet:
        """The node of a value that is new, or gone, with all that is in it."""
        return LEAF

    def compare(self, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
        """Put into `changed` what is added or different in `new`, into `removed` what only `old` has. Both are of
        the type `python`; atoms are never asked."""
        raise NotImplementedError


ATOM = Type()


def _differ(entry: Entry, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
    """Note how two unequal values differ."""
    step, of = entry
    python = of.python
    if type(old) is python and type(new) is python:
        below: FieldSet = {}
        gone: FieldSet = {}
        of.compare(old, new, below, gone)
        if below:
            changed[step] = LEAF if len(below) == 1 and "." in below else below
        if gone:
            removed[step] = gone
        return
    changed[step] = of.everything(new)
    if type(old) is python and (gone := of.everything(old)):
        removed[step] = {each: node for each, node in gone.items() if each != "."}


class Struct(Type):
    """An object with known fields, compiled when the first value comes; `other`: what further fields are, except those
    in `hidden`."""

    python = dict

    def __init__(
        self, load: Callable[[], dict[str, Type]], other: Type | None = None, hidden: Collection[str] = ()
    ) -> None:
        self._load: Callable[[], dict[str, Type]] | None = load
        self._entries: dict[str, Entry] = {}
        self.other = other
        self.hidden = hidden
        self._shapes: dict[tuple[str, ...], FieldSet] = {}

    @property
    def entries(self) -> dict[str, Entry]:
        if self._load is not None:
            self._entries = {name: (fieldset.field(name), of) for name, of in self._load().items()}
            self._load = None
        return self._entries

    def entry(self, name: str) -> Entry | None:
        """Step and type of a field; None if there is no such field (or its owner is not kept)."""
        found = self.entries.get(name)
        if found is None and self.other is not None and name not in self.hidden:
            return fieldset.field(name), self.other
        return found

    def everything(self, value: Any) -> FieldSet:
        if type(value) is not dict or not value:
            return LEAF
        shape = tuple(value)
        known = self._shapes.get(shape)
        if known is not None:
            return known
        entries = self._entries if self._load is None else self.entries
        node = {".": LEAF}
        flat = len(shape) <= _LONGEST_SHAPE
        for name, each in value.items():
            entry = entries.get(name) or self.entry(name)
            if entry is not None:
                step, of = entry
                if of is ATOM:
                    node[step] = LEAF
                else:
                    node[step] = of.everything(each)
                    flat = False
        if len(node) == 1:
            node = LEAF
        if flat and len(self._shapes) < _MOST_SHAPES:  # then its fields' names say all of it: variables, ports, mounts
            self._shapes[shape] = node
        return node

    def compare(self, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
        entries = self._entries if self._load is None else self.entries
        shared = 0
        for name, after in new.items():
            before = old.get(name, _MISSING)
            if before is _MISSING:
                entry = entries.get(name) or self.entry(name)
                if entry is None:
                    continue
                of = entry[1]
                if name in _ALWAYS_THERE and of is not ATOM and type(after) is of.python:
                    _differ(entry, of.python(), after, changed, removed)
                else:
                    changed[entry[0]] = of.everything(after)
                continue
            shared += 1
            if before is after or before == after:
                continue
            entry = entries.get(name) or self.entry(name)
            if entry is None:
                continue
            if entry[1] is ATOM:
                changed[entry[0]] = LEAF
            else:
                _differ(entry, before, after, changed, removed)
        if shared < len(old):
            for name, before in old.items():
                if name not in new and (entry := self.entry(name)) is not None:
                    removed[entry[0]] = entry[1].everything(before)

    def fresh(self, value: Any) -> FieldSet:
        """The fields of a new object."""
        node: FieldSet = {}
        self.compare({}, value, node, {})
        return node


# Parts that are no pointers in the published Go types: there they are always there, even if empty, and so never new;
# only what is in them is.
_ALWAYS_THERE = frozenset((
    "metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "containers", "source",
    "deprecatedSource", "drivers",
))  # fmt: skip


class Map(Type):
    """An object with any keys and values of one type."""

    python = dict

    def __init__(self, values: Type) -> None:
        self.values = values

    def everything(self, value: Any) -> FieldSet:
        if type(value) is not dict or not value:
            return LEAF
        of = self.values
        node = {".": LEAF}
        for name, each in value.items():
            node["f:" + name] = LEAF if of is ATOM else of.everything(each)
        return node

    def compare(self, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
        for name, after in new.items():
            before = old.get(name, _MISSING)
            if before is _MISSING:
                changed["f:" + name] = self.values.everything(after)
            elif before != after:
                if self.values is ATOM:
                    changed["f:" + name] = LEAF
                else:
                    _differ(("f:" + name, self.values), before, after, changed, removed)
        for name, before in old.items():
            if name not in new:
                removed["f:" + name] = self.values.everything(before)


class Several(list[Any]):
    """Items of one key: a list that should not have them has. They are owned together, as an atom."""


class List(Type):
    """A list whose items are known by something else than their place."""

    python = list

    def __init__(self, item: Type) -> None:
        self.item = item

    def step(self, item: Any) -> str | None:
        """The step to an item; None if the item cannot be told from others."""
        raise NotImplementedError

    def keyed(self, items: list[Any]) -> dict[str, Any] | None:
        """Step -> item, or Several items; None if an item has no key, and the list is like an atom."""
        result: dict[str, Any] = {}
        for item in items:
            step = self.step(item)
            if step is None:
                return None
            if step not in result:
                result[step] = item
            elif type(result[step]) is Several:
                result[step].append(item)
            else:
                result[step] = Several((result[step], item))
        return result

    def node(self, item: Any) -> FieldSet:
        """What of an item is in a set that has all of it."""
        return LEAF if type(item) is Several else self.item.everything(item)

    def everything(self, value: Any) -> FieldSet:
        if type(value) is not list or not value:
            return LEAF
        items = self.keyed(value)
        if items is None:
            return LEAF
        node = {".": LEAF}
        for step, item in items.items():
            node[step] = self.node(item)
        return node

    def compare(self, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
        befores, afters = self.keyed(old), self.keyed(new)
        if befores is None or afters is None:
            changed["."] = LEAF
            return
        for step, after in afters.items():
            before = befores.get(step, _MISSING)
            if before is _MISSING:
                changed[step] = self.node(after)
            elif before != after:
                if type(before) is Several or type(after) is Several:
                    changed[step] = LEAF
                else:
                    _differ((step, self.item), before, after, changed, removed)
        for step, before in befores.items():
            if step not in afters:
                removed[step] = self.node(before)


class Items(List):
    """A list of objects with keys (x-kubernetes-list-type: map). `defaults`: keys that an item may leave out."""

    def __init__(self, item: Type, keys: tuple[str, ...], defaults: dict[str, Any]) -> None:
        super().__init__(item)
        self.keys = tuple(sorted(keys))
        self.defaults = defaults
        self._only = self.keys[0] if len(self.keys) == 1 else ""
        self._steps: dict[str, str] = {}

    def step(self, item: Any) -> str | None:
        if type(item) is not dict:
            return None
        if self._only and type(value := item.get(self._only)) is str:
            step = self._steps.get(value)
            if step is None:
                step = fieldset.key({self._only: value})
                if len(value) <= _LONGEST_STEP:
                    if len(self._steps) >= _MOST_STEPS:
                        self._steps.clear()
                    self._steps[value] = step
            return step
        found = {}
        for name in self.keys:
            value = item.get(name)
            if value is None:
                value = self.defaults.get(name)
            if value is not None:
                found[name] = value
        return fieldset.key(found) if found else None


class Values(List):
    """A list that is a set of scalars."""

    def step(self, item: Any) -> str | None:
        return None if type(item) in (dict, list) else fieldset.value(item)


class Deduced(Map):
    """No schema says what this is: objects are granular, all else is an atom."""

    def __init__(self) -> None:
        super().__init__(self)


DEDUCED = Deduced()
