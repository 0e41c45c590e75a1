"""Who owns which fields: the entries of metadata.managedFields, and what a write does to them.

    update: what differs between the old and the new object is the writer's; nobody else has it any more
    apply:  what the configuration says is the applier's; what it said before, and nobody says now, goes

An entry is one manager with one way of writing (Apply or Update), one subresource and, for updates, one apiVersion.
Entries that a write does not touch are passed on as they are. Pure: times come from the caller.

Rules: the API server's managedfields package (last-applied migration, cap of ten updaters, "before-first-apply"), and
structured-merge-diff's updater.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane.api.apply import fieldset
from controlplane.api.apply.compile import NOBODYS, Root
from controlplane.api.apply.entries import Entry, age, fields, is_reset, is_stored, opened, ordered, received
from controlplane.api.apply.fieldset import FieldSet, difference, intersection, union
from controlplane.api.apply.merge import applied, merged, removed, with_parents
from controlplane.api.status import Cause, StatusError, apply_conflict, bad_request

Object = dict[str, Any]
Versions = Callable[[str], "tuple[Root, Callable[[Object], Object]] | None"]
"""From an apiVersion to its root and to the conversion of an object (as written) to it; None: there is no such version.
The identity function says that the shape is the same."""

_MAX_UPDATERS = 10
_ANCIENT = "ancient-changes"
_BEFORE_FIRST_APPLY = "before-first-apply"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, how, and when (`now`: RFC 3339, whole seconds)."""

    manager: str
    api_version: str
    subresource: str
    now: str


class Conflicts(Exception):
    def __init__(self, of: list[tuple[Entry, FieldSet]]) -> None:
        super().__init__()
        self.of = of


def same_shape(obj: Object) -> Object:
    """The conversion between versions that differ in nothing but their name."""
    return obj


# --- updates ---------------------------------------------------------------------------------------------------------


def created(root: Root, obj: Object, writer: Writer) -> list[Entry]:
    """The entries of a new object, as its creator sent it (with defaults)."""
    given = received(obj["metadata"].get("managedFields"))
    new_fields = root.owned.fresh(obj)
    if given:
        for at, entry in enumerate(given):  # somebody restores an object with its owners
            if left := difference(entry["fieldsV1"], new_fields):
                given[at] = {**entry, "fieldsV1": left}
        given = [entry for entry in given if entry["fieldsV1"]]
    return _taken(given or [], new_fields, writer) if new_fields else given or []


def updated(root: Root, old: Object, new: Object, writer: Writer, versions: Versions) -> Any:
    """The entries after a write that made `new` of `old`; what `old` has stored itself if nothing changed."""
    stored = old["metadata"].get("managedFields")
    sent = new["metadata"].get("managedFields")
    before = None
    if sent is not None and not writer.subresource and not is_stored(sent, stored):
        if is_reset(sent):
            return []
        before = received(sent)
    unchanged = stored if before is None else before
    if not unchanged:
        return unchanged  # nobody was tracked before, and an update does not begin with it
    changed: FieldSet = {}
    gone: FieldSet = {}
    root.owned.compare(old, new, changed, gone)
    if not changed and not gone:
        return unchanged
    entries = opened(stored) if before is None else before
    left = _without(entries, changed, gone, writer, versions, old, new)
    return _taken(left, changed, writer) if changed else left


def _without(
    entries: list[Entry],
    changed: FieldSet,
    gone: FieldSet,
    writer: Writer,
    versions: Versions,
    old: Object,
    new: Object,
) -> list[Entry]:
    """Every entry without what somebody else has changed or removed; the writer's own keeps what it changes."""
    result = []
    for entry in entries:
        seen = _seen_by(entry, changed, gone, writer, versions, old, new)
        if seen is None:
            continue
        its = fields(entry)
        own = entry["operation"] == "Update" and _is_own(entry, writer)
        left = difference(its if own else difference(its, seen[0]), seen[1])
        if left is its:
            result.append(entry)
        elif left:
            result.append({**entry, "fieldsV1": left})
    return result


def _seen_by(
    entry: Entry, changed: FieldSet, gone: FieldSet, writer: Writer, versions: Versions, old: Object, new: Object
) -> tuple[FieldSet, FieldSet] | None:
    """What differs between two objects in the version of an entry; None if there is no such version any more."""
    if entry["apiVersion"] == writer.api_version:
        return changed, gone
    found = versions(entry["apiVersion"])
    if found is None:
        return None
    root, convert = found
    if convert is same_shape:
        return changed, gone
    its_changed: FieldSet = {}
    its_gone: FieldSet = {}
    root.owned.compare(convert(old), convert(new), its_changed, its_gone)
    return its_changed, its_gone


