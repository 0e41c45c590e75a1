"""A large group of watches rests: what is written meanwhile comes in one piece, and nothing is lost by it."""

import asyncio
from typing import Any

import pytest

from controlplane.apiserver.registry import fanout

CMS = "/api/v1/namespaces/default/configmaps"


class Pieces:
    """A Sink that keeps what it gets, and tells when that were six events."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.all = asyncio.Event()

    def write(self, chunk: Any) -> bool:
        self.got.append(chunk.data)
        if b"".join(self.got).count(b'"ADDED"') == 6:
            self.all.set()
        return True

    async def drain(self) -> None: ...


async def test_events_of_a_rest_come_in_one_piece(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "_RESTS_FROM", 2)
    monkeypatch.setattr(fanout, "_REST_S", 0.1)
    monkeypatch.setattr(fanout, "_LONGEST_REST_S", 0.2)
    sinks = [Pieces(), Pieces()]
    feeds = [(await api.raw("GET", f"{CMS}?watch=1&resourceVersion={api.server.cache.revision}")).stream for _ in sinks]
    tasks = [asyncio.create_task(feed.run(sink)) for feed, sink in zip(feeds, sinks, strict=True)]
    try:
        async with asyncio.timeout(5):
            for _ in range(5):
                await asyncio.sleep(0)
            assert api.server.handlers.fanout.members == 2
            for name in "abcdef":
                await api.ok("POST", CMS, {"metadata": {"name": name}})
            for sink in sinks:
                await sink.all.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for sink in sinks:
        pieces = [piece for piece in sink.got if piece]
        assert b"".join(pieces).count(b'"ADDED"') == 6
        assert len(pieces) < 6, pieces
        assert pieces[0].count(b'"ADDED"') == 1
