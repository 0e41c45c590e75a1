"""Bootstrap tokens: what a machine shows before it has a certificate. Each is a Secret in kube-system.

`abcdef.0123456789abcdef` is the Secret `bootstrap-token-abcdef`, and stands for system:bootstrap:abcdef. Source:
kubernetes.io/docs, "Authenticating with Bootstrap Tokens". Ours is the single use: with `max-uses: 1`, a token that a
certificate was signed for (the signer wrote `used-by-request`; controlplane.controllers.bootstraptokens) stands for
nobody any more. One thing it still opens, that very request: a machine that crashed before it had saved its
certificate, and shows the same token again, gets it; nobody else can use it, having no key for it.

Who shows the right secret of a token that is not good any more is told why; everybody else only that it is unknown.
"""

import base64
import hmac
from typing import Any

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import WatchCache
from pki.tokens import InvalidToken, split_bootstrap_token

_TYPE = "bootstrap.kubernetes.io/token"
_GROUP_PREFIX = "system:bootstrappers:"


class TokenRefused(Exception):
    """A token that stands for nobody. `reason` is Unknown, Expired or AlreadyUsed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def status(self) -> StatusError:
        """401, with the reason as a cause for programs."""
        details = {"causes": [{"reason": f"BootstrapToken{self.reason}", "message": str(self)}]}
        return StatusError(401, "Unauthorized", f"Unauthorized: {self}", details)


def user_of(cache: WatchCache, token: str, request: RequestInfo | None = None) -> User:
    """The user that a bootstrap token stands for, when used for `request`. Raises TokenRefused."""
    unknown = TokenRefused("Unknown", "the bootstrap token is unknown")
    try:
        identifier, secret = split_bootstrap_token(token)
    except InvalidToken:
        raise unknown from None
    cached = cache.get(f"core/secrets/kube-system/bootstrap-token-{identifier}")
    if cached is None or cached.object.get("type") != _TYPE or "deletionTimestamp" in cached.object["metadata"]:
        raise unknown
    data = _texts(cached.object.get("data") or {})
    if data.get("token-id") != identifier or data.get("usage-bootstrap-authentication") != "true":
        raise unknown
    if not hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode()):
        raise unknown
    _check_expiration(identifier, data)
    if used_by := data.get("used-by-request"):
        name = used_by.partition("/")[0]
        if request is None or not _reads(request, name):
            machine = data.get("used-for", "another machine")
            raise TokenRefused(
                "AlreadyUsed",
                f"the bootstrap token {identifier} was already used for {machine} at {data.get('used-at')}",
            )
    extra = [group for group in data.get("auth-extra-groups", "").split(",") if group.startswith(_GROUP_PREFIX)]
    return User(f"system:bootstrap:{identifier}", ("system:bootstrappers", *extra, "system:authenticated"))


def _check_expiration(identifier: str, data: dict[str, str]) -> None:
    if "expiration" not in data:
        return
    try:
        ends = clock.parse_rfc3339(data["expiration"])
    except ValueError:
        ends = 0.0
    if ends <= clock.wall_time():
        raise TokenRefused("Expired", f"the bootstrap token {identifier} expired at {data['expiration']}")


def _reads(request: RequestInfo, name: str) -> bool:
    return (request.verb, request.resource, request.subresource, request.name) == (
        "get", "certificatesigningrequests", "", name,
    )  # fmt: skip


def _texts(data: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
