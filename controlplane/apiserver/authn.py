"""Authentication: who a request is from. Certificate first, then bearer token, else anonymous.

A client certificate was verified by TLS already. A service-account token is verified by signature and audience, and
then against the cluster: its ServiceAccount, and the pod it is bound to, must still exist with the same uid.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from controlplane import clock
from controlplane.api import status
from controlplane.apiserver import bootstrap_tokens
from controlplane.apiserver.http import Handler, Request, Response, User
from controlplane.store.cache import WatchCache
from pki.tokens import InvalidToken, Signer

PEER_ADDRESS = "wherry.internal/peer-address"
_REMEMBERED = 4096
_BOOTSTRAP_LENGTH = 23  # no JWT is that short


class Authenticator:
    """`signer` verifies the tokens that it (or an older key) signed."""

    def __init__(self, cache: WatchCache, signer: Signer) -> None:
        self._cache = cache
        self.signer = signer
        self._verified: OrderedDict[tuple[str, tuple[str, ...]], dict[str, Any]] = OrderedDict()

    async def filter(self, request: Request, rest: Handler) -> Response:
        """Set `request.user`. Raises StatusError 401 for credentials that are not good."""
        if request.peer is None:
            header = request.headers.get("Authorization", "")
            if header:
                kind, _, token = header.partition(" ")
                if kind.lower() != "bearer" or not token.strip():
                    raise status.unauthorized()
                request.user = self._bearer(token.strip(), request)
            elif token := _websocket_token(request):
                request.user = self._bearer(token, request)
        elif request.info.resource == "certificatesigningrequests" and request.method == "POST":
            request.user = _from_where(request)
        return await rest(request)

    def _bearer(self, token: str, request: Request) -> User:
        """Raises StatusError 401; of a bootstrap token it says why."""
        if len(token) == _BOOTSTRAP_LENGTH:
            try:
                return bootstrap_tokens.user_of(self._cache, token, request.info)
            except bootstrap_tokens.TokenRefused as refused:
                raise refused.status() from None
        user = self.token(token, (self.signer.issuer,))
        if user is None:
            raise status.unauthorized()
        return user

    def token(self, token: str, audiences: Sequence[str]) -> User | None:
        """The user that `token` stands for, None if it is not good (any more)."""
        if len(token) == _BOOTSTRAP_LENGTH:
            try:
                return bootstrap_tokens.user_of(self._cache, token)
            except bootstrap_tokens.TokenRefused:
                return None
        if not token.isascii():
            return None
        now = clock.wall_time()
        key = (token, tuple(audiences))
        claims = self._verified.get(key)
        if claims is None:
            try:
                claims = self.signer.verify(token, audiences, now)
            except InvalidToken:
                return None
            self._verified[key] = claims
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        if not claims.get("nbf", 0) - 60 <= now < claims["exp"]:
            return None
        private = claims.get("kubernetes.io", {})
        namespace, account = private.get("namespace", ""), private.get("serviceaccount", {})
        if not self._exists("serviceaccounts", namespace, account):
            return None
        pod, secret, node = private.get("pod"), private.get("secret"), private.get("node")
        if pod and not self._exists("pods", namespace, pod):
            return None
        if secret and not self._exists("secrets", namespace, secret):
            return None
        if node and not pod and not self._exists("nodes", "", node):  # beside a pod it only tells where that runs
            return None
        extra: dict[str, tuple[str, ...]] = {
            "authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti')}",)
        }
        if pod:
            extra["authentication.kubernetes.io/pod-name"] = (pod["name"],)
            extra["authentication.kubernetes.io/pod-uid"] = (pod["uid"],)
        if node:
            extra["authentication.kubernetes.io/node-name"] = (node["name"],)
            extra["authentication.kubernetes.io/node-uid"] = (node["uid"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups, account.get("uid", ""), extra)

    def _exists(self, plural: str, namespace: str, reference: dict[str, str]) -> bool:
        scope = f"{namespace}/" if namespace else ""
        cached = self._cache.get(f"core/{plural}/{scope}{reference.get('name')}")
        return cached is not None and cached.object["metadata"]["uid"] == reference.get("uid")


def _from_where(request: Request) -> User:
    """Who asks for a certificate, with the address that the request came from: what signers may trust a node's claim to
    an address by (controllers.servingnames)."""
    user, raw = request.user, request.transport_request
    peer = raw.transport.get_extra_info("peername") if raw is not None and raw.transport is not None else None
    return replace(user, extra={**user.extra, PEER_ADDRESS: (str(peer[0]),)}) if peer else user


def _websocket_token(request: Request) -> str:
    """A browser cannot set headers on a WebSocket: the token comes as a subprotocol (as Kubernetes has it)."""
    for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        name = protocol.strip()
        if name.startswith("base64url.bearer.authorization.k8s.io."):
            import base64

            text = name.rpartition(".")[2]
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode(errors="replace")
            except ValueError:
                raise status.unauthorized() from None
    return ""
