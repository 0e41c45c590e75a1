"""The server's side of mutual TLS, with files that others replace while it runs.

One listening context stays for ever; each handshake is handed over to the newest one (OpenSSL's server-name callback,
which is called for clients that name no server, too). So certificate, key and client CA may change together, and a CA
that was taken out is trusted no longer; connections that are open stay open. Session tickets are off: with one, a
client would come back without showing its certificate again. A client may show none; what that means is not decided
here.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)
LOOK_S = 5.0


class ServerTls:
    """`context` is for the listener. Files are PEM; certificate and key may be one file. `client_ca_file` may be empty:
    nobody is asked for a certificate."""

    def __init__(self, cert_file: str, key_file: str, client_ca_file: str, *, alpn: Sequence[str] = ()) -> None:
        """Raises OSError, ssl.SSLError (which is one)."""
        self._cert, self._key, self._ca, self._alpn = cert_file, key_file, client_ca_file, list(alpn)
        self._stamps = self._look()
        self._current = self._make()
        self.context = self._make()
        self.context.sni_callback = self._hand_over

    def reload(self) -> None:
        """Use what the files say now. Raises OSError if that cannot be used; what was good then stays in use."""
        stamps = self._look()
        self._current = self._make()
        self._stamps = stamps
        log.info("certificate_loaded file=%s", self._cert)

    def try_reload(self) -> bool:
        """The same; whether it could be done."""
        try:
            self.reload()
        except OSError as error:
            log.warning("certificate_not_loaded file=%s error=%s", self._cert, error)
            return False
        return True

    async def follow(self, changed: Callable[[], object] = lambda: None) -> None:
        """Reload when a file was replaced, until cancelled; `changed` is called after that."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._look() != self._stamps and self.try_reload():
                changed()

    def _look(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(file) for file in (self._cert, self._key, self._ca) if file)

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_cert_chain(self._cert, self._key)
        if self._ca:
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        return context

    def _hand_over(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._current


def _stamp(file: str) -> tuple[int, int]:
    """What differs when a file was replaced or its mode changed; a missing file has one, too."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return found.st_ctime_ns, found.st_ino
