"""The administrator at work on a control-plane machine: a client of the API, from this machine's admin.conf."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from controlplane.cli.machine.trouble import Trouble
from controlplane.client.rest import Client, from_kubeconfig
from pki.layout import DEFAULT, Layout


def _path(kubeconfig: str | None, root: Path | None) -> str:
    layout = DEFAULT if root is None else Layout.under(root.absolute())
    path = Path(kubeconfig) if kubeconfig else layout.kubeconfig("admin")
    if not path.exists():
        raise Trouble(f"{path}: no such file", "run it on the control plane (after wherry init), or say --kubeconfig")
    return str(path)


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
