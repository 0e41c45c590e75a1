"""Files that must be whole: written atomically (temporary file, fsync, rename); a crash leaves the old one or the new.

Secrets by default: mode 0600 from the first byte on. It knows nothing of keys, and loads no library.
"""

import contextlib
import os
import tempfile
from pathlib import Path


def write_secret(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write `path` atomically and durably with `mode`; its directory must exist. Root leaves a file that it replaces to
    the file's owner: a daemon that is running never meets one that it cannot read."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                with contextlib.suppress(FileNotFoundError):
                    owner = path.lstat()
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
