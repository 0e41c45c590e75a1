"""Looking down: what a path means in a stack of layer directories, as overlay would show it.

A layer's archive may name `usr/bin/tool` without saying what `usr` is: then it is what the layers below say, with
their mode and owner, and possibly a symbolic link. Unpacking asks here. Read only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

OPAQUE = "trusted.overlay.opaque"


def is_whiteout(status: os.stat_result) -> bool:
    """Overlay's mark for "deleted here": a character device 0,0 (kernel, Documentation/filesystems/overlayfs)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: str) -> bool:
    """Whether a directory of a layer hides what lower layers have in it."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


class Below:
    """Layer directories, topmost first. Paths are relative, without `..`, and have no symbolic link on the way."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = [str(layer) for layer in layers]

    def find(self, path: str) -> str | None:
        """The file that shows at `path` (not followed if it is a symbolic link), or None."""
        parts = path.split("/") if path else []
        for layer in self._layers:
            at = layer
            hidden = False
            for i, part in enumerate(parts):
                hidden = hidden or is_opaque(at)
                at = f"{at}/{part}"
                try:
                    status = os.lstat(at)
                except FileNotFoundError:
                    break
                if is_whiteout(status):
                    return None
                if i < len(parts) - 1 and not stat.S_ISDIR(status.st_mode):
                    return None
            else:
                return at
            if hidden:
                return None
        return None
