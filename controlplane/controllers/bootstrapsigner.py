"""Bootstrap signer: keeps kube-public/cluster-info, which tells a machine that wants to join where and whom to trust.

The ConfigMap is public: a kubeconfig without a user, and for each bootstrap token with `usage-bootstrap-signing` a
detached JWS over it, made with the token's secret (`jws-kubeconfig-<id>`), so that who knows a token can check it, as
`kubeadm join` does. `wherry join` goes by the CA's pin instead, which also says who *may not* have written this.
Kubernetes' controller only signs what kubeadm wrote; ours writes it too, since there is no kubeadm here.
"""

import asyncio
import json
import logging
from pathlib import Path

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client import credentials
from controlplane.client.errors import ConfigurationError
from controlplane.client.informer import Informer
from controlplane.client.resources import CONFIGMAPS, SECRETS
from controlplane.controllers import bootstraptokens, meta
from controlplane.controllers.config import Config
from controlplane.controllers.reconcile import Context, Controller
from pki import kubeconfig
from pki.tokens import sign_detached

log = logging.getLogger(__name__)
NAMESPACE, NAME = "kube-public", "cluster-info"
_RETRY_S = 60.0
_SIGNATURE = "jws-kubeconfig-"


def signatures(content: str, secrets: list[meta.Object], now: float) -> tuple[dict[str, str], float | None]:
    """The entries with the signatures of all good tokens, and when (seconds since the epoch) the next one expires."""
    found, ends = {}, []
    for secret in secrets:
        token = bootstraptokens.entries(secret)
        identifier, expires = token.get("token-id", ""), bootstraptokens.expires(secret)
        if (
            meta.name(secret) != bootstraptokens.PREFIX + identifier
            or not bootstraptokens.is_token(secret)
            or meta.is_deleting(secret)
            or token.get("usage-bootstrap-signing") != "true"
            or not token.get("token-secret")
            or bootstraptokens.USED_BY in token
            or (expires is not None and expires <= now)
        ):
            continue
        found[_SIGNATURE + identifier] = sign_detached(content.encode(), identifier, token["token-secret"])
        if expires is not None:
            ends.append(expires)
    return found, min(ends, default=None)


def contents(config: Config) -> dict[str, str]:
    """What joining machines are told; empty without a CA. Raises OSError, ConfigurationError."""
    if not config.root_ca_file:
        return {}
    server = config.cluster_info_server or credentials.from_kubeconfig(config.kubeconfig).server
    settings = json.dumps({"clusterCIDR": config.cluster_cidr})
    public = kubeconfig.public_document(server, Path(config.root_ca_file).read_bytes())
    return {"kubeconfig": public.decode(), "wherry": settings}


class BootstrapSigner(Controller):
    """See the module. The one key is the ConfigMap's."""

    name = "bootstrap-signer-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.tokens = self.view(SECRETS, bootstraptokens.NAMESPACE, f"type={bootstraptokens.TYPE}")
        # Not the shared informer of ConfigMaps, which shows another name only.
        self.published = Informer(self.client, CONFIGMAPS, NAMESPACE, field_selector=f"metadata.name={NAME}")
        self.tokens.add_handler(added=self._look, updated=lambda old, new: self._look(new), deleted=self._look)
        self.published.add_handler(self._look, lambda old, new: self._look(new), self._look)

    def _look(self, _: meta.Object) -> None:
        self.queue.add(NAME)

    def reload(self) -> None:
        """Read the CA again."""
        self.queue.add(NAME)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.published.run())
            await self.published.synced()
            self.queue.add(NAME)
            await super().run()

    async def reconcile(self, key: str) -> float | None:
        try:
            wanted = contents(self.config)
        except (OSError, ConfigurationError) as error:
            log.warning("published=%s/%s ok=false error=%s", NAMESPACE, NAME, error)
            return _RETRY_S
        if not wanted:
            return None
        now = clock.wall_time()
        signed, ends = signatures(wanted["kubeconfig"], self.tokens.items(), now)
        wanted |= signed
        current = self.published.get(f"{NAMESPACE}/{NAME}")
        if current is None:
            metadata = {"name": NAME, "namespace": NAMESPACE}
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": wanted}
            try:
                await self.writer.create(CONFIGMAPS, made)
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise
        else:
            others = {k: v for k, v in (current.get("data") or {}).items() if not k.startswith(_SIGNATURE)}
            if (merged := {**others, **wanted}) != current.get("data"):
                await self.writer.update(CONFIGMAPS, {**current, "data": merged})
        return max(ends - now, 0.0) + 0.1 if ends is not None else None
