"""Reading logs in the CRI's format: tails, time, parts, rotation."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from nodeagent.server import websocket
from nodeagent.server.logs import LogOptions, read, tail_offset


def line(text: str, tag: str = "F", stamp: str = "2026-11-21T10:00:00.5Z", stream: str = "stdout") -> str:
    return f"{stamp} {stream} {tag} {text}\n"


def append(path: Path, text: str) -> None:
    with open(path, "a") as log:
        log.write(text)


async def over() -> bool:
    return True


async def text(path: Path, **options: object) -> str:
    return b"".join([c async for c in read(str(path), LogOptions(**options), over)]).decode()  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 5000])
def test_a_tail_is_found_from_the_end(tmp_path: Path, count: int) -> None:
    path = tmp_path / "log"
    lines = [f"{n} {'x' * (n * 7 % 300)}\n" for n in range(1000)]
    path.write_text("".join(lines))
    fd = os.open(path, os.O_RDONLY)
    try:
        expected = "".join(lines[-count:] if count else [])
        assert path.read_text()[tail_offset(fd, count) :] == expected
    finally:
        os.close(fd)


async def test_parts_are_joined_and_times_compared(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        line("early", stamp="2026-11-21T09:59:59.999999999Z")
        + line("be", "P") + line("gin", "F") + line("late", stamp="2026-11-21T10:00:00.50000001Z")
    )  # fmt: skip
    assert await text(path) == "early\nbegin\nlate\n"
    assert await text(path, since="2026-11-21T10:00:00.500000Z") == "begin\nlate\n"
    assert await text(path, since="2026-11-21T10:00:00.500001Z") == ""
    assert await text(path, timestamps=True, tail=2) == (
        "2026-11-21T10:00:00.5Z gin\n2026-11-21T10:00:00.50000001Z late\n"
    )
    assert await text(tmp_path / "none") == ""


async def test_following_goes_over_to_the_new_file_after_a_rotation(tmp_path: Path) -> None:
    path, ended = tmp_path / "log", False
    path.write_text(line("one"))

    async def is_over() -> bool:
        return ended

    stream = read(str(path), LogOptions(follow=True), is_over)
    assert await anext(stream) == b"one\n"
    append(path, line("two"))
    assert await anext(stream) == b"two\n"
    os.rename(path, tmp_path / "log.1")
    path.write_text(line("three"))
    assert await anext(stream) == b"three\n"
    append(path, line("four"))
    ended = True
    assert await anext(stream) == b"four\n"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


def test_unmask() -> None:
    for size in (0, 1, 3, 4, 5, 1000):
        data, mask = os.urandom(size), os.urandom(4)
        assert websocket.unmask(data, mask) == bytes(b ^ mask[i % 4] for i, b in enumerate(data))


async def test_a_client_that_leaves_ends_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line("one"))

    async def never() -> bool:
        return False

    stream = read(str(path), LogOptions(follow=True), never)
    assert await anext(stream) == b"one\n"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert str(path) not in [
        os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{n}")
    ]
