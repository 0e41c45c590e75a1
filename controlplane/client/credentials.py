"""Who we are and whom we trust: a kubeconfig's files turned into TLS contexts and bearer tokens, kept fresh.

Certificates and keys live in files that others renew. `tls()` makes a new context when `reload()` was called or a file
changed on disk (the kubeconfig included), so that a renewed certificate is used from the next connection on;
`bearer()` reads a token file again after a few seconds, as projected service-account tokens ask. Bytes embedded in a
kubeconfig work as well, without touching the disk. Basic auth, auth providers and exec plugins are not supported.
"""

import asyncio
import base64
import logging
import os
import ssl
from dataclasses import dataclass
from typing import Any

from controlplane.client.errors import ConfigurationError

log = logging.getLogger(__name__)
_TOKEN_SECONDS = 10.0


@dataclass(slots=True)
class Credentials:
    """Where to connect and with what. File fields are paths, data fields are PEM bytes; data wins."""

    server: str
    ca_file: str = ""
    ca_data: bytes = b""
    cert_file: str = ""
    cert_data: bytes = b""
    key_file: str = ""
    key_data: bytes = b""
    token: str = ""
    token_file: str = ""
    insecure: bool = False
    server_name: str = ""
    source: tuple[str, str] = ("", "")
    """Path of the kubeconfig and name of the context that this was read from."""
    _context: ssl.SSLContext | None = None
    _stamp: tuple[float, ...] = ()
    _stale: bool = False
    _token_until: float = 0.0

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context for a new connection, None for an http:// server. Raises ConfigurationError."""
        if self.server.startswith("http://"):
            return None
        files = (self.source[0], self.ca_file, self.cert_file, self.key_file)
        stamp = tuple(_changed_at(f) for f in files if f)
        if self._context is None or stamp != self._stamp or self._stale:
            try:
                if self._stamp and self.source[0]:
                    self._read_again()
                self._context, self._stamp = self._make_context(), stamp
            except ConfigurationError as error:
                if self._context is None:
                    raise
                log.warning("credentials_not_read_again kept=true error=%s", error)
            self._stale = False
        return self._context

    def bearer(self) -> str:
        """The token to send, empty if none. A token file that cannot be read keeps the last token."""
        now = asyncio.get_running_loop().time()
        if self.token_file and now >= self._token_until:
            try:
                with open(self.token_file, encoding="ascii") as file:
                    self.token = file.read().strip()
            except OSError as error:
                if not self.token:
                    raise ConfigurationError(f"{self.token_file}: {error.strerror}") from error
            self._token_until = now + _TOKEN_SECONDS
        return self.token

    def reload(self) -> None:
        """Read everything again when it is needed; what cannot be read then stays as it was."""
        self._stale, self._token_until = True, 0.0

    def _read_again(self) -> None:
        """Take what the kubeconfig says now. The server stays: connections to it are pooled."""
        fresh = from_kubeconfig(*self.source)
        for name in ("ca_file", "ca_data", "cert_file", "cert_data", "key_file", "key_data", "token", "token_file"):
            setattr(self, name, getattr(fresh, name))

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            elif self.ca_data:
                context.load_verify_locations(cadata=self.ca_data.decode("ascii"))
            elif self.ca_file:
                context.load_verify_locations(cafile=self.ca_file)
            else:
                context.load_default_certs()
            if self.cert_data or self.cert_file:
                with _Readable(self.cert_data, self.cert_file) as cert, _Readable(self.key_data, self.key_file) as key:
                    context.load_cert_chain(cert, key or None)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            where = ", ".join(f for f in (self.ca_file, self.cert_file, self.key_file) if f) or "embedded certificates"
            raise ConfigurationError(f"{where}: {error}") from error
        return context


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0.0


class _Readable:
    """A path to read `data` from (OpenSSL's loader takes only paths): a memfd, which never reaches a disk."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data, self._path, self._fd = data, path, -1

    def __enter__(self) -> str:
        if not self._data:
            return self._path
        self._fd = os.memfd_create("pem", os.MFD_CLOEXEC)
        os.write(self._fd, self._data)
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def from_kubeconfig(path: str, context: str = "") -> Credentials:
    """The credentials of a kubeconfig's current (or the named) context. Relative paths are relative to the file.
    Raises ConfigurationError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    try:
        document = _parse(text)
        wanted = context or document["current-context"]
        chosen = _named(document, "contexts", wanted)["context"]
        cluster = _named(document, "clusters", chosen["cluster"])["cluster"]
        user = _named(document, "users", chosen["user"])["user"] or {}
        here = os.path.dirname(os.path.abspath(path))

        def file_of(holder: dict[str, Any], key: str) -> str:
            return os.path.join(here, holder[key]) if holder.get(key) else ""

        def data_of(holder: dict[str, Any], key: str) -> bytes:
            return base64.b64decode(holder.get(key) or "")

        return Credentials(
            server=cluster["server"].rstrip("/"),
            ca_file=file_of(cluster, "certificate-authority"),
            ca_data=data_of(cluster, "certificate-authority-data"),
            cert_file=file_of(user, "client-certificate"),
            cert_data=data_of(user, "client-certificate-data"),
            key_file=file_of(user, "client-key"),
            key_data=data_of(user, "client-key-data"),
            token=user.get("token") or "",
            token_file=file_of(user, "tokenFile"),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            server_name=cluster.get("tls-server-name") or "",
            source=(path, context),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: not a usable kubeconfig: {error!r}") from error


def _parse(text: str) -> dict[str, Any]:
    """A kubeconfig is YAML; one that happens to be JSON is read without loading YAML at all."""
    if text.lstrip().startswith("{"):
        import msgspec

        document = msgspec.json.decode(text)
    else:
        import yaml

        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(document, dict):
        raise ValueError("not a mapping")
    return document


def _named(document: dict[str, Any], listing: str, name: str) -> dict[str, Any]:
    for entry in document.get(listing) or []:
        if entry.get("name") == name:
            return dict(entry)
    raise ValueError(f"no {name!r} in {listing}")
