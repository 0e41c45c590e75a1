"""Where images are on this node's disk, and how things get there whole or not at all.

    <root>/state.json             which images there are (service.py)
    <root>/layers/<32 hex>/       a layer, unpacked, by its chain id; short, because overlay's options fill one page
    <root>/blobs/<algorithm>-<hex> a layer on its way: verified, not unpacked yet
    <root>/partial/<...>          a download that may be resumed, for a day
    <root>/tmp/                   anything unfinished (blobs and tmp are emptied at start)

A name outside `partial` and `tmp` only ever means complete, verified content: it is made under another name and
renamed. Nothing is synced: after a power cut, `state.json` tells (by boot id) which layers cannot be trusted.

Blobs go away once they are unpacked: a registry can give them again, and the disk is better used for containers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from nodeagent.images.manifest import Descriptor, ImageInvalid

_HEX_OF_CHAIN = 32
_PARTIAL_S = 86_400.0


class Content:
    """Blocking functions; call them in a thread when they read or write more than a little."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers = root / "layers"
        self.blobs = root / "blobs"
        self.partial = root / "partial"
        self.tmp = root / "tmp"

    def prepare(self) -> None:
        """Make the directories (0700: images bring setuid files) and throw away what was unfinished."""
        for folder in (self.root, self.layers, self.blobs, self.partial, self.tmp):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in (*self.tmp.iterdir(), *self.blobs.iterdir()):
            remove(leftover)

    def scratch(self, name: str) -> Path:
        """A new, empty directory for something unfinished."""
        return Path(tempfile.mkdtemp(prefix=name + ".", dir=self.tmp))

    def layer(self, chain_id: str) -> Path:
        return self.layers / chain_id.partition(":")[2][:_HEX_OF_CHAIN]

    def commit_layer(self, scratch: Path, chain_id: str) -> Path:
        """Move an unpacked layer to its place; if another one came first, that stays."""
        path = self.layer(chain_id)
        try:
            os.rename(scratch, path)
        except OSError:
            if not path.is_dir():
                raise
            remove(scratch)
        return path

    def forget_partial(self, now: float) -> None:
        """Give up downloads that nobody has gone on with for a day. `now`: seconds since the epoch."""
        for path in self.partial.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _PARTIAL_S:
                    path.unlink()

    def blob(self, digest: str) -> Path:
        return self.blobs / digest.replace(":", "-")

    def retire_layers(self, keep: Iterable[Path]) -> list[Path]:
        """Take every layer but `keep` out of its place, at once (renames only), and return what is to be removed."""
        wanted = {path.name for path in keep}
        doomed = []
        for path in self.layers.iterdir():
            if path.name not in wanted:
                doomed.append(self.scratch("drop"))
                os.rename(path, doomed[-1])
        return doomed


def remove(path: Path) -> None:
    """Remove a file or a tree."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Download:
    """One blob being written to `partial/`, hashed on the way, moved to `blobs/` when it is what its digest says."""

    def __init__(self, content: Content, wanted: Descriptor) -> None:
        self.wanted = wanted
        self._content = content
        self._path = content.partial / wanted.digest.replace(":", "-")
        self._hash: Any = None
        self._file: IO[bytes] | None = None
        self.length = 0

    def start(self, *, afresh: bool = False) -> None:
        """Open the file; what an earlier attempt left is read again (for the hash) and kept, unless `afresh`."""
        self.close()
        self._hash = hashlib.new(self.wanted.digest.partition(":")[0])
        self._file = open(self._path, "w+b" if afresh or not self._path.exists() else "r+b")  # noqa: SIM115
        self.length = 0
        while data := self._file.read(1 << 20):
            self._hash.update(data)
            self.length += len(data)

    def write(self, data: bytes) -> None:
        """Raises ImageInvalid if it gets longer than announced."""
        assert self._file is not None
        self.length += len(data)
        if 0 <= self.wanted.size < self.length:
            self.discard()
            raise ImageInvalid(f"blob {self.wanted.digest} is longer than {self.wanted.size} bytes")
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> None:
        """Raises ImageInvalid (and forgets the file) if the content is not what the digest says."""
        self.close()
        found = f"{self.wanted.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self.wanted.digest:
            self._path.unlink(missing_ok=True)
            raise ImageInvalid(f"blob {self.wanted.digest}: content has digest {found}")
        os.rename(self._path, self._content.blob(self.wanted.digest))

    def discard(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what is there for a later attempt."""
        if self._file is not None:
            self._file.close()
            self._file = None
