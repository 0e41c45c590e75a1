"""SPDY/3.1 frame by frame: what a client may do, and what it may not."""

import asyncio
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.server.spdy import frames
from nodeagent.server.spdy.connection import Connection, Refused
from nodeagent.server.spdy.dictionary import CHECKSUM, DICTIONARY
from nodeagent.server.spdy.errors import ProtocolError, Reset, StreamError
from nodeagent.server.spdy.frames import Control, Data, Decoder
from nodeagent.server.spdy.headers import Compressor, Decompressor
from nodeagent.server.spdy.stream import Stream

Peer = Any
Connect = Any


def kinds(sent: list[Control | Data]) -> list[int]:
    return [f.type for f in sent if isinstance(f, Control)]


def test_the_dictionary_is_the_published_one() -> None:
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == CHECKSUM


def test_frames_may_arrive_in_any_pieces() -> None:
    wire = frames.control(frames.PING, b"\0\0\0\1") + frames.data_head(1, 5, frames.FIN) + b"hello"
    wire += frames.data_head(3, 0, frames.FIN) + frames.control(frames.GOAWAY, bytes(8))
    for size in range(1, len(wire) + 1):
        decoder = Decoder()
        got = [f for i in range(0, len(wire), size) for f in decoder.feed(wire[i : i + size])]
        data = [f for f in got if isinstance(f, Data)]
        assert b"".join(f.payload for f in data if f.stream == 1) == b"hello"
        assert [(f.stream, f.flags) for f in data if f.flags] == [(1, frames.FIN), (3, frames.FIN)]
        assert kinds(got) == [frames.PING, frames.GOAWAY]


def test_header_blocks_share_one_context() -> None:
    ours, theirs = Compressor(), Decompressor()
    for headers in ({"streamType": "stdin"}, {}, {"streamType": "stdout", "port": "80"}):
        assert theirs.unpack(ours.pack(headers)) == {k.lower(): v for k, v in headers.items()}


def test_a_header_block_cannot_be_a_bomb() -> None:
    bomb = zlib.compressobj(zdict=DICTIONARY)
    with pytest.raises(ProtocolError, match="too large"):
        Decompressor().unpack(bomb.compress(bytes(10_000_000)) + bomb.flush(zlib.Z_SYNC_FLUSH))


async def test_a_stream_both_ways(peer: Peer, connect: Connect) -> None:
    streams, _, _ = connect()
    identity = peer.open(streamtype="data")
    peer.data(identity, b"ques")
    peer.data(identity, b"tion", fin=True)
    (reply,) = await peer.frames()
    assert reply.type == frames.SYN_REPLY
    assert peer.unpacker.decompress(reply.body[4:]) == bytes(4)
    (stream,) = streams
    assert stream.headers == {"streamtype": "data"}
    assert await stream.read() + await stream.read() == b"question"
    assert await stream.read() == b""
    await stream.write(b"answer")
    await stream.close()
    sent = await peer.frames()
    assert [(f.payload, f.flags) for f in sent if isinstance(f, Data)] == [(b"answer", 0), (b"", frames.FIN)]
    with pytest.raises(StreamError):
        await stream.write(b"more")


async def test_ping_is_answered_and_the_unknown_ignored(peer: Peer, connect: Connect) -> None:
    connect()
    peer.send(frames.control(frames.PING, struct.pack("!I", 7)))
    peer.send(frames.control(frames.PING, struct.pack("!I", 2)))  # an answer to nothing
    peer.send(frames.control(17, b"x"))
    assert await peer.frames() == [Control(frames.PING, 0, struct.pack("!I", 7))]


async def test_a_peer_with_windows_is_never_sent_more_than_it_grants(peer: Peer, connect: Connect) -> None:
    streams, _, _ = connect()
    peer.send(frames.control(frames.SETTINGS, struct.pack("!III", 1, 7, 1000)))
    one, two = peer.open(), peer.open()
    await peer.frames()
    writers = [asyncio.create_task(stream.write(bytes(100_000))) for stream in streams]
    sent = await peer.frames()
    assert [(f.stream, len(f.payload)) for f in sent if isinstance(f, Data)] == [(one, 1000), (two, 1000)]
    peer.grant(one, 70_000)
    assert len(await peer.received(one)) == 64 * 1024 - 2000  # the session's window is the smaller one now
    peer.grant(0, 1_000_000)
    assert len(await peer.received(one)) == 71_000 - 1000 - (64 * 1024 - 2000)
    assert not any(writer.done() for writer in writers)
    peer.grant(one, 1_000_000)
    peer.grant(two, 1_000_000)
    await peer.frames()
    assert all(writer.done() for writer in writers)


async def test_a_peer_without_windows_does_not_starve(peer: Peer, connect: Connect) -> None:
    streams, _, _ = connect()
    identity = peer.open()
    await peer.frames()
    writer = asyncio.create_task(streams[0].write(bytes(1_000_000)))
    assert len(await peer.received(identity)) == 1_000_000
    assert writer.done()


