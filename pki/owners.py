"""Which user owns which file: one table, so that each daemon can read its own secrets and nobody else's.

Under systemd the control plane's daemons run as users of their own. The CA's key belongs to the controllers alone: they
sign, everybody else asks. A user that does not exist on this machine (a lab, a plain node) leaves the file with root.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from pki.layout import Layout

USERS = {"apiserver": "wherry-apiserver", "scheduler": "wherry-scheduler", "controllers": "wherry-controllers"}
"""Component -> the system user that runs it; others run as root."""


def table(layout: Layout) -> Iterator[tuple[Path, str, int]]:
    """(path, component or "" for root, mode). Later rows are below earlier ones."""
    for directory in (layout.etc, layout.pki, layout.data, layout.identities):
        yield directory, "", 0o755
    yield layout.ca_cert, "", 0o644
    yield layout.ca_key, "controllers", 0o600
    yield layout.service_account_key, "apiserver", 0o600
    yield layout.service_account_public_key, "", 0o644
    yield layout.kubeconfig("admin"), "", 0o600
    for component in ("apiserver", "scheduler", "controllers", "nodeagent", "netproxy"):
        yield layout.config(component), "", 0o644
        yield layout.kubeconfig(component), "", 0o644  # names the identity, holds none
        yield layout.identities / component, component, 0o700
        for path in _files(layout.identities / component):
            yield path, component, 0o600
    yield layout.store.parent, "apiserver", 0o700
    for path in _files(layout.store.parent):
        yield path, "apiserver", 0o600


def apply(layout: Layout) -> list[str]:
    """Make the files that exist as the table says; returns what changed. Raises OSError unless run as root, and for a
    symbolic link (a directory's owner might have put it there to be given another file)."""
    changes = []
    for path, component, mode in table(layout):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            there = os.fstat(descriptor)
            uid, gid, user = owner(component)
            if (there.st_uid, there.st_gid) != (uid, gid):
                os.fchown(descriptor, uid, gid)
                changes.append(f"{path}: belongs to {user}")
            if stat.S_IMODE(there.st_mode) != mode:
                os.fchmod(descriptor, mode)
                changes.append(f"{path}: mode {mode:04o}")
        finally:
            os.close(descriptor)
    return changes


def owner(component: str) -> tuple[int, int, str]:
    """(uid, gid, name) of the user that `component` runs as on this machine."""
    try:
        found = pwd.getpwnam(USERS[component])
    except KeyError:
        return 0, 0, "root"
    return found.pw_uid, found.pw_gid, found.pw_name


def _files(directory: Path) -> Iterator[Path]:
    yield from sorted(directory.iterdir()) if directory.is_dir() else ()
