"""Token cleaner: deletes bootstrap tokens that have expired.

Unlike in Kubernetes an expired token stays for a while (`expired_token_retention_seconds`): the API server can then
tell who still shows it that it has expired, which is what a person at a machine that will not join wants to know.
"""

import logging

from controlplane import clock
from controlplane.client.resources import SECRETS
from controlplane.controllers import bootstraptokens, meta
from controlplane.controllers.reconcile import Context, Controller

log = logging.getLogger(__name__)


class TokenCleaner(Controller):
    """See the module. Keys are Secrets."""

    name = "token-cleaner-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.tokens = self.view(SECRETS, bootstraptokens.NAMESPACE, f"type={bootstraptokens.TYPE}")
        self.tokens.add_handler(added=self.enqueue, updated=lambda old, new: self.enqueue(new))

    async def reconcile(self, key: str) -> float | None:
        secret = self.tokens.get(key)
        if secret is None or meta.is_deleting(secret) or not bootstraptokens.is_token(secret):
            return None
        ends = bootstraptokens.expires(secret)
        if ends is None:
            return None
        left = ends + self.config.expired_token_retention_seconds - clock.wall_time()
        if left > 0:
            return left
        log.info("expired token=%s", meta.name(secret).removeprefix(bootstraptokens.PREFIX))
        await self.writer.delete(SECRETS, secret)
        return None
