"""Make what a machine needs to take part: the control plane's files, or a node's.

Idempotent: what exists and belongs to the same CA is kept, so that running it again changes nothing that clients
have learned to trust. It writes files; it starts nothing.
"""

from collections.abc import Sequence
from datetime import datetime

from pki import kubeconfig, profiles
from pki.authority import Authority
from pki.keys import key_pem, load_key, new_key, public_pem, write_secret
from pki.layout import Layout

API_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
)


def authority(layout: Layout, now: datetime) -> Authority:
    """The CA in `layout`, made if there is none."""
    layout.ensure()
    if layout.ca_key.exists() and layout.ca_cert.exists():
        return Authority.load(layout.ca_cert.read_bytes(), load_key(layout.ca_key))
    ca = Authority.create(now)
    write_secret(layout.ca_key, key_pem(ca.key))
    write_secret(layout.ca_cert, ca.pem(), 0o644)
    return ca


def control_plane(layout: Layout, ca: Authority, server: str, names: Sequence[str], now: datetime) -> None:
    """Certificates, the service-account key and kubeconfigs of the control plane. `server`: the API's URL;
    `names`: the machine's own names and addresses, and the API's service IP."""
    layout.ensure()
    for profile in (profiles.APISERVER, profiles.APISERVER_KUBELET_CLIENT):
        if not layout.key(profile.name).exists():
            issued = ca.issue(profile, now, names=(*API_NAMES, *names) if profile.server else ())
            write_secret(layout.cert(profile.name), issued.certificate, 0o644)
            write_secret(layout.key(profile.name), issued.key)
    if not layout.service_account_key.exists():
        key = new_key()
        write_secret(layout.service_account_key, key_pem(key))
        write_secret(layout.pki / "sa.pub", public_pem(key), 0o644)
    for profile in (profiles.ADMIN, profiles.SCHEDULER, profiles.CONTROLLERS):
        path = layout.kubeconfig(profile.name)
        if not path.exists():
            kubeconfig.write(path, server, ca.pem(), profile.common_name, ca.issue(profile, now))


def node(layout: Layout, ca: Authority, server: str, name: str, addresses: Sequence[str], now: datetime) -> None:
    """A node's serving certificate and the kubeconfigs of its agent and proxy."""
    layout.ensure()
    if not layout.ca_cert.exists():
        write_secret(layout.ca_cert, ca.pem(), 0o644)
    profile = profiles.NODEAGENT_SERVER
    if not layout.key(profile.name).exists():
        issued = ca.issue(profile, now, node=name, names=(name, *addresses))
        write_secret(layout.cert(profile.name), issued.certificate, 0o644)
        write_secret(layout.key(profile.name), issued.key)
    for profile in (profiles.NODEAGENT, profiles.NETPROXY):
        path = layout.kubeconfig(profile.name)
        if not path.exists():
            user = profile.common_name.format(node=name)
            kubeconfig.write(path, server, ca.pem(), user, ca.issue(profile, now, node=name))
