"""Kubeconfigs: where the API server is, which CA to trust, which certificate to show.

Everything is embedded, so that one 0600 file is a whole identity. The document is JSON, which is YAML: kubectl and
every client library read it, and nothing of ours needs a YAML library to write it.
"""

import json
from base64 import b64encode
from pathlib import Path

from pki.authority import Issued
from pki.keys import write_secret


def document(server: str, ca: bytes, user: str, identity: Issued, cluster: str = "wherry") -> bytes:
    """A kubeconfig with one cluster, one user and one context. `server` is a URL, `ca` PEM."""

    def encoded(data: bytes) -> str:
        return b64encode(data).decode()

    context = f"{user}@{cluster}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(identity.certificate),
                    "client-key-data": encoded(identity.key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }
    return json.dumps(config, indent=2).encode() + b"\n"


def write(path: Path, server: str, ca: bytes, user: str, identity: Issued, cluster: str = "wherry") -> None:
    """Write a kubeconfig atomically, 0600."""
    write_secret(path, document(server, ca, user, identity, cluster))
