"""What a CRI client gave and wants to see again, though our runtime has no word for it (mounts, image names, DNS, …).

Its message is kept whole in an annotation of the sandbox or container, and lives as long as they, through any restart.
The annotation is ours: clients neither see it nor can they give it. What the node's own agent has made has none.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache

from nodeagent.cri.codec import Malformed, Message, decode, encode

PREFIX = "io.wherry.cri/"
_CONFIG = f"{PREFIX}given"


def remember(annotations: Mapping[str, str], name: str, message: Message) -> dict[str, str]:
    """`annotations` of a client, with the message `name` in them."""
    return {**visible(annotations), _CONFIG: b64encode(encode(name, message)).decode()}


def recall(annotations: Mapping[str, str], name: str) -> Message | None:
    text = annotations.get(_CONFIG)
    return _decoded(name, text) if text else None


def visible(annotations: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if key != _CONFIG}


@lru_cache(maxsize=256)
def _decoded(name: str, text: str) -> Message | None:
    try:
        return decode(name, b64decode(text))
    except (ValueError, Malformed):
        return None
