"""Who a container runs as: the numbers behind `runAsUser`, an image's `USER` and the image's own /etc/passwd.

Names are looked up in the image's layers, topmost first, with every path resolved inside the layer (openat2,
RESOLVE_IN_ROOT): an image's symbolic links cannot make us read the node's files. It changes nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from nodeagent.linux.syscalls import KernelError, call
from nodeagent.runtime.interface import ContainerUser, ImageConfig, RuntimeFailure, SecurityContext

_RESOLVE_IN_ROOT = 0x10
_LIMIT = 4 << 20  # bytes of a passwd file that anybody could mean


@dataclass(frozen=True, slots=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def shown(self) -> ContainerUser:
        """As the container's status says it: the primary group is among the supplementary ones, as with runc."""
        return ContainerUser(self.uid, self.gid, self.groups)


def resolve(security: SecurityContext, image: ImageConfig, layers: Sequence[str]) -> Identity:
    """The identity for a container of this image. Raises RuntimeFailure for a name that the image does not know."""
    user, _, group = image.user.partition(":")
    if security.run_as_username:
        user, group = security.run_as_username, ""
    if security.run_as_user is not None:
        user, group = str(security.run_as_user), ""
    if (user in ("", "0", "root")) and not group and security.run_as_group is None and user != "root":
        home, names = "/root", ["root"]  # the common case needs no file
        entry: tuple[str, int, int, str] | None = ("root", 0, 0, home)
        if _layer_file(layers, "etc/passwd"):
            entry = _passwd(layers, "0") or entry
    else:
        entry = _passwd(layers, user or "0")
        names = []
    if entry is None and not (user or "0").isdigit():
        raise RuntimeFailure(f"unable to find user {user}: no matching entries in passwd file", "CreateContainerError")
    name, uid, gid, home = entry or ("", int(user or "0"), 0, "/")
    names = [name] if name else []
    if group:
        gid = int(group) if group.isdigit() else _group(layers, group)
    if security.run_as_group is not None:
        gid = security.run_as_group
    groups = {gid, *security.supplemental_groups}
    if not security.strict_groups:
        groups.update(_memberships(layers, names))
    return Identity(uid, gid, tuple(sorted(groups)), home or "/")


def _passwd(layers: Sequence[str], user: str) -> tuple[str, int, int, str] | None:
    """(name, uid, gid, home) of `user`, a name or a number."""
    for line in _layer_file(layers, "etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and user in (fields[0], fields[2]) and fields[2].isdigit() and fields[3].isdigit():
            return fields[0], int(fields[2]), int(fields[3]), fields[5]
    return None


def _groups(layers: Sequence[str]) -> list[tuple[str, int, list[str]]]:
    found = []
    for line in _layer_file(layers, "etc/group").splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdigit():
            found.append((fields[0], int(fields[2]), fields[3].split(",")))
    return found


def _group(layers: Sequence[str], name: str) -> int:
    for group, gid, _ in _groups(layers):
        if group == name:
            return gid
    raise RuntimeFailure(f"unable to find group {name}: no matching entries in group file", "CreateContainerError")


def _memberships(layers: Sequence[str], names: Sequence[str]) -> list[int]:
    return [gid for _, gid, members in _groups(layers) if set(names) & set(members)] if names else []


def _layer_file(layers: Sequence[str], path: str) -> str:
    """The text of `path` in the topmost layer that has it; empty if none has, or it is removed there."""
    for layer in layers:
        how = struct.pack("<QQQ", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _RESOLVE_IN_ROOT)
        try:
            root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fd = call("openat2", root, path.encode() + b"\0", how, len(how), path=path)
        except KernelError:
            continue
        finally:
            os.close(root)
        with open(fd, encoding="utf-8", errors="replace") as file:
            mode = os.fstat(fd).st_mode
            return file.read(_LIMIT) if mode & 0o170000 == 0o100000 else ""
    return ""
