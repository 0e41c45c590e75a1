"""Whom to trust, from nothing but an address and a pin.

    connect without verifying ─> kube-public/cluster-info ─> its CA ─ pin fits? ─> connect again, verified by that CA

Whoever sits in between can hand us another CA, but none whose public key has the pinned hash; and the second
connection shows that the server at this address holds a certificate of the pinned CA. The pin is kubeadm's: `sha256:`
and the hex of SHA-256 over the CA's SubjectPublicKeyInfo. (The JWS in cluster-info proves less: whoever has seen the
token can make it.)
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api.status import StatusError
from controlplane.cli.machine.trouble import Trouble
from controlplane.client.backoff import Backoff
from controlplane.client.credentials import Credentials
from controlplane.client.errors import ConfigurationError, Unreachable
from controlplane.client.https import HttpsTransport
from controlplane.client.resources import CONFIGMAPS
from controlplane.client.rest import Client

_PIN = re.compile(r"sha256:[0-9a-f]{64}")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")
_HASH_OPTION = "--discovery-token-ca-cert-hash"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that has proven who it is. `ca` is PEM, `settings` what its nodes should know."""

    server: str
    ca: bytes
    pin: str
    settings: dict[str, Any]


def server_url(address: str) -> str:
    """`HOST:PORT` as an URL. Raises Trouble."""
    found = _ADDRESS.fullmatch(address.removeprefix("https://").rstrip("/"))
    if not found or not 0 < int(found[3]) < 65536:
        raise Trouble(f"{address!r} is no HOST:PORT", "e.g. 10.77.0.11:6443, as wherry token create prints it")
    return f"https://[{found[1]}]:{found[3]}" if found[1] else f"https://{found[2]}:{found[3]}"


def check_pins(pins: Sequence[str]) -> None:
    """Raises Trouble unless each pin has kubeadm's form."""
    for pin in pins:
        if not _PIN.fullmatch(pin.lower()):
            raise Trouble(f"{_HASH_OPTION} {pin!r} has another form", "it is sha256: and 64 hexadecimal digits")


async def discover(server: str, pins: Sequence[str], patience_s: float) -> Cluster:
    """The cluster at `server`, if its CA is pinned by one of `pins`. Raises Trouble."""
    info = await _public(Credentials(server, insecure=True), patience_s)
    ca, pin = _pinned(info, {each.lower() for each in pins}, server)
    verified = await _public(Credentials(server, ca_data=ca), patience_s)
    try:
        settings = json.loads(verified.get("wherry") or "{}")
    except ValueError:
        settings = {}
    return Cluster(server, ca, pin, settings)


async def _public(credentials: Credentials, patience_s: float) -> dict[str, str]:
    """The data of kube-public/cluster-info, asked for by nobody in particular."""
    client = Client(HttpsTransport(credentials, user_agent="wherry-join", connections=1), timeout=5.0)
    pause, trouble = Backoff(0.1, 1.0), Trouble(f"cannot reach {credentials.server}")
    try:
        async with asyncio.timeout(patience_s):
            while True:
                try:
                    found = await client.get(CONFIGMAPS, "cluster-info", "kube-public")
                    return dict(found.get("data") or {})
                except Unreachable as error:
                    if "CERTIFICATE_VERIFY_FAILED" in str(error):
                        raise Trouble(
                            f"the server at {credentials.server} cannot prove that it belongs to the cluster: {error}",
                            "is this address one of the API server's? wherry init --names adds one to its certificate",
                        ) from error
                    trouble = Trouble(f"cannot reach {error}", "is it up? is there a firewall?")
                except StatusError as error:
                    if error.code not in (404, 429) and error.code < 500:
                        raise Trouble(f"{credentials.server} does not tell strangers about itself: {error}") from error
                    trouble = Trouble(
                        f"{credentials.server} says nothing of itself (yet): {error}",
                        "the controllers publish kube-public/cluster-info: do they run?",
                    )
                await asyncio.sleep(pause.next())
    except TimeoutError:
        raise trouble from None
    except ConfigurationError as error:
        raise Trouble(f"the authority of {credentials.server} cannot be used: {error}") from error
    finally:
        await client.close()


def _pinned(info: dict[str, str], pins: set[str], server: str) -> tuple[bytes, str]:
    """The CA certificate (PEM) that one of `pins` fits, and that pin."""
    import base64

    import yaml
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from pki.authority import pin

    try:
        document = yaml.safe_load(info["kubeconfig"])
        pem = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"])
        offered = {pin(each): each.public_bytes(Encoding.PEM) for each in x509.load_pem_x509_certificates(pem)}
    except (ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise Trouble(f"what {server} says of itself cannot be used: {error!r}") from error
    for each, certificate in offered.items():
        if each in pins:
            return certificate, each
    raise Trouble(
        f"wrong hash: the authority of {server} has {' and '.join(offered)}",
        f"{_HASH_OPTION} was mistyped or is another cluster's; or somebody pretends to be this one",
    )
