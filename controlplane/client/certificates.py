"""Certificates by request: ask one of the cluster's signers for one, and again before it ends.

`request_certificate` sends a CertificateSigningRequest and waits until somebody has approved and signed it. Its name
is made of what it asks for (the key among it), so asking again after a crash finds the same request. `Rotation` keeps
a file with certificate and key fresh, as kubelet does: at 70 to 90 % of the certificate's life a new key is made, a
certificate for it requested, and the file replaced at once. The key never leaves this machine. Who uses the file reads
it again: the HTTPS transport by itself (credentials.py), a server by the callback.

`cryptography` is imported where it is needed, which is once a year: it costs 9 MB a process.
"""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client import credentials
from controlplane.client.backoff import Backoff
from controlplane.client.errors import Unreachable
from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS
from controlplane.client.rest import Client
from pki.files import write_secret
from pki.glance import Glance, glance

if TYPE_CHECKING:
    from pki.keys import PrivateKey

log = logging.getLogger(__name__)

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_EARLIEST, _LATEST = 0.7, 0.9
_LONGEST_SLEEP_S = 3600.0  # wall time may jump: a machine that was suspended looks again soon
_PATIENCE_S = 900.0


class CertificateRefused(Exception):
    """The request was denied, or its signer failed for good. `reason` and message are the condition's."""

    def __init__(self, kind: str, reason: str, message: str) -> None:
        super().__init__(f"{kind.lower()}: {message or reason}")
        self.kind, self.reason = kind, reason


class CertificateNotIssued(Exception):
    """Nobody has decided about the request `name`, or signed it, in time."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the certificate request {name} is still {state}")
        self.name, self.state = name, state


_EXPECTED = (StatusError, Unreachable, CertificateRefused, CertificateNotIssued, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate is asked for. `usages` in Kubernetes' words; `names`: DNS names and IP addresses."""

    signer: str
    common_name: str
    organizations: tuple[str, ...] = ()
    usages: tuple[str, ...] = ("digital signature", "client auth")
    names: tuple[str, ...] = ()


async def request_certificate(
    client: Client, wanted: Wanted, key: "PrivateKey", *, deadline_s: float, lifetime_s: int = 0
) -> bytes:
    """The certificate (PEM) for `key` as soon as it is signed. `lifetime_s`: 0 leaves it to the signer. Raises
    CertificateRefused, CertificateNotIssued after `deadline_s`, StatusError for what will not pass, Unreachable."""
    name = request_name(wanted, key)
    state = "unsent"
    trouble: StatusError | Unreachable | None = None
    try:
        async with asyncio.timeout(deadline_s):
            pause = Backoff(0.05, 2.0)
            while True:
                try:
                    found = await _find_or_create(client, name, wanted, key, lifetime_s)
                    if pem := _outcome(found):
                        return pem
                    state = "waiting to be " + ("signed" if _conditions(found) else "approved")
                except StatusError as error:
                    if error.code < 500 and error.code not in (409, 429):
                        raise
                    trouble = error
                except Unreachable as error:
                    trouble = error
                await asyncio.sleep(pause.next())
    except TimeoutError:
        if state == "unsent" and trouble is not None:
            raise trouble from None
        raise CertificateNotIssued(name, state) from None


def request_name(wanted: Wanted, key: "PrivateKey") -> str:
    """The same for the same key and wishes, and for no others."""
    from cryptography.hazmat.primitives import serialization

    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "csr-" + hashlib.sha256(public + repr(wanted).encode()).hexdigest()[:40]


