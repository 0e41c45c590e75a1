"""Bootstrap tokens: what a machine shows before it has a certificate. Each is a Secret in kube-system.

`abcdef.0123456789abcdef` is the Secret `bootstrap-token-abcdef`, and stands for system:bootstrap:abcdef.
Source: kubernetes.io/docs, "Authenticating with Bootstrap Tokens".
"""

import base64
import hmac
from typing import Any

from controlplane import clock
from controlplane.apiserver.http import User
from controlplane.store.cache import WatchCache
from pki.tokens import InvalidToken, split_bootstrap_token

_TYPE = "bootstrap.kubernetes.io/token"
_GROUP_PREFIX = "system:bootstrappers:"


def user_of(cache: WatchCache, token: str) -> User | None:
    """The user that a bootstrap token stands for; None if it is not one, or not good (any more)."""
    try:
        identifier, secret = split_bootstrap_token(token)
    except InvalidToken:
        return None
    cached = cache.get(f"core/secrets/kube-system/bootstrap-token-{identifier}")
    if cached is None or cached.object.get("type") != _TYPE or "deletionTimestamp" in cached.object["metadata"]:
        return None
    data = _texts(cached.object.get("data") or {})
    if data.get("token-id") != identifier or data.get("usage-bootstrap-authentication") != "true":
        return None
    if not hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode()):
        return None
    try:
        if "expiration" in data and clock.parse_rfc3339(data["expiration"]) <= clock.wall_time():
            return None
    except ValueError:
        return None
    extra = [group for group in data.get("auth-extra-groups", "").split(",") if group.startswith(_GROUP_PREFIX)]
    return User(f"system:bootstrap:{identifier}", ("system:bootstrappers", *extra, "system:authenticated"))


def _texts(data: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
