"""A client's certificate that ends while its connection is open: nothing more is answered on it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.status import StatusError
from controlplane.client.credentials import Credentials
from controlplane.client.errors import Unreachable
from controlplane.client.https import HttpsTransport
from controlplane.client.rest import Client
from pki import requests
from pki.authority import Authority
from pki.keys import key_pem, load_key, new_key


def test_an_open_connection_outlives_no_certificate(plane: Any, tmp_path: Path) -> None:
    layout, key, now = plane.layout, new_key(), datetime.now(UTC)
    ca = Authority.load(layout.ca_cert.read_bytes(), load_key(layout.ca_key))
    life = timedelta(seconds=3)
    cert = ca.sign(key.public_key(), requests.name("jane"), now, usages=("client auth",), lifetime=life)
    credentials = Credentials(
        f"https://127.0.0.1:{plane.port}", ca_file=str(layout.ca_cert), cert_data=cert, key_data=key_pem(key)
    )

    async def main() -> None:
        client = Client(HttpsTransport(credentials, connections=1))
        assert await client.json("GET", "/version")
        with pytest.raises(StatusError, match="Unauthorized") as refused:
            async with asyncio.timeout(20):
                while True:
                    assert await client.json("GET", "/version")
                    await asyncio.sleep(0.2)
        assert refused.value.code == 401
        assert time.time() >= (now + life).timestamp() - 1
        with pytest.raises(Unreachable):
            await client.json("GET", "/version")  # the next connection is refused by TLS
        await client.close()

    asyncio.run(main())