async def _find_or_create(
    client: Client, name: str, wanted: Wanted, key: "PrivateKey", lifetime_s: int
) -> dict[str, Any]:
    try:
        return await client.get(CERTIFICATESIGNINGREQUESTS, name)
    except StatusError as error:
        if error.code != 404:
            raise
    from pki import requests

    pem = requests.make(key, requests.name(wanted.common_name, wanted.organizations), wanted.names)
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": wanted.signer,
        "usages": list(wanted.usages),
        **({"expirationSeconds": lifetime_s} if lifetime_s else {}),
    }
    kind = CERTIFICATESIGNINGREQUESTS.kind
    made = {"apiVersion": "certificates.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return await client.create(CERTIFICATESIGNINGREQUESTS, made)


def _outcome(request: dict[str, Any]) -> bytes:
    """The certificate, empty while there is none. Raises CertificateRefused."""
    for condition in _conditions(request):
        if condition["type"] in ("Denied", "Failed") and condition.get("status", "True") == "True":
            raise CertificateRefused(condition["type"], condition.get("reason", ""), condition.get("message", ""))
    return base64.b64decode((request.get("status") or {}).get("certificate") or "")


def _conditions(request: dict[str, Any]) -> list[dict[str, Any]]:
    return (request.get("status") or {}).get("conditions") or []


class Rotation:
    """Keeps the certificate and key in one file fresh until cancelled."""

    def __init__(
        self,
        client: Client,
        path: str | Path,
        wanted: Wanted | None = None,
        *,
        again: Callable[[bytes], Wanted] | None = None,
        renewed: Callable[[], object] = lambda: None,
    ) -> None:
        """`wanted`: what to ask for, also at once when the file is missing or lacks one of its names. Without it,
        `again` tells from the present certificate (PEM) what to ask for; by default the same, as a client. `renewed`
        is called when the file is new."""
        self.path = Path(path)
        self._client, self._wanted, self._renewed = client, wanted, renewed
        self._again = again or _same_again
        self._share = _share()

    async def run(self) -> None:
        backoff = Backoff(2.0, 600.0)
        while True:
            seconds = self._due_in()
            if seconds > 0:
                await asyncio.sleep(min(seconds, _LONGEST_SLEEP_S))
                continue
            try:
                await self.renew()
            except Exception as error:
                left = self._left()
                pause = max(min(backoff.next(), left / 4), 1.0) if left > 0 else backoff.next()
                hint = "" if left > 0 else " it_has_ended=true way_out=join_again"
                known = isinstance(error, _EXPECTED)
                log.warning("certificate_not_renewed path=%s retry_in_s=%.0f error=%s%s", self.path, pause, error, hint,
                            exc_info=None if known else error)  # fmt: skip
                await asyncio.sleep(pause)
            else:
                backoff.reset()

    async def renew(self, deadline_s: float = _PATIENCE_S) -> None:
        """Get a certificate for a new key now, and replace the file. Raises what request_certificate raises."""
        from pki.keys import key_pem, new_key

        wanted = self._wanted or self._again(self.path.read_bytes())
        key = new_key()
        pem = await request_certificate(self._client, wanted, key, deadline_s=deadline_s)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(self.path, pem + key_pem(key))
        self._share = _share()
        log.info("certificate_renewed path=%s subject=%s ends=%s", self.path, wanted.common_name,
                 clock.rfc3339(glance(pem).ends))  # fmt: skip
        self._renewed()

    def _look(self) -> Glance | None:
        try:
            return glance(self.path.read_bytes())
        except (OSError, ValueError):
            return None

    def _due_in(self) -> float:
        """Seconds until the certificate must be renewed; not positive if that is now."""
        found = self._look()
        if found is None or not all(found.has_name(name) for name in (self._wanted.names if self._wanted else ())):
            return 0.0
        return found.begins + (found.ends - found.begins) * self._share - clock.wall_time()

    def _left(self) -> float:
        found = self._look()
        return found.ends - clock.wall_time() if found else 0.0


def client_rotation(client: Client, kubeconfig: str) -> Rotation | None:
    """Keeps the client certificate of `kubeconfig` fresh; None if that does not name one file with certificate and key
    (what is embedded belongs to a person). Raises ConfigurationError."""
    files = credentials.from_kubeconfig(kubeconfig)
    if not files.cert_file or files.cert_file != files.key_file:
        return None
    return Rotation(client, files.cert_file, renewed=client.reload)


@contextlib.asynccontextmanager
async def kept_fresh(*rotations: Rotation | None) -> AsyncIterator[None]:
    """Run `rotations` beside what is done inside."""
    tasks = [asyncio.create_task(each.run(), name=f"rotation of {each.path.name}") for each in rotations if each]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _share() -> float:
    return _EARLIEST + (_LATEST - _EARLIEST) * clock.chance.random()


def _same_again(pem: bytes) -> Wanted:
    """What a client must ask for to get the certificate in `pem` again."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_pem_x509_certificate(pem).subject
    names = tuple(str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    groups = tuple(str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    signer = KUBELET_CLIENT_SIGNER if groups == ("system:nodes",) else CLIENT_SIGNER
    return replace(Wanted(signer, names[0] if names else ""), organizations=groups)
