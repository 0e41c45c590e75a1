"""Certificate signer: approved CertificateSigningRequests get their certificate from the cluster's CA.

The only part of the cluster that reads the CA's key; everybody else, the control plane's own daemons included, asks by
a request. A request that breaks its signer's rules (csr.py) fails for good. One that a machine made with a single-use
bootstrap token is signed only after the token has been taken for it (bootstraptokens.py). It approves nothing.
"""

import base64
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controlplane import clock
from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS
from controlplane.controllers import bootstraptokens, csr, meta
from controlplane.controllers.reconcile import Context, Controller
from pki.authority import Authority
from pki.keys import load_key
from pki.requests import NotARequest

log = logging.getLogger(__name__)
SIGNERS = frozenset((csr.CLIENT, csr.KUBELET_CLIENT, csr.KUBELET_SERVING, csr.LEGACY, csr.APISERVER_SERVING))
_SHORTEST_S = 600
_RETRY_S = 15.0


def due(obj: meta.Object) -> bool:
    """Whether this is ours to sign, now."""
    types = csr.decided(obj)
    return (
        obj["spec"].get("signerName") in SIGNERS
        and "Approved" in types
        and not types & {"Denied", "Failed"}
        and not csr.issued(obj)
        and not meta.is_deleting(obj)
    )


def lifetime(asked_s: int | None, longest_s: float) -> timedelta:
    """How long a certificate lives: as asked, at least ten minutes, at most `longest_s`."""
    return timedelta(seconds=longest_s if asked_s is None else min(max(asked_s, _SHORTEST_S), longest_s))


class CertificateSigner(Controller):
    """See the module. Keys are requests."""

    name = "certificatesigningrequest-signing-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.watch(CERTIFICATESIGNINGREQUESTS)
        self._authority: tuple[tuple[int, ...], Authority] | None = None

    async def start(self) -> None:
        if not self.config.cluster_signing_key_file:
            log.warning("signing=off reason=no_key setting=cluster_signing_key_file")

    async def reconcile(self, key: str) -> float | None:
        obj = self.requests.get(key)
        if obj is None or not due(obj) or not self.config.cluster_signing_key_file:
            return None
        try:
            read = csr.read(obj)
        except NotARequest as error:
            await self._fail(obj, "SigningError", f"unable to parse the request: {error}")
            return None
        try:
            authority = self.authority()
        except (OSError, ValueError) as error:
            log.error("not signed request=%s retry_in_s=%.0f error=%s", key, _RETRY_S, error)
            return _RETRY_S
        if reason := csr.breach(read.signer, read.request, read.usages):
            await self._fail(obj, "SignerValidationFailure", reason)
            return None
        if read.username.startswith(csr.BOOTSTRAP_PREFIX):
            identifier, wanted = read.username.removeprefix(csr.BOOTSTRAP_PREFIX), read.request.common_name
            if refusal := await bootstraptokens.take(self.client, identifier, f"{read.name}/{read.uid}", wanted):
                await self._fail(obj, "BootstrapTokenUsed", refusal)
                return None
        certificate = authority.sign(
            read.request.public_key, read.request.subject, datetime.fromtimestamp(clock.wall_time(), UTC),
            usages=read.usages, alternatives=read.request.alternatives,
            lifetime=lifetime(obj["spec"].get("expirationSeconds"), self.config.cluster_signing_duration_seconds),
        )  # fmt: skip
        body = {**obj, "status": {**meta.status(obj), "certificate": base64.b64encode(certificate).decode()}}
        await self.writer.update(CERTIFICATESIGNINGREQUESTS, body, "status")
        log.info("signed request=%s signer=%s subject=%s for=%s", key, read.signer, read.request.common_name,
                 read.username)  # fmt: skip
        return None

    def authority(self) -> Authority:
        """The CA; read again when its files have changed. Raises OSError, ValueError."""
        certificate, key = self.config.cluster_signing_cert_file, self.config.cluster_signing_key_file
        stamp = tuple(Path(each).stat().st_mtime_ns for each in (certificate, key))
        if self._authority is None or self._authority[0] != stamp:
            self._authority = stamp, Authority.load(Path(certificate).read_bytes(), load_key(Path(key)))
        return self._authority[1]

    async def _fail(self, obj: meta.Object, reason: str, message: str) -> None:
        log.info("failed request=%s reason=%s message=%s", meta.name(obj), reason, message)
        failed = {"type": "Failed", "status": "True", "reason": reason, "message": message}
        status = {**meta.status(obj), "conditions": [*(meta.status(obj).get("conditions") or ()), failed]}
        await self.writer.update(CERTIFICATESIGNINGREQUESTS, {**obj, "status": status}, "status")
