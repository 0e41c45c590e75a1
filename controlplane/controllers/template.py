"""The hash that ties pods and ReplicaSets to one version of a pod template (`pod-template-hash`).

Kubernetes hashes Go's memory dump of the template; any hash will do, as long as the same template gives the same text:
ours is over canonical JSON. The hash is only ever used to make names, and a match is decided by comparing templates, so
that an upgrade that changes the hash does not start a roll-out.
"""

import hashlib
from typing import Any

import msgspec

POD_TEMPLATE_HASH = "pod-template-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_encode = msgspec.json.Encoder(order="sorted").encode


def template_hash(template: dict[str, Any], collision_count: int | None = None) -> str:
    """A name-safe hash of `template`; `collision_count` changes it when a name was taken by another template."""
    digest = hashlib.blake2b(_encode(template), digest_size=4)
    if collision_count is not None:
        digest = hashlib.blake2b(digest.digest() + str(collision_count).encode(), digest_size=4)
    number = str(int.from_bytes(digest.digest(), "big"))
    # rand.SafeEncodeString: decimal digits onto Kubernetes' name alphabet, so that no words appear in names.
    return "".join(_ALPHABET[ord(c) % len(_ALPHABET)] for c in number)


def same_template(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two pod templates are equal but for the pod-template-hash label."""
    return a.get("spec") == b.get("spec") and _bare(a.get("metadata") or {}) == _bare(b.get("metadata") or {})


def _bare(metadata: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in (metadata.get("labels") or {}).items() if k != POD_TEMPLATE_HASH}
    rest = {k: v for k, v in metadata.items() if k not in ("labels", "creationTimestamp") and v}
    return {**rest, "labels": kept}
