"""The parser, fed the same answers cut at every place."""

import asyncio
from typing import Any

import pytest

from controlplane.client.errors import Unreachable
from controlplane.client.http1 import Connection

ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "chunks": (
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        201,
        b"hello",
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        200,
        b"hello",
    ),
    "none": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
}


class Wire:
    """A transport that writes nowhere."""

    def write(self, data: bytes) -> None:
        self.sent = data

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def connected() -> tuple[Connection, Any]:
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.send("GET", "/", "Host: x\r\n", b"")
    return connection, wire


@pytest.mark.parametrize("name", ANSWERS)
async def test_cut_anywhere(name: str) -> None:
    data, status, body = ANSWERS[name]
    for cut in range(1, len(data)):
        connection, _ = connected()
        for part in (data[:cut], data[cut:]):
            connection.data_received(part)
        assert (await connection.read_head(), await connection.read_all()) == (status, body)
        assert connection.idle
        connection.send("GET", "/", "", b"")
        assert not connection.idle


async def test_until_the_end_of_the_connection() -> None:
    connection, _ = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhel")
    connection.data_received(b"lo")
    connection.connection_lost(None)
    assert (await connection.read_head(), await connection.read_all()) == (200, b"hello")
    assert not connection.idle


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"])
async def test_cut_short(data: bytes) -> None:
    connection, _ = connected()
    if data:
        connection.data_received(data)
    connection.connection_lost(None)
    with pytest.raises(Unreachable):
        await connection.read_head()
        await connection.read_all()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"x" * 100_000,
    ],
)
async def test_nonsense_is_an_error_not_a_hang(data: bytes) -> None:
    connection, _ = connected()
    connection.data_received(data)
    with pytest.raises(Unreachable):
        async with asyncio.timeout(1):
            await connection.read_head()
            while await connection.read():
                pass
    assert not connection.idle


async def test_more_than_the_answer_is_never_taken_for_the_next_one() -> None:
    connection, _ = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n")
    assert await connection.read_all() == b"a"
    assert not connection.idle


async def test_a_reader_that_does_not_read_stops_the_peer() -> None:
    connection, wire = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 5_000_000)
    assert wire.paused
    assert len(await connection.read()) == 5_000_000
    assert not wire.paused
