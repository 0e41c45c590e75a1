"""The administrator at work on a control-plane machine: a client of the API, from this machine's admin.conf."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from controlplane.cli.machine.trouble import Trouble
from controlplane.client.rest import Client, from_kubeconfig
from pki.layout import DEFAULT, Layout


def _path(kubeconfig: str | None, root: Path | None) -> str:
    layout = DEFAULT if root is None else Layout.under(root.absolute())
    path = Path(kubeconfig) if kubeconfig else layout.kubeconfig("admin")
    if not kubeconfig and path.exists() and os.access(layout.ca_key, os.R_OK):
        _keep_fresh(layout, path)
    if not path.exists():
        raise Trouble(f"{path}: no such file", "run it on the control plane (after wherry init), or say --kubeconfig")
    return str(path)


def _keep_fresh(layout: Layout, path: Path) -> None:
    """No daemon has this certificate and could renew it, so whoever uses it does, in the last third of its life."""
    from datetime import UTC, datetime

    from controlplane import clock
    from pki import kubeconfig, provision
    from pki.authority import Authority
    from pki.keys import load_key

    try:
        ca = Authority.load(layout.ca_cert.read_bytes(), load_key(layout.ca_key))
        provision.admin(layout, ca, kubeconfig.read(path).server, datetime.fromtimestamp(clock.wall_time(), UTC))
    except (OSError, ValueError):  # then what is there must do
        return


@contextlib.asynccontextmanager
async def connected(kubeconfig: str | None, root: Path | None) -> AsyncIterator[Client]:
    """Raises Trouble, ConfigurationError."""
    client = from_kubeconfig(_path(kubeconfig, root), "wherry", timeout=10.0)
    try:
        yield client
    finally:
        await client.close()


def join_command(kubeconfig: str | None, root: Path | None, token: str) -> str:
    """What to type on the machine that shall join."""
    from cryptography import x509

    from controlplane.client.credentials import from_kubeconfig as read
    from pki.authority import pin

    credentials = read(_path(kubeconfig, root))
    ca = credentials.ca_data or Path(credentials.ca_file).read_bytes()
    url = urlsplit(credentials.server)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    pinned = pin(x509.load_pem_x509_certificate(ca))
    return f"wherry join {host}:{url.port or 443} --token {token} --discovery-token-ca-cert-hash {pinned}"
