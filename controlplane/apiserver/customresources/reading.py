"""Reading stored custom objects: as another version, and with the defaults of a schema that is newer than they are.

What was written by the schema that reads it is answered as its stored bytes. The rest is decoded, pruned, defaulted and
encoded at its first read, and remembered until the object or the schema changes.
"""

from typing import TYPE_CHECKING

import msgspec

from controlplane.store.cache import Cached
from controlplane.store.cached import decode

if TYPE_CHECKING:  # a server without custom resources does not pay for them
    from controlplane.api.schema.kind import CustomKind

_REMEMBERED = 50_000

_encode = msgspec.json.Encoder().encode


def read(cached: Cached, custom: "CustomKind") -> Cached:
    """The object as `custom` shows it."""
    if custom.since is not None and cached.revision > custom.since:
        return cached
    if custom.converter is not None and not cached.data.startswith(custom.head):
        from controlplane.apiserver.customresources import conversion

        converted = conversion.known(cached, custom)
        if converted is None:
            raise conversion.NotConverted(cached.key)
        return converted
    seen = custom.seen
    known = seen.get(cached.key)
    if known is not None and known[0] == cached.data:  # the revision would not tell: a dry run has that of its object
        made: Cached = known[1]
        return made
    # Decoding keeps the order of fields, so the resourceVersion stays where it can be replaced.
    data = _encode(custom.present(decode(cached.data)))
    shown = cached if data == cached.data else Cached(cached.key, data, cached.revision, cached.create_revision)
    if len(seen) >= _REMEMBERED:
        seen.clear()
    seen[cached.key] = cached.data, shown
    return shown
