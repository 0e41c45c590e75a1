"""Lists and watches in protobuf, put together from messages that are encoded already.

Every list of a kind has the same two fields, metadata and items. A watch is a row of frames: four bytes of length, big
end first, and a meta.v1.WatchEvent whose object is a whole body of its own (envelope and all), as Kubernetes' length
delimited framer writes them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.api.wire.encoder import envelope, message, sized, tag, varint

STREAM_TYPE = "application/vnd.kubernetes.protobuf;stream=watch"
_ITEM = tag(2, 2)


def list_items(messages: Iterable[bytes]) -> list[bytes]:
    """Each message as an item of a list."""
    return [b"%b%b%b" % (_ITEM, varint(len(each)), each) for each in messages]


def list_body(api_version: str, kind: str, metadata: Mapping[str, Any], items: list[bytes]) -> list[bytes]:
    """The body of a list in pieces; `kind` is the list's own, `items` are from `list_items`."""
    start = sized(1, message("meta.v1.ListMeta", metadata))
    # The envelope's length comes before its content, so it is made empty and taken apart at the zero.
    head = envelope(api_version, kind, b"")
    cut = len(head) - 5
    size = len(start) + sum(map(len, items))
    return [head[:cut] + varint(size) + start, *items, head[-4:]]


def watch_frame(type_: str, body: bytes) -> bytes:
    """One event; `body` is a whole body (`encode`, `envelope`)."""
    # RawExtension {raw = 1} in WatchEvent {type = 1, object = 2}
    event = sized(1, type_.encode()) + sized(2, sized(1, body))
    return len(event).to_bytes(4, "big") + event
