"""Reading logs in the CRI's format: tails, time, parts, rotation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from nodeagent.server import websocket
from nodeagent.server.logfiles import tail_offset
from nodeagent.server.loglines import LogLines, LogOptions
from nodeagent.server.logs import read


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


async def test_a_slow_reader_misses_no_file_of_several_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.server.logs._WATCH_S", 0.001)
    path, ended = tmp_path / "log", False
    path.write_text(line("0"))

    async def is_over() -> bool:
        return ended

    stream = read(str(path), LogOptions(follow=True), is_over)
    seen = await anext(stream)
    for n in range(1, 6):  # nobody reads meanwhile
        old = tmp_path / f"log.{n}"
        path.rename(old)
        append(old, line(f"{n}, after the renaming"))
        path.write_text(line(f"{n}"))
        latest = os.stat(path)
        async with asyncio.timeout(5):
            while (latest.st_dev, latest.st_ino) not in opened():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        old.unlink()  # as rotation does with old files
    ended = True
    seen += b"".join([chunk async for chunk in stream])
    assert seen.decode().splitlines() == ["0"] + [t for n in range(1, 6) for t in (f"{n}, after the renaming", f"{n}")]
    assert latest.st_ino not in {inode for _, inode in opened()}


def opened() -> set[tuple[int, int]]:
    """The files that this process has open."""
    result = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/self/fd/{name}")
            result.add((status.st_dev, status.st_ino))
    return result


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 100_000])
@pytest.mark.parametrize(
    "options",
    [{}, {"timestamps": True}, {"stream": "stderr"}, {"since": "2026-11-21T10:00:05.00Z"},
     {"since": "2026-11-21T10:00:05.00Z", "timestamps": True, "stream": "stdout"}],
)  # fmt: skip
@pytest.mark.parametrize("parts", [False, True])
def test_blocks_of_any_size_give_the_same(size: int, options: dict[str, Any], parts: bool) -> None:
    """The fast way and the careful one, against the plainest there is."""
    chance = random.Random(1)
    text, expected, going_on = b"", b"", False
    for n in range(600):
        stamp = f"2026-11-21T10:00:{n // 60:02d}.{n % 60:02d}Z"
        stream = chance.choice(["stdout", "stderr"]) if not parts else "stdout"
        tag = "P" if parts and chance.random() < 0.3 and n < 599 else "F"
        content = chance.choice(["", "x", "a F b", "2026 stdout F z", "y " * 40])
        text += line(content, tag, stamp, stream).encode()
        if options.get("stream", stream) != stream or stamp < options.get("since", ""):
            continue
        if options.get("timestamps") and not going_on:
            expected += f"{stamp} ".encode()
        expected += content.encode() + (b"" if tag == "P" else b"\n")
        going_on = tag == "P"
    lines = LogLines(LogOptions(**options))
    assert b"".join(lines.format(text[i : i + size]) for i in range(0, len(text), size)) == expected


async def test_limits_cut_bytes_and_a_file_cut_by_somebody_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line("12345") + line("67890"))
    assert await text(path, limit_bytes=8) == "12345\n67"
    ended = False

    async def is_over() -> bool:
        return ended

    stream = read(str(path), LogOptions(follow=True), is_over)
    assert await anext(stream) == b"12345\n67890\n"
    path.write_text(line("again"))
    assert await anext(stream) == b"again\n"
    ended = True
    assert [chunk async for chunk in stream] == []
