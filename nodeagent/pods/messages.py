"""The last words of a container: its termination message, from the file it was given or from the end of its log."""

from __future__ import annotations

import glob
import os

from nodeagent.pods.model import ANNOTATION_MESSAGE_PATH, ANNOTATION_MESSAGE_POLICY
from nodeagent.runtime.interface import ContainerStatus

MOST_BYTES = 4096
_LOG_BYTES, _LOG_LINES = 2048, 80


def last_message(container: ContainerStatus) -> str:
    """What the container left behind, cut to Kubernetes' limits; empty if nothing."""
    path = container.annotations.get(ANNOTATION_MESSAGE_PATH, "")
    text = _head(path) if path else ""
    policy = container.annotations.get(ANNOTATION_MESSAGE_POLICY, "")
    if not text and policy == "FallbackToLogsOnError" and container.exit_code != 0:
        text = _log_tail(container.log_path)
    return text


def _head(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _log_tail(path: str) -> str:
    """The last lines of a log in CRI format, without timestamps."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4 * _LOG_BYTES))
            lines = file.read().splitlines()[-_LOG_LINES:]
    except OSError:
        return ""
    text = b"\n".join(line.split(b" ", 3)[3] for line in lines if line.count(b" ") >= 3)
    return text[-_LOG_BYTES:].decode("utf-8", "replace")


def remove_logs(path: str) -> None:
    """Remove a container's log and its rotated parts (`0.log`, `0.log.20261121-…`, `….gz`)."""
    if not path:
        return
    for name in [path, *glob.glob(glob.escape(path) + ".*")]:
        try:
            os.unlink(name)
        except OSError:
            pass
