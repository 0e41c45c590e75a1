"""`wherry join`: this machine becomes a node of a cluster, without any key being copied.

    discover (pin) ─> token good? name free? ─> request as the bootstrap user ─> agent's certificate
                          then, as the node itself:   serving certificate, proxy's certificate ─> settings

Each step leaves one file behind, whole or not at all, and is skipped when its file is good: after a crash at any point
the same command goes on. The agent's key is saved before its certificate is asked for, so that a machine which crashed
in between finds its own request again, even when that used up the token. It starts nothing.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from controlplane.api import names
from controlplane.api.status import StatusError
from controlplane.cli.machine import settings
from controlplane.cli.machine.admission import Admission
from controlplane.cli.machine.discovery import Cluster, check_pins, discover, server_url
from controlplane.cli.machine.trouble import Trouble
from controlplane.client import certificates
from controlplane.client.certificates import CertificateNotIssued, CertificateRefused, Wanted
from controlplane.client.errors import ConfigurationError, Unreachable
from controlplane.client.resources import SERVICES
from controlplane.client.rest import Client, from_kubeconfig
from pki import kubeconfig, owners, profiles, provision
from pki.authority import pin
from pki.files import write_secret
from pki.keys import key_pem, load_key, new_key
from pki.layout import DEFAULT, Layout
from pki.profiles import Profile
from pki.tokens import InvalidToken, split_bootstrap_token

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. `address`: HOST:PORT of the API; `node_ip`: empty takes the one that leads there."""

    address: str
    token: str
    pins: tuple[str, ...]
    node_name: str
    node_ip: str = ""
    proxy_mode: str = ""
    force: bool = False
    patience_s: float = 15.0
    approval_s: float = 300.0


async def join(options: Options, layout: Layout, now: datetime, say: Say) -> bool:
    """Make this machine a node; False if it was that already. Raises Trouble, OSError."""
    server = server_url(options.address)
    check_pins(options.pins)
    try:
        split_bootstrap_token(options.token)
    except InvalidToken as error:
        raise Trouble(
            f"malformed token: {error}", "wherry token create --print-join-command makes a good one"
        ) from None
    if wrong := names.dns1123_subdomain(options.node_name):
        raise Trouble(f"{options.node_name!r} is no name for a node: {wrong[0]}", "choose another with --node-name")
    machine = _Machine(options, layout, now, say)
    if machine.joined():
        return False
    cluster = await discover(server, options.pins, options.patience_s)
    say(f"{server} holds the pinned authority {cluster.pin}")
    await machine.become_node(cluster)
    return True


