"""Which of the node's user and group ids a pod with `hostUsers: false` gets: 65536 that no other pod of the node has.

What a pod has is written in its own directory (`userns`, in kubelet's form), so that a restarted agent knows it, and is
free again when the directory goes. Nothing else is kept. Design: kubelet's pkg/kubelet/userns.
"""

from __future__ import annotations

import json
import os

from nodeagent.pods.node import NodeFacts
from nodeagent.runtime.interface import RuntimeFailure, UserNamespace

LENGTH = 65536
FIRST = LENGTH  # below it are the node's own users
MOST = 4096  # pods: more than any node has

_FILE = "userns"


def of_pod(node: NodeFacts, uid: str) -> UserNamespace:
    """The pod's range: the one that it has, or one that is free, which is now its own. Raises RuntimeFailure."""
    path = os.path.join(node.pod_directory(uid), _FILE)
    held = _read(path)
    if held is not None:
        return held
    taken = _taken(os.path.join(node.root_directory, "pods"))
    for first in range(FIRST, FIRST + MOST * LENGTH, LENGTH):
        if first not in taken:
            _write(path, first)
            return UserNamespace(first, LENGTH)
    raise RuntimeFailure("no user ids are left for the pod's user namespace", "CreatePodSandboxError")


def _taken(directory: str) -> set[int]:
    uids = os.listdir(directory) if os.path.isdir(directory) else []
    found = (_read(os.path.join(directory, uid, _FILE)) for uid in uids)
    return {held.first for held in found if held is not None}


def _read(path: str) -> UserNamespace | None:
    try:
        with open(path, encoding="utf-8") as file:
            mapping = json.load(file)["uidMappings"][0]
        return UserNamespace(int(mapping["hostId"]), int(mapping["length"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RuntimeFailure(f"user namespace of a pod: {path}: {error}", "CreatePodSandboxError") from error


def _write(path: str, first: int) -> None:
    mapping = [{"containerId": 0, "hostId": first, "length": LENGTH}]
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"uidMappings": mapping, "gidMappings": mapping}, file)
    os.rename(path + ".new", path)
