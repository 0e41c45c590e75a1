"""Lists and watches in protobuf, put together from messages that are encoded already.

Every list of a kind has the same two fields, metadata and items. A watch is a row of frames: four bytes of length, big
end first, and a meta.v1.WatchEvent whose object is a whole body of its own (envelope and all), as Kubernetes' length
delimited framer writes them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api.wire.encoder import envelope, message, sized, varint

STREAM_TYPE = "application/vnd.kubernetes.protobuf;stream=watch"


def list_body(api_version: str, kind: str, metadata: Mapping[str, Any], items: Sequence[bytes]) -> list[bytes]:
    """The body of a list in pieces; `kind` is the list's own, `items` are `framed` messages."""
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