def _is_own(entry: Entry, writer: Writer) -> bool:
    return bool(
        entry["manager"] == writer.manager
        and entry["apiVersion"] == writer.api_version
        and entry.get("subresource", "") == writer.subresource
    )


def _taken(entries: list[Entry], changed: FieldSet, writer: Writer) -> list[Entry]:
    """The entries with `changed` in the writer's own."""
    result: list[Entry] = []
    mine: Any = changed
    for entry in entries:
        if entry["operation"] == "Update" and _is_own(entry, writer):
            before = fields(entry)
            mine = union(before, changed)
            if mine is before:
                mine = entry["fieldsV1"]  # as JSON, if it still is
        else:
            result.append(entry)
    result.append(_entry(writer, "Update", mine))
    return ordered(_capped(result))


def _entry(writer: Writer, operation: str, its: Any) -> Entry:
    entry = {
        "manager": writer.manager, "operation": operation, "apiVersion": writer.api_version, "time": writer.now,
        "fieldsType": "FieldsV1", "fieldsV1": its,
    }  # fmt: skip
    if writer.subresource:
        entry["subresource"] = writer.subresource
    return entry


def _capped(entries: list[Entry]) -> list[Entry]:
    """At most ten updaters: the oldest of one version become one, so that odd clients do not make objects grow."""
    updaters = [entry for entry in entries if entry["operation"] == "Update"]
    if len(updaters) <= _MAX_UPDATERS:
        return entries
    updaters.sort(key=age)
    count = len(updaters)
    first: dict[str, Entry] = {}
    result = list(entries)
    for entry in updaters:
        if count <= _MAX_UPDATERS:
            break
        version = entry["apiVersion"]
        bucket = first.get(version)
        if bucket is None:
            first[version] = entry
            continue
        joined = {key: value for key, value in bucket.items() if key != "subresource"} | {
            "manager": _ANCIENT, "fieldsV1": union(fields(bucket), fields(entry)),
        }  # fmt: skip
        if "time" in entry:
            joined["time"] = entry["time"]
        result = [each for each in result if each is not bucket and each is not entry] + [joined]
        first[version] = joined
        count -= 1
    return result


# --- apply -----------------------------------------------------------------------------------------------------------


def apply(
    root: Root, live: Object | None, config: Object, writer: Writer, versions: Versions, *, force: bool
) -> Object:
    """The object after applying `config`, with its new owners. Raises StatusError: 409 with all conflicts, 400, 500.

    `live` is None for a new object. The result shares parts with both; it has no defaults yet.
    """
    if (config.get("metadata") or {}).get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    errors: list[str] = []
    said = applied(root.whole, config, errors) or {}
    if errors:
        # Kubernetes does not say of what kind this error is, and clients print it as it is.
        detail = errors[0] if len(errors) == 1 else "\n".join(["errors:", *(f"  {each}" for each in errors)])
        raise StatusError(500, "", f"failed to create typed patch object ({_described(config)}): {detail}")
    new = _settled(root, live, config, root.owners_kept(said), writer, versions, force=force)
    if writer.manager == "kubectl" and live and LAST_APPLIED in (live["metadata"].get("annotations") or {}):
        return _with_last_applied(new, config)
    return new


def _settled(
    root: Root, live: Object | None, config: Object, said: FieldSet, writer: Writer, versions: Versions, *, force: bool
) -> Object:
    """The applied object, without conflicts. What kubectl itself applied on the client's side is not contested."""
    try:
        return _applied(root, live, config, said, writer, versions, force=force)
    except Conflicts as conflicts:
        allowed = _said_by_client_side_apply(root, live) if writer.manager == "kubectl" and live else {}
        left = [(entry, rest) for entry, its in conflicts.of if (rest := difference(its, allowed))]
        if left:
            raise _conflict(left) from None
        return _applied(root, live, config, said, writer, versions, force=True)


def _described(config: Object) -> str:
    meta, (group, _, version) = config.get("metadata") or {}, config.get("apiVersion", "").rpartition("/")
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}; {group}/{version}, Kind={config.get('kind', '')}"


