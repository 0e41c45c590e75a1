"""Tokens: service-account JWTs (ES256) and bootstrap tokens.

A service-account token names its ServiceAccount, and optionally the pod or node it is bound to; the API server signs
it (TokenRequest) and verifies it. Format: Kubernetes' bound service account tokens. Time comes as an argument.
"""

import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from pki.keys import PrivateKey

_BOOTSTRAP = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class InvalidToken(ValueError):
    """The token is not ours, has expired, or is for another audience. The message never holds the token."""


def key_id(key: PrivateKey) -> str:
    """The `kid` of a signing key: base64url(SHA-256 of its public DER), as Kubernetes computes it."""
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _base64url(hashlib.sha256(der).digest())


class Signer:
    """Issues and verifies tokens with one current key; older keys still verify."""

    def __init__(self, key: PrivateKey, issuer: str, older: Iterable[PrivateKey] = ()) -> None:
        self.issuer = issuer
        self._key, self._kid = key, key_id(key)
        self._verifiers = {key_id(k): k.public_key() for k in (*older, key)}

    def issue(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        audiences: Sequence[str],
        now: float,
        lifetime_s: int,
        token_id: str,
        bound: dict[str, dict[str, str]] | None = None,
    ) -> str:
        """A JWT for ServiceAccount `namespace/name` with `uid`. `bound` adds private claims such as
        {"pod": {"name": …, "uid": …}}. `now` is in seconds since the epoch."""
        start = int(now)
        private: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": uid},
            **(bound or {}),
        }
        claims = {
            "aud": list(audiences),
            "exp": start + lifetime_s,
            "iat": start,
            "iss": self.issuer,
            "jti": token_id,
            "kubernetes.io": private,
            "nbf": start,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid})

    def public_keys(self) -> list[dict[str, str]]:
        """The keys that verify tokens of this issuer, as JSON Web Keys (RFC 7517)."""
        found = []
        for kid, public in self._verifiers.items():
            key: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
            found.append({"use": "sig", "kid": kid, "alg": "ES256", **key})
        return found

    def verify(self, token: str, audiences: Sequence[str], now: float) -> dict[str, Any]:
        """The claims of a genuine, current token for one of `audiences`; raises InvalidToken otherwise."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            public = self._verifiers[str(kid)]
            claims: dict[str, Any] = jwt.decode(
                token,
                public,
                algorithms=["ES256"],
                audience=list(audiences),
                issuer=self.issuer,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "sub"]},
            )
        except KeyError:
            raise InvalidToken("signed with an unknown key") from None
        except jwt.PyJWTError as error:
            raise InvalidToken(str(error)) from None
        if not claims.get("nbf", 0) - 60 <= now < claims["exp"]:
            raise InvalidToken("the token has expired or is not valid yet")
        return claims


def new_bootstrap_token() -> str:
    """`<6 characters id>.<16 characters secret>`, from the operating system's randomness."""
    return (
        "".join(secrets.choice(_ALPHABET) for _ in range(6))
        + "."
        + "".join(secrets.choice(_ALPHABET) for _ in range(16))
    )


def split_bootstrap_token(token: str) -> tuple[str, str]:
    """(id, secret). Raises InvalidToken if `token` has another form."""
    if not _BOOTSTRAP.fullmatch(token):
        raise InvalidToken("a bootstrap token has the form [a-z0-9]{6}.[a-z0-9]{16}")
    identifier, _, secret = token.partition(".")
    return identifier, secret


def sign_detached(content: bytes, identifier: str, secret: str) -> str:
    """A JWS of `content` (HS256, key `secret`, `kid` the token's id) with the content left out: `header..signature`.
    Kubernetes signs kube-public/cluster-info so (RFC 7515, appendix F)."""
    header = _base64url(json.dumps({"alg": "HS256", "kid": identifier}, separators=(",", ":")).encode())
    return f"{header}..{_mac(header, content, secret)}"


def verify_detached(content: bytes, signature: str, identifier: str, secret: str) -> bool:
    """Whether `signature` is one that `sign_detached` makes of these."""
    return hmac.compare_digest(signature.encode(), sign_detached(content, identifier, secret).encode())


def _mac(header: str, content: bytes, secret: str) -> str:
    signed = f"{header}.{_base64url(content)}".encode()
    return _base64url(hmac.new(secret.encode(), signed, hashlib.sha256).digest())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
