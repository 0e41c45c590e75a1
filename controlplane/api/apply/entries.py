"""Entries of metadata.managedFields, and how they are stored: as JSON that is only looked into when somebody must.

Most writes change what one manager has and pass the others on, and thousands of objects have the same sets: all pods of
a Deployment, all nodes. So the list is stored as one opaque value (a msgspec.Raw between tabs, which the store's cache
leaves undecoded), a set inside it stays JSON until it is asked for, and sets with the same JSON are decoded once.
"""

from typing import Any, TypedDict

import msgspec

from controlplane.api.apply import fieldset
from controlplane.api.apply.fieldset import BadFieldSet, FieldSet

Entry = dict[str, Any]
"""As published (metav1.ManagedFieldsEntry); its fieldsV1 may be a Raw: ask `fields`."""


class _Stored(TypedDict, total=False):
    manager: str
    operation: str
    apiVersion: str
    time: str
    fieldsType: str
    fieldsV1: msgspec.Raw
    subresource: str


_read = msgspec.json.Decoder(list[_Stored]).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_REMEMBERED_BYTES = 2 << 20


class _Sets:
    """Field sets by their JSON."""

    def __init__(self) -> None:
        self._known: dict[bytes, FieldSet] = {}
        self._size = 0

    def get(self, text: bytes) -> FieldSet:
        known = self._known.get(text)
        if known is None:
            self._size += len(text)
            if self._size > _REMEMBERED_BYTES:
                self._known.clear()
                self._size = len(text)
            known = self._known[text] = _decode(text)
        return known


_sets = _Sets()


def opened(stored: Any) -> list[Entry]:
    """The entries in a stored value: a Raw, a list, or None. The list may be the stored one: do not change it."""
    if type(stored) is msgspec.Raw:
        return _read(stored)  # type: ignore[return-value]
    return stored or []


def closed(entries: list[Entry]) -> msgspec.Raw:
    """Entries as they are stored."""
    return msgspec.Raw(b"\t%b\t" % _encode(entries))


def plain(obj: dict[str, Any]) -> dict[str, Any]:
    """An object whose managedFields are a list, for readers who know no other form; `obj` itself if they are."""
    stored = obj["metadata"].get("managedFields") if type(obj.get("metadata")) is dict else None
    if type(stored) is not msgspec.Raw:
        return obj
    return {**obj, "metadata": {**obj["metadata"], "managedFields": _decode(stored)}}


def fields(entry: Entry) -> FieldSet:
    """What the entry's manager has. Shared: do not change it."""
    found = entry["fieldsV1"]
    return _sets.get(bytes(found)) if type(found) is msgspec.Raw else found


def same(one: Any, other: Any) -> bool:
    """Whether two stored values say the same, but for when."""
    if one is other or one == other:
        return True
    after, before = opened(one), opened(other)
    if len(after) != len(before):
        return False
    known = [_content(entry) for entry in before]
    return all(_content(entry) in known for entry in after)


def _content(entry: Entry) -> Entry:
    return {**{key: value for key, value in entry.items() if key != "time"}, "fieldsV1": fields(entry)}


def is_stored(sent: Any, stored: Any) -> bool:
    """Whether a client sends back what it was given."""
    if sent == stored:
        return True
    if type(stored) is not msgspec.Raw or type(sent) is not list:
        return False
    return _encode(sent) == bytes(stored).strip(b"\t")


def is_reset(sent: Any) -> bool:
    """Whether a client asks to forget all owners: [] or [{}]."""
    return isinstance(sent, list) and (not sent or sent == [{}])


def received(sent: Any) -> list[Entry] | None:
    """Entries that a client sent, checked and in our spelling; None if they are no good, or none."""
    if not isinstance(sent, list) or not sent:
        return None
    result: dict[tuple[str, str, str, str], Entry] = {}
    for entry in sent:
        if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
            return None
        if not entry.get("apiVersion") or entry.get("fieldsType") != "FieldsV1":
            return None
        try:
            found = fieldset.canonical(entry.get("fieldsV1", {}))
        except BadFieldSet:
            return None
        whole = {**entry, "manager": entry.get("manager", ""), "fieldsV1": found}
        version = "" if entry["operation"] == "Apply" else entry["apiVersion"]
        result[whole["manager"], entry["operation"], version, entry.get("subresource", "")] = whole
    return ordered([entry for entry in result.values() if entry["fieldsV1"]])


def ordered(entries: list[Entry]) -> list[Entry]:
    """Appliers first, then by time, so that a reader sees who came last. Changes the list."""
    if len(entries) > 1:
        entries.sort(key=_place)
    return entries


def _place(entry: Entry) -> tuple[str, ...]:
    return (entry["operation"], *age(entry))


def age(entry: Entry) -> tuple[str, ...]:
    """What to sort by, oldest first."""
    return entry.get("time") or "", entry["manager"], entry["apiVersion"], entry.get("subresource", "")