async def test_what_is_read_is_granted_again(peer: Peer, connect: Connect) -> None:
    streams, _, _ = connect()
    identity = peer.open()
    peer.data(identity, bytes(40_000))
    await peer.frames()
    await streams[0].read()
    grants = [frames.numbers(f.body, 2) for f in await peer.frames() if isinstance(f, Control)]
    assert sorted(grants) == [(0, 40_000), (identity, 40_000)]


async def test_a_stream_that_nobody_reads_stops_the_peer(peer: Peer, connect: Connect) -> None:
    streams, _, _ = connect()
    identity = peer.open()
    for _ in range(100):
        peer.data(identity, bytes(64 * 1024))
    for _ in range(20):
        await peer.frames()
    assert streams[0].buffered < 1.2 * 1024 * 1024
    assert not peer.wire.to_us.empty()
    streams[0].discard()  # nobody will: then it is taken and thrown away
    for _ in range(20):
        await peer.frames()
    assert peer.wire.to_us.empty()
    assert streams[0].buffered == 0


async def test_resets(peer: Peer, connect: Connect) -> None:
    streams, _, _ = connect()
    identity = peer.open()
    await peer.frames()
    peer.send(frames.control(frames.RST_STREAM, struct.pack("!II", identity, Reset.CANCEL)))
    with pytest.raises(StreamError, match="reset by the peer"):
        await streams[0].read()
    other = peer.open()
    await peer.frames()
    await streams[1].reset()
    assert [f.body for f in await peer.frames() if isinstance(f, Control)] == [struct.pack("!II", other, Reset.CANCEL)]
    peer.data(other, b"crossed our reset")
    assert not [f for f in await peer.frames() if isinstance(f, Control)]


async def test_a_refused_stream_leaves_the_others_alone(peer: Peer, connect: Connect) -> None:
    wanted: list[Stream] = []

    def opened(stream: Stream) -> None:
        if stream.headers["streamtype"] == "bad":
            raise Refused("bad")
        wanted.append(stream)

    connect(opened)
    peer.open(streamtype="bad")
    good = peer.open(streamtype="good")
    peer.data(good, b"x")
    assert kinds(await peer.frames()) == [frames.RST_STREAM, frames.SYN_REPLY]
    assert await wanted[0].read() == b"x"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 2,  # read as data for a stream that was never opened
        b"\x80\x02\x00\x01\x00\x00\x00\x00",  # SPDY/2
        frames.data_head(9, 1) + b"x",
        frames.control(frames.SYN_STREAM, bytes(4)),
        frames.control(frames.SYN_STREAM, struct.pack("!IIH", 1, 0, 0) + b"not compressed"),
        frames.control(frames.SYN_STREAM, struct.pack("!IIH", 2, 0, 0)),
        frames.control(frames.WINDOW_UPDATE, struct.pack("!II", 0, 0x7FFFFFFF)),
        frames.control(frames.SETTINGS, struct.pack("!I", 1000)),
    ],
)
async def test_nonsense_ends_the_connection_with_a_goaway(peer: Peer, connect: Connect, nonsense: bytes) -> None:
    streams, running, _ = connect()
    peer.open()
    await peer.frames()
    peer.send(nonsense)
    sent = await peer.frames()
    assert kinds(sent) == [frames.GOAWAY]
    assert running.done() and running.exception() is None
    with pytest.raises(StreamError):
        await streams[0].read()


async def test_the_end_of_the_connection_ends_its_streams(peer: Peer, connect: Connect) -> None:
    streams, running, _ = connect()
    peer.open()
    await peer.frames()
    reading = asyncio.create_task(streams[0].read())
    peer.hang_up()
    with pytest.raises(StreamError, match="connection lost"):
        await reading
    assert running.done()


@given(st.lists(st.one_of(
    st.binary(max_size=40),
    st.builds(frames.control, st.integers(1, 12), st.binary(max_size=30), st.integers(0, 3)),
    st.builds(lambda stream, data, flags: frames.data_head(stream, len(data), flags) + data,
              st.integers(0, 6), st.binary(max_size=30), st.integers(0, 1)),
), max_size=12))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_input_breaks_anything_but_its_own_connection(pieces: list[bytes]) -> None:
    class Wire:
        def __init__(self) -> None:
            self.left = [*pieces, b""]

        async def read(self) -> bytes:
            while self.left:
                if (piece := self.left.pop(0)) or not self.left:
                    return piece
            return b""

        def write(self, data: bytes) -> None: ...

        async def drain(self) -> None: ...

    async def run() -> None:
        streams: list[Stream] = []
        await Connection(Wire(), streams.append).run()
        for stream in streams:
            assert stream.failed or (stream.local_done and stream.remote_done) or stream.remote_done

    asyncio.run(run())
