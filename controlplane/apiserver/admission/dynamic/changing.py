"""Putting what a webhook or policy made of an object into the object that is being written."""

from typing import Any

Object = dict[str, Any]
_SERVERS_OWN = (
    "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp",
)  # fmt: skip


def put(obj: Object, after: Object) -> None:
    """Make `obj` what `after` is, except for what the server decides. In place, because whoever runs admission holds
    the object and its metadata."""
    meta = obj["metadata"]
    changed = {**after["metadata"]}
    for key in _SERVERS_OWN:
        if meta.get(key) is None:
            changed.pop(key, None)
        else:
            changed[key] = meta[key]
    meta.clear()
    meta.update(changed)
    obj.clear()
    obj.update({**after, "metadata": meta})
