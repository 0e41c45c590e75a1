"""Kubeconfigs: where the API server is, which CA to trust, which certificate to show.

A person's kubeconfig has everything embedded: one 0600 file is a whole identity. A daemon's names the file that the
daemon itself renews. The document is JSON, which is YAML: kubectl and every client library read it, and nothing of ours
needs a YAML library to write it.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pki.authority import Issued
from pki.files import write_secret


def document(server: str, ca: bytes, user: str, identity: Issued | Path, cluster: str = "wherry") -> bytes:
    """A kubeconfig with one cluster, one user and one context. `server` is a URL, `ca` PEM, `identity` what is embedded
    or the path of a PEM file with certificate and key."""

    def encoded(data: bytes) -> str:
        return b64encode(data).decode()

    if isinstance(identity, Path):
        shown = {"client-certificate": str(identity), "client-key": str(identity)}
    else:
        shown = {
            "client-certificate-data": encoded(identity.certificate),
            "client-key-data": encoded(identity.key),
        }
    context = f"{user}@{cluster}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}],
        "users": [{"name": user, "user": shown}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }
    return json.dumps(config, indent=2).encode() + b"\n"


def public_document(server: str, ca: bytes) -> bytes:
    """A kubeconfig that says only where the API is and whom to trust: what kube-public/cluster-info holds."""
    cluster = {"server": server, "certificate-authority-data": b64encode(ca).decode()}
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}],
              "users": None, "contexts": None, "current-context": "", "preferences": {}}  # fmt: skip
    return json.dumps(config, indent=2).encode() + b"\n"


def write(path: Path, server: str, ca: bytes, user: str, identity: Issued | Path, cluster: str = "wherry") -> None:
    """Write a kubeconfig atomically, 0600."""
    write_secret(path, document(server, ca, user, identity, cluster))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a kubeconfig of ours says. `certificate` is PEM; empty if it only names a file."""

    server: str
    ca: bytes
    certificate: bytes


def read(path: Path) -> Contents:
    """A kubeconfig that `write` wrote. Raises OSError, ValueError (naming the file) for anything else."""
    try:
        config = json.loads(path.read_bytes())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        ca, shown = (b64decode(holder.get(key, "")) for holder, key in (
            (cluster, "certificate-authority-data"), (user, "client-certificate-data")))  # fmt: skip
        return Contents(cluster["server"], ca, shown)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: not a kubeconfig of ours: {error!r}") from error
