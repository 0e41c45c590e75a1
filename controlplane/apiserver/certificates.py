"""The API server's own certificates, renewed as everybody else's: by a request to the cluster's signer.

The server asks itself, without a socket, as system:apiserver. So the CA's key stays with the controllers; what the
server needs is that they run at some time in the last third of a certificate's life. Its names stay what they are:
adding one is `wherry init`'s.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from controlplane.apiserver.bootstrap import APISERVER
from controlplane.apiserver.config import Config
from controlplane.apiserver.http import Handler, Request
from controlplane.client.certificates import CLIENT_SIGNER, Rotation, Wanted
from controlplane.client.inprocess import InProcessTransport
from controlplane.client.rest import Client
from pki import profiles

SERVING_SIGNER = "wherry.internal/kube-apiserver-serving"


class OwnCertificates:
    """`serving`, `towards_nodes`: what to call when one of them is new."""

    def __init__(
        self, config: Config, handle: Handler, serving: Callable[[], object], towards_nodes: Callable[[], object]
    ) -> None:
        client = Client(InProcessTransport(handle, _request))
        self._rotations: list[Rotation] = []
        if not config.rotate_certificates:
            return
        if config.tls_cert_file == config.tls_private_key_file:
            self._rotations.append(Rotation(client, config.tls_cert_file, again=_serving_again, renewed=serving))
        file = Path(config.kubelet_client_certificate)
        if config.kubelet_client_certificate == config.kubelet_client_key and file.exists():
            wanted = Wanted(CLIENT_SIGNER, profiles.APISERVER_KUBELET_CLIENT.common_name)
            self._rotations.append(Rotation(client, file, wanted, renewed=towards_nodes))

    def start(self) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(each.run(), name=f"rotation of {each.path.name}") for each in self._rotations]


def _request(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Request:
    return Request(method, path, query, headers, body, peer=APISERVER)


def _serving_again(pem: bytes) -> Wanted:
    """The same names again."""
    from cryptography import x509

    from pki.provision import alternative_names

    names = tuple(sorted(alternative_names(x509.load_pem_x509_certificate(pem))))
    return Wanted(SERVING_SIGNER, profiles.APISERVER.common_name, (), profiles.APISERVER.usages, names)
