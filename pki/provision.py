"""Make what a machine needs to take part: the control plane's files, or a node's, with the CA's key at hand.

Idempotent: what exists, belongs to the same CA, has the wanted names and is not near its end is kept, so that running
it again changes nothing that clients have learned to trust. It writes files and says which; it starts nothing. Nodes of
real machines are not made so: they join (controlplane.cli.machine), and no key ever leaves them.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from pki import kubeconfig, profiles, requests
from pki.authority import Authority, Issued
from pki.files import write_secret
from pki.keys import key_pem, load_key, new_key, public_pem
from pki.layout import Layout
from pki.profiles import Profile

API_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
)
_LATE = 0.7
"""The share of a certificate's life after which it is made anew: daemons renew theirs from here on, too."""


def authority(layout: Layout, now: datetime) -> Authority:
    """The CA in `layout`, made if there is none. Raises ValueError if what is there does not belong together."""
    layout.ensure()
    if layout.ca_key.exists():
        key = load_key(layout.ca_key)
        if layout.ca_cert.exists():
            return Authority.load(layout.ca_cert.read_bytes(), key)
    ca = Authority.create(now)
    write_secret(layout.ca_cert, ca.pem(), 0o644)
    write_secret(layout.ca_key, key_pem(ca.key))  # last: a certificate without its key is made anew
    return ca


def control_plane(
    layout: Layout, ca: Authority, server: str, names: Sequence[str], now: datetime, seen_as: Layout | None = None
) -> list[str]:
    """Certificates, the service-account key and kubeconfigs of the control plane; returns what changed. `server`: the
    API's URL; `names`: the machine's own names and addresses, and the API's service IP. `seen_as`: where the daemons
    find `layout`, if they see it mounted elsewhere."""
    layout.ensure()
    changes = [
        *_identity(layout, ca, profiles.APISERVER, now, names=(*API_NAMES, *names)),
        *_identity(layout, ca, profiles.APISERVER_KUBELET_CLIENT, now),
    ]
    if not layout.service_account_key.exists():
        key = new_key()
        write_secret(layout.service_account_public_key, public_pem(key), 0o644)
        write_secret(layout.service_account_key, key_pem(key))
        changes.append(f"{layout.service_account_key}: made")
    changes += admin(layout, ca, server, now)
    for profile in (profiles.SCHEDULER, profiles.CONTROLLERS):
        changes += _identity(layout, ca, profile, now)
        changes += _kubeconfig(layout, ca, server, profile.common_name, profile.name, seen_as)
    return changes


def admin(layout: Layout, ca: Authority, server: str, now: datetime) -> list[str]:
    """The administrator's kubeconfig: new if there is none, it is near its end, or the server is elsewhere now."""
    path, profile = layout.kubeconfig(profiles.ADMIN.name), profiles.ADMIN
    reason = "made"
    if path.exists():
        there = kubeconfig.read(path)
        moved = "" if there.server == server else f"the server is {server} now"
        reason = unfit(there.certificate, ca.certificate, now) or moved
        if not reason:
            return []
    kubeconfig.write(path, server, ca.pem(), profile.common_name, ca.issue(profile, now))
    return [f"{path}: {reason}"]


def node(
    layout: Layout, ca: Authority, server: str, name: str, addresses: Sequence[str], now: datetime,
    seen_as: Layout | None = None,
) -> list[str]:  # fmt: skip
    """A node's serving certificate and the identities of its agent and proxy; returns what changed. `seen_as`: as for
    `control_plane`."""
    layout.ensure()
    if not layout.ca_cert.exists():
        write_secret(layout.ca_cert, ca.pem(), 0o644)
    changes = _identity(layout, ca, profiles.NODEAGENT_SERVER, now, names=(name, *addresses), node=name)
    for profile in (profiles.NODEAGENT, profiles.NETPROXY):
        changes += _identity(layout, ca, profile, now, node=name)
        changes += _kubeconfig(layout, ca, server, profile.common_name.format(node=name), profile.name, seen_as)
    return changes


def _identity(
    layout: Layout, ca: Authority, profile: Profile, now: datetime, *, names: Sequence[str] = (), node: str = ""
) -> list[str]:
    path = layout.identity(profile.name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        write_secret(path, ca.issue(profile, now, node=node, names=dict.fromkeys(names)).pem())
        return [f"{path}: made"]
    pem = path.read_bytes()
    if reason := unfit(pem, ca.certificate, now):
        write_secret(path, ca.issue(profile, now, node=node, names=dict.fromkeys(names)).pem())
        return [f"{path}: renewed ({reason})"]
    have = alternative_names(x509.load_pem_x509_certificate(pem))
    if missing := sorted(set(names) - have):
        key = load_key(path)
        subject = requests.name(profile.common_name.format(node=node), profile.organizations)
        alternatives = [requests.general_name(each) for each in (*sorted(have), *missing)]
        signed = ca.sign(key.public_key(), subject, now, usages=profile.usages, alternatives=alternatives)
        write_secret(path, Issued(signed, key_pem(key)).pem())
        return [f"{path}: same key, now also for {', '.join(missing)}"]
    return []


def _kubeconfig(layout: Layout, ca: Authority, server: str, user: str, name: str, seen_as: Layout | None) -> list[str]:
    path = layout.kubeconfig(name)
    wanted = kubeconfig.document(server, ca.pem(), user, (seen_as or layout).identity(name))
    return [f"{path}: {said}"] if (said := write_if_changed(path, wanted)) else []


def write_if_changed(path: Path, content: bytes, mode: int = 0o644) -> str:
    """Write `path` unless it has this content already; returns `made`, `changed` or nothing."""
    existed = path.exists()
    if existed and path.read_bytes() == content:
        return ""
    write_secret(path, content, mode)
    return "changed" if existed else "made"


def alternative_names(certificate: x509.Certificate) -> set[str]:
    """DNS names and IP addresses of `certificate`."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address] = found.get_values_for_type(x509.IPAddress)  # type: ignore[assignment]
    return {*found.get_values_for_type(x509.DNSName), *map(str, addresses)}


def unfit(pem: bytes, ca: x509.Certificate, now: datetime, late: float = _LATE) -> str:
    """Why the certificate in `pem` must be made anew, by the share `late` of its life; empty if it is good."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return "it was no certificate"
    try:
        certificate.verify_directly_issued_by(ca)
    except Exception:  # InvalidSignature, ValueError, TypeError: all mean the same
        return "it was another authority's"
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return f"the old one ends {end:%Y-%m-%d}" if now >= start + (end - start) * late else ""
