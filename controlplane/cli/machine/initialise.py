"""`wherry init`: everything a control plane needs on its disk, made with the CA's key. Starts nothing.

Run again it keeps what is good: keys, certificates in their prime, settings added by hand. It makes anew what is
missing, near its end, or lacks a name; the daemons notice changed certificates by themselves.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.cli.machine import settings
from pki import owners, provision
from pki.authority import pin
from pki.layout import DEFAULT, Layout


@dataclass(frozen=True, slots=True)
class Plan:
    """What kind of control plane. `address`: where other machines reach it; `names`: further names and addresses for
    the API server's certificate."""

    address: str
    node_name: str
    port: int = 6443
    service_cidr: str = ""
    cluster_cidr: str = ""
    names: Sequence[str] = ()

    @property
    def server(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Done:
    """`changes`: a line each, empty when all was as it should be. `pin`: how joining machines recognise the CA."""

    changes: list[str]
    pin: str
    server: str


def initialise(plan: Plan, layout: Layout, now: datetime) -> Done:
    """Raises ValueError for what cannot be, OSError for files that cannot be written."""
    from controlplane.apiserver.config import Config as ApiServer
    from controlplane.controllers.config import Config as Controllers
    from controlplane.scheduler.config import Config as Scheduler

    api = ApiServer(plan.address)
    services = ipaddress.ip_network(plan.service_cidr or api.service_cluster_ip_range)
    made = [] if layout.ca_key.exists() else [f"{layout.ca_key}: made"]
    ca = provision.authority(layout, now)
    names = (plan.address, plan.node_name, str(services[1]), *plan.names)
    changes = made + provision.control_plane(layout, ca, plan.server, names, now)
    serving, kubelet = str(layout.identity("apiserver")), str(layout.identity("apiserver-kubelet-client"))
    changes += settings.write(
        layout.config("apiserver"), ApiServer, "controlplane.apiserver",
        advertise_address=plan.address, secure_port=plan.port, service_cluster_ip_range=str(services),
        **_elsewhere(layout, store=f"sqlite://{layout.store}", tls_cert_file=serving, tls_private_key_file=serving,
                     client_ca_file=str(layout.ca_cert), kubelet_certificate_authority=str(layout.ca_cert),
                     service_account_signing_key_file=str(layout.service_account_key),
                     kubelet_client_certificate=kubelet, kubelet_client_key=kubelet),
    )  # fmt: skip
    changes += settings.write(
        layout.config("scheduler"), Scheduler, "controlplane.scheduler", leader_elect_identity=plan.node_name,
        **_elsewhere(layout, kubeconfig=str(layout.kubeconfig("scheduler"))),
    )  # fmt: skip
    changes += settings.write(
        layout.config("controllers"), Controllers, "controlplane.controllers",
        leader_elect_identity=plan.node_name, cluster_signing_key_file=str(layout.ca_key),
        **({"cluster_cidr": plan.cluster_cidr} if plan.cluster_cidr else {}),
        **_elsewhere(layout, kubeconfig=str(layout.kubeconfig("controllers")), root_ca_file=str(layout.ca_cert),
                     cluster_signing_cert_file=str(layout.ca_cert)),
    )  # fmt: skip
    changes += owners.apply(layout)
    return Done(changes, pin(ca.certificate), plan.server)


def _elsewhere(layout: Layout, **paths: str) -> dict[str, str]:
    """Paths need saying only where they are not the usual ones."""
    return {} if layout == DEFAULT else paths
