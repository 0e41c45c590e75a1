"""Certificate request cleaner: deletes requests that nobody waits for any more.

Approved or failed or denied ones after an hour, those that nobody decided after a day, and those whose certificate has
expired. Source: Kubernetes' csrcleaner controller; it looks at all of them each hour, ours has a timer each.
"""

import base64
import logging
from collections.abc import Sequence

from cryptography import x509

from controlplane import clock
from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS
from controlplane.controllers import csr, meta
from controlplane.controllers.reconcile import Context, Controller

log = logging.getLogger(__name__)
DECIDED_S, PENDING_S = 3600.0, 86_400.0


def ends(obj: meta.Object) -> float:
    """Seconds since the epoch at which `obj` shall be deleted."""
    types = csr.decided(obj)
    conditions = meta.status(obj).get("conditions") or ()
    if not types:
        return clock.parse_rfc3339(obj["metadata"]["creationTimestamp"]) + PENDING_S
    if "Approved" in types and not types & {"Denied", "Failed"} and not csr.issued(obj):
        return _latest(obj, conditions, "Approved") + PENDING_S  # its signer may be away for a while
    after = _latest(obj, conditions, *types) + DECIDED_S
    return min(after, _certificate_ends(obj)) if csr.issued(obj) else after


def _latest(obj: meta.Object, conditions: Sequence[meta.Object], *types: str) -> float:
    stamps = [c.get("lastUpdateTime") or c.get("lastTransitionTime") for c in conditions if c["type"] in types]
    return max(clock.parse_rfc3339(stamp or obj["metadata"]["creationTimestamp"]) for stamp in stamps)


def _certificate_ends(obj: meta.Object) -> float:
    try:
        pem = base64.b64decode(meta.status(obj)["certificate"])
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:
        return float("inf")


class CertificateRequestCleaner(Controller):
    """See the module. Keys are requests."""

    name = "certificatesigningrequest-cleaner-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.watch(CERTIFICATESIGNINGREQUESTS)

    async def reconcile(self, key: str) -> float | None:
        obj = self.requests.get(key)
        if obj is None or meta.is_deleting(obj):
            return None
        left = ends(obj) - clock.wall_time()
        if left > 0:
            return left
        log.info("delete request=%s", key)
        await self.writer.delete(CERTIFICATESIGNINGREQUESTS, obj)
        return None
