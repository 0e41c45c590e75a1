"""Bootstrap tokens as the controllers see them: Secrets of kube-system, when they expire, and who used one up.

A token with `max-uses: 1` (ours; kubeadm's have no such entry and may be used until they expire) lets one machine in.
Whoever signs that machine's request first takes the token: one update of its Secret, guarded by the resourceVersion, so
of two machines with the same token exactly one gets a certificate. The Secret then names the request; a signer that
died in between finds its own name there and goes on. The API server (bootstrap_tokens.py there) reads the same entries.
"""

import base64
from typing import Any

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import SECRETS
from controlplane.client.rest import Client
from controlplane.controllers import meta

NAMESPACE = "kube-system"
PREFIX = "bootstrap-token-"
TYPE = "bootstrap.kubernetes.io/token"
MAX_USES, USED_BY, USED_AT, USED_FOR = "max-uses", "used-by-request", "used-at", "used-for"


def entries(secret: meta.Object) -> dict[str, str]:
    """The Secret's data as text."""
    data = secret.get("data") or {}
    return {key: base64.b64decode(value or "").decode(errors="replace") for key, value in data.items()}


def expires(secret: meta.Object) -> float | None:
    """Seconds since the epoch, None if never. An expiration that cannot be read has passed, as in Kubernetes."""
    text = entries(secret).get("expiration")
    if not text:
        return None
    try:
        return clock.parse_rfc3339(text)
    except ValueError:
        return 0.0


def is_token(secret: meta.Object) -> bool:
    return secret.get("type") == TYPE and meta.namespace(secret) == NAMESPACE


async def take(client: Client, identifier: str, request: str, subject: str) -> str:
    """Use the token `identifier` up for the CertificateSigningRequest `request` (`name/uid`), which asks for `subject`.
    Returns why that cannot be, empty when it is done (or need not be). Raises StatusError, among them 409 when another
    was quicker: ask again."""
    try:
        secret = await client.get(SECRETS, PREFIX + identifier, NAMESPACE)
    except StatusError as error:
        if error.code != 404:
            raise
        return f"the bootstrap token {identifier} was deleted before its request was signed"
    found = entries(secret)
    if found.get(MAX_USES) != "1" or found.get(USED_BY) == request:
        return ""
    if found.get(USED_BY):
        return f"the bootstrap token {identifier} was already used for {found.get(USED_FOR, 'another machine')}"
    mark: dict[str, Any] = {USED_BY: request, USED_FOR: subject, USED_AT: clock.rfc3339()}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in mark.items()}
    await client.update(SECRETS, {**secret, "data": {**secret["data"], **data}})
    return ""
