"""What lists may be asked for, and messages as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nodeagent.cri.codec import Message


def passes(item: Message, wanted: Mapping[str, Any] | None) -> bool:
    """Whether a PodSandbox or a Container passes its filter: every part that is given must fit. An id may be its
    beginning, as crictl's users type it."""
    if not wanted:
        return True
    labels, state = wanted.get("label_selector") or {}, wanted.get("state")
    return (
        item["id"].startswith(wanted.get("id") or "")
        and (not wanted.get("pod_sandbox_id") or item["pod_sandbox_id"].startswith(wanted["pod_sandbox_id"]))
        and (not state or item["state"] == state["state"])
        and all(item["labels"].get(name) == value for name, value in labels.items())
    )


def plain(value: object) -> object:
    """A message as JSON can have it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
