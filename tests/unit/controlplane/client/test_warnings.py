"""What the server warns of reaches the log once, however often it is said."""

import logging

import pytest

from controlplane.client.rest import Client
from controlplane.client.transport import Answer


class Warns:
    """A transport whose every answer warns."""

    def __init__(self) -> None:
        self.text = '299 - "v1 Endpoints is deprecated"'

    async def request(self, method: str, target: str, body: bytes = b"", **rest: object) -> Answer:
        return Answer(200, {"warning": self.text}, b"{}")


async def test_a_warning_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    transport = Warns()
    client = Client(transport)  # type: ignore[arg-type]
    for _ in range(3):
        await client.json("GET", "/api/v1/endpoints")
    assert caplog.text.count("server_warning") == 1
    transport.text = '299 - "something else"'
    await client.json("GET", "/api/v1/endpoints")
    assert caplog.text.count("server_warning") == 2