class _Machine:
    def __init__(self, options: Options, layout: Layout, now: datetime, say: Say) -> None:
        self._options, self._layout, self._now, self._say = options, layout, now, say
        self._user = profiles.NODEAGENT.common_name.format(node=options.node_name)

    def joined(self) -> bool:
        """Whether nothing is left to do. Raises Trouble if this machine belongs elsewhere."""
        layout, options = self._layout, self._options
        way_out = "wherry reset takes it out; --force joins anew"
        if not options.force and layout.ca_cert.exists():
            there = pin(x509.load_pem_x509_certificate(layout.ca_cert.read_bytes()))
            if there not in {each.lower() for each in options.pins}:
                raise Trouble(f"this machine belongs to another cluster ({there})", way_out)
        if options.force:
            return False
        user = _subject(layout.identity(profiles.NODEAGENT.name))
        if user and user != self._user and layout.kubeconfig(profiles.NODEAGENT.name).exists():
            name = user.removeprefix("system:node:")
            raise Trouble(f"this machine has joined already, as node {name}", way_out)
        good = [self._good(each) for each in profiles.NODE]
        return all(good) and layout.config("netproxy").exists()  # the last that is written

    async def become_node(self, cluster: Cluster) -> None:
        layout, options = self._layout, self._options
        layout.ensure()
        if options.force:
            for name in ("nodeagent", "netproxy"):
                layout.kubeconfig(name).unlink(missing_ok=True)
            for each in profiles.NODE:
                layout.identity(each.name).unlink(missing_ok=True)
        self._write(layout.ca_cert, cluster.ca)
        if not self._good(profiles.NODEAGENT):
            await self._be_admitted(cluster)
        self._kubeconfig(cluster, profiles.NODEAGENT, self._user)
        client = from_kubeconfig(str(layout.kubeconfig(profiles.NODEAGENT.name)), "wherry-join", timeout=10.0)
        try:
            await self._as_node(client, cluster)
        except (StatusError, Unreachable, ConfigurationError) as error:
            raise Trouble(
                f"as node {options.node_name}: {error}", "the same command again goes on from here"
            ) from error
        finally:
            await client.close()
        for change in owners.apply(layout) if layout == DEFAULT else ():
            self._say(change)

    async def _be_admitted(self, cluster: Cluster) -> None:
        """The agent's certificate, by the token."""
        path = self._layout.identity(profiles.NODEAGENT.name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        pending = path.with_name("joining.key")
        if not pending.exists():
            write_secret(pending, key_pem(new_key()))
        key = load_key(pending)
        wanted = Wanted(certificates.KUBELET_CLIENT_SIGNER, self._user, ("system:nodes",))
        admission = Admission(cluster, self._options.token, self._options.node_name, self._options.approval_s)
        try:
            pem = await admission.certificate(wanted, key, self._say)
        except CertificateRefused as error:
            pending.unlink()  # the request's name is made of the key: a new attempt needs a new one
            raise self._refused(error) from error
        write_secret(path, pem + key_pem(key))
        pending.unlink()
        self._say(f"{path}: certificate of {self._user}")

    async def _as_node(self, client: Client, cluster: Cluster) -> None:
        """What the node, now that it is one, asks for itself."""
        options = self._options
        address = options.node_ip or await asyncio.to_thread(_address_towards, cluster.server)
        serving = Wanted(
            certificates.KUBELET_SERVING_SIGNER, self._user, ("system:nodes",), ("digital signature", "server auth"),
            (options.node_name, address),
        )  # fmt: skip
        await self._request(client, profiles.NODEAGENT_SERVER, serving)
        proxy = Wanted(certificates.CLIENT_SIGNER, profiles.NETPROXY.common_name)
        await self._request(client, profiles.NETPROXY, proxy)
        self._kubeconfig(cluster, profiles.NETPROXY, profiles.NETPROXY.common_name)
        kubernetes = await client.get(SERVICES, "kubernetes", "default")
        self._settings(cluster, address, kubernetes["spec"]["clusterIP"])

    async def _request(self, client: Client, profile: Profile, wanted: Wanted) -> None:
        path = self._layout.identity(profile.name)
        if self._good(profile, wanted.names):
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        rotation = certificates.Rotation(client, path, wanted)
        try:
            await rotation.renew(self._options.approval_s)
        except CertificateRefused as error:
            raise self._refused(error) from error
        except CertificateNotIssued as error:
            raise Trouble(
                str(error), f"an administrator may say yes: kubectl certificate approve {error.name}; then join again"
            ) from error
        self._say(f"{path}: certificate of {wanted.common_name} for {', '.join(wanted.names) or 'the proxy'}")

    def _settings(self, cluster: Cluster, address: str, service_host: str) -> None:
        from netproxy.server import Config as Proxy
        from nodeagent.config import Config as Agent

        layout, options = self._layout, self._options
        cidr = cluster.settings.get("clusterCIDR")
        shared = {
            "node_name": options.node_name,
            "node_ip": address,
            **({"cluster_cidr": str(cidr)} if isinstance(cidr, str) and cidr else {}),
        }
        agent, proxy = dict(shared), dict(shared)
        if options.proxy_mode:
            proxy["proxy_mode"] = options.proxy_mode
        if layout != DEFAULT:
            serving = str(layout.identity(profiles.NODEAGENT_SERVER.name))
            agent |= {
                "kubeconfig": str(layout.kubeconfig("nodeagent")), "client_ca_file": str(layout.ca_cert),
                "tls_cert_file": serving, "tls_private_key_file": serving,
            }  # fmt: skip
            proxy["kubeconfig"] = str(layout.kubeconfig("netproxy"))
        agent["kubernetes_service_host"] = service_host
        for change in (
            *settings.write(layout.config("nodeagent"), Agent, "nodeagent", **agent),
            *settings.write(layout.config("netproxy"), Proxy, "netproxy", **proxy),
        ):
            self._say(change)

    def _kubeconfig(self, cluster: Cluster, profile: Profile, user: str) -> None:
        identity = self._layout.identity(profile.name)
        self._write(
            self._layout.kubeconfig(profile.name), kubeconfig.document(cluster.server, cluster.ca, user, identity)
        )

    def _write(self, path: Path, content: bytes) -> None:
        if said := provision.write_if_changed(path, content):
            self._say(f"{path}: {said}")

    def _good(self, profile: Profile, wanted: tuple[str, ...] = ()) -> bool:
        """Whether there is a certificate for `profile`, of this cluster, valid, with the wanted names. One near its
        end will do: the daemons renew it."""
        path = self._layout.identity(profile.name)
        if _subject(path) != profile.common_name.format(node=self._options.node_name):
            return False
        pem = path.read_bytes()
        ca = x509.load_pem_x509_certificate(self._layout.ca_cert.read_bytes())
        if provision.unfit(pem, ca, self._now, late=1.0):
            return False
        return set(wanted) <= provision.alternative_names(x509.load_pem_x509_certificate(pem))

    def _refused(self, error: CertificateRefused) -> Trouble:
        if error.reason == "BootstrapTokenUsed":
            return Trouble(f"the certificate was {error}", "wherry token create makes a new token")
        if error.reason == "NodeIsReady":
            return Trouble(f"the certificate was {error}", "choose another --node-name, or stop that node first")
        return Trouble(f"the certificate was {error}", "an administrator said no, or the cluster's signer could not")


def _subject(path: Path) -> str:
    """The CN of the certificate in `path`; empty if there is none."""
    try:
        subject = x509.load_pem_x509_certificate(path.read_bytes()).subject
    except (OSError, ValueError):
        return ""
    return next((str(a.value) for a in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)), "")


def _address_towards(server: str) -> str:
    """This machine's address on the way to `server`. Raises Trouble. Sends nothing: UDP only picks a route."""
    from urllib.parse import urlsplit

    url = urlsplit(server)
    try:
        family, kind, _, _, where = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Trouble(f"no own address towards {server}: {error}", "say it with --node-ip") from error