def _applied(
    root: Root, live: Object | None, config: Object, said: FieldSet, writer: Writer, versions: Versions, *, force: bool
) -> Object:
    before = opened(live["metadata"].get("managedFields")) if live else []
    if live and not before and (everything := root.owned.fresh(live)):
        first = Writer(_BEFORE_FIRST_APPLY, writer.api_version, writer.subresource, writer.now)
        before = [_entry(first, "Update", everything)]
    mine = next((entry for entry in before if _is_applier(entry, writer)), None)
    others = [entry for entry in before if entry is not mine]
    new: Object = merged(root.whole, live or {}, config)
    if mine is not None:
        now_said = {**mine, "apiVersion": writer.api_version, "fieldsV1": said}
        pruned = _pruned(root, new, mine, [*others, now_said], versions)
        new = merged(root.whole, pruned, config)  # once more: an empty list that was said is no rest of a pruned one
    base: Object = live or {"metadata": {}}
    changed: FieldSet = {}
    gone: FieldSet = {}
    root.owned.compare(base, new, changed, gone)
    entries = _contested(others, changed, gone, writer, versions, base, new, force=force)
    if said:
        entry = _entry(writer, "Apply", said)
        if mine is not None and not changed and not gone and fields(mine) == said and "time" in mine:
            entry["time"] = mine["time"]
        entries = [*entries, entry]
    return {**new, "metadata": {**new.get("metadata", {}), "managedFields": ordered(entries)}}


def _is_applier(entry: Entry, writer: Writer) -> bool:
    return bool(
        entry["operation"] == "Apply"
        and entry["manager"] == writer.manager
        and entry.get("subresource", "") == writer.subresource
    )


def _contested(
    entries: list[Entry], changed: FieldSet, gone: FieldSet, writer: Writer, versions: Versions,
    old: Object, new: Object, *, force: bool,
) -> list[Entry]:  # fmt: skip
    """The others' entries without what the apply takes from them. Raises Conflicts."""
    conflicts, result = [], []
    for entry in entries:
        seen = _seen_by(entry, changed, gone, writer, versions, old, new)
        if seen is None:
            continue
        its = fields(entry)
        if contested := intersection(its, seen[0]):
            conflicts.append((entry, contested))
        left = difference(difference(its, seen[0]), seen[1])
        if left:
            result.append(entry if left is its else {**entry, "fieldsV1": left})
    if conflicts and not force:
        raise Conflicts(conflicts)
    return result


def _pruned(root: Root, new: Object, last: Entry, entries: list[Entry], versions: Versions) -> Object:
    """`new` without what its applier said last time and no entry says now."""
    version = last["apiVersion"]
    found = versions(version)
    whole = root.whole
    if found is not None and found[1] is not same_shape:
        return new  # another shape: what it no longer says stays, as when it had never been applied
    said = with_parents(whole, fields(last))
    rest = removed(whole, new, said) or {}
    all_fields = with_parents(whole, applied(whole, new) or {})
    owned = NOBODYS
    for entry in entries:
        owned = union(owned, fields(entry))
    keep = union(with_parents(whole, applied(whole, rest) or {}), with_parents(whole, owned))
    kept = removed(whole, new, difference(all_fields, keep)) or {}
    final = difference(all_fields, with_parents(whole, applied(whole, kept) or {}))
    return removed(whole, new, intersection(final, said)) or {}


def _said_by_client_side_apply(root: Root, live: Object) -> FieldSet:
    """What kubectl applied before it did so on the server, as far as nobody has changed it since."""
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    try:
        last = msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return {}
    if not isinstance(last, dict):
        return {}
    changed: FieldSet = {}
    gone: FieldSet = {}
    root.owned.compare(last, live, changed, gone)
    return difference(difference(root.owners_kept(applied(root.whole, last) or {}), changed), gone)


def _with_last_applied(new: Object, config: Object) -> Object:
    """`new` with the annotation in which client-side apply finds this configuration, should somebody go back to it."""
    meta = dict(config.get("metadata") or {})
    notes = {name: text for name, text in (meta.get("annotations") or {}).items() if name != LAST_APPLIED}
    meta["annotations"] = notes
    text = msgspec.json.encode({**config, "metadata": meta}, order="sorted").decode() + "\n"
    metadata = new["metadata"]
    return {**new, "metadata": {**metadata, "annotations": {**metadata["annotations"], LAST_APPLIED: text}}}


def _conflict(conflicts: list[tuple[Entry, FieldSet]]) -> StatusError:
    found = sorted(
        (_manager_text(entry), fieldset.path_text(steps)) for entry, its in conflicts for steps in fieldset.paths(its)
    )
    if len(found) == 1:
        message = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        lines = []
        for manager in dict.fromkeys(manager for manager, _ in found):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {path}" for of, path in found if of == manager]
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    causes = [Cause("FieldManagerConflict", path, f"conflict with {manager}") for manager, path in found]
    return apply_conflict(message, causes)


def _manager_text(entry: Entry) -> str:
    text = fieldset.value_text(entry["manager"])
    if entry.get("subresource"):
        text += f" with subresource {fieldset.value_text(entry['subresource'])}"
    return f"{text} using {entry['apiVersion']}" if entry["operation"] == "Update" else text
