"""`wherry token`: bootstrap tokens, made, listed and deleted through the API.

A token is a Secret of kube-system, in Kubernetes' own form; `max-uses` is ours (apiserver/bootstrap_tokens.py).
"""

import base64
from dataclasses import dataclass
from typing import Any

from controlplane import clock
from controlplane.client.resources import SECRETS
from controlplane.client.rest import Client
from pki.tokens import new_bootstrap_token

NAMESPACE, PREFIX, TYPE = "kube-system", "bootstrap-token-", "bootstrap.kubernetes.io/token"
GROUP = "system:bootstrappers:wherry:default-node-token"


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret. `state`: good, used or expired."""

    id: str
    state: str
    uses: str
    expires: str
    used_for: str
    description: str


async def create(client: Client, *, ttl_s: float, single: bool, description: str = "") -> str:
    """A new token, for one machine if `single`, for `ttl_s` seconds (0: for ever). Raises StatusError, Unreachable."""
    token = new_bootstrap_token()
    identifier, _, secret = token.partition(".")
    data = {
        "token-id": identifier, "token-secret": secret, "auth-extra-groups": GROUP,
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
    }  # fmt: skip
    if ttl_s:
        data["expiration"] = clock.rfc3339(clock.wall_time() + ttl_s)
    if single:
        data["max-uses"] = "1"
    if description:
        data["description"] = description
    made = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": PREFIX + identifier, "namespace": NAMESPACE},
        "type": TYPE, "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }  # fmt: skip
    await client.create(SECRETS, made)
    return token


async def listing(client: Client) -> list[Token]:
    """All tokens. Raises StatusError, Unreachable."""
    found = await client.list(SECRETS, NAMESPACE, field_selector=f"type={TYPE}")
    return [_token(secret) for secret in found["items"]]


async def delete(client: Client, token: str) -> None:
    """Delete a token by its id (or the whole token). Raises StatusError (404 if there is none), Unreachable."""
    await client.delete(SECRETS, PREFIX + token.partition(".")[0], NAMESPACE)


def _token(secret: dict[str, Any]) -> Token:
    data = {k: base64.b64decode(v).decode(errors="replace") for k, v in (secret.get("data") or {}).items()}
    expires = data.get("expiration", "")
    try:
        expired = bool(expires) and clock.parse_rfc3339(expires) <= clock.wall_time()
    except ValueError:
        expired = True
    state = "used" if "used-by-request" in data else "expired" if expired else "good"
    uses = "1" if data.get("max-uses") == "1" else "unlimited"
    return Token(
        secret["metadata"]["name"].removeprefix(PREFIX), state, uses, expires or "never",
        data.get("used-for", "").removeprefix("system:node:"), data.get("description", ""),
    )  # fmt: skip
