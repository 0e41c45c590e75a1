"""Unused images make room: which go, when, and which never."""

from __future__ import annotations

import pytest

from nodeagent.images.collector import Disk, ImageCollector, Policy
from nodeagent.runtime.fake import FakeImages
from nodeagent.runtime.interface import Image, ImageConfig, RuntimeFailure


class Node(FakeImages):
    """A disk of 1000 bytes with images of 100, 50 bytes of something else, and a clock that the test moves."""

    def __init__(self, **policy: float) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.events: list[str] = []
        self.time = 1000.0
        self.changes = 0
        self.removed: list[str] = []
        self.other = 50
        self.collector = ImageCollector(
            self, Policy(**policy), self._used, self._disk, lambda *event: self.events.append(" ".join(event)),
            self._changed, lambda: self.time,
        )  # fmt: skip

    def put(self, *names: str, pinned: bool = False) -> None:
        for name in names:
            self.local[name] = Image(f"sha256:{name}", (), ImageConfig(), (name,), (), 100, pinned)

    async def _used(self) -> set[str]:
        return {f"sha256:{name}" for name in self.used}

    def _disk(self) -> Disk:
        return Disk(1000, 1000 - self.other - 100 * len(self.local))

    def _changed(self) -> None:
        self.changes += 1

    async def remove(self, reference: str) -> None:
        name = reference.partition(":")[2]
        del self.local[name]
        self.removed.append(name)


async def test_nothing_goes_while_there_is_room() -> None:
    node = Node()
    node.put(*"abcdefgh")
    node.other = 40
    await node.collector.collect()
    node.time += 1000
    assert await node.collector.collect() == 0
    assert node.removed == [] and node.events == [] and node.changes == 0


async def test_the_longest_unused_go_until_the_low_threshold() -> None:
    node = Node()
    node.put(*"abcdefghi")
    node.other = -900
    await node.collector.collect()
    for name in ("c", "a", "i"):  # each used once, one after the other
        node.time += 200
        node.used = {name}
        await node.collector.collect()
    node.other, node.used = 0, {"b"}
    node.time += 200
    assert await node.collector.collect() == 100  # 900 → 800
    assert node.removed == ["d"]
    node.put("z")
    node.other = 100
    assert await node.collector.collect() == 200  # 1000 → 800
    assert node.removed == ["d", "e", "f"]
    assert node.changes == 2 and node.events == []


async def test_what_is_used_pinned_or_new_stays_and_that_is_said() -> None:
    node = Node()
    node.used = set("abc")
    node.put(*"abcd")
    node.put("p", pinned=True)
    node.other = 500
    await node.collector.collect()
    assert node.removed == []  # d is new
    node.time += 121
    assert await node.collector.collect() == 100
    assert node.removed == ["d"]
    assert node.events[-1] == (
        "Warning FreeDiskSpaceFailed Failed to garbage collect required amount of images. Attempted to free "
        "200 bytes, but only found 100 bytes eligible to free."
    )


async def test_under_pressure_age_does_not_count() -> None:
    node = Node()
    node.used = {"a"}
    node.put("a", "b")
    node.put("p", pinned=True)
    assert await node.collector.remove_unused() == 100
    assert node.removed == ["b"]


async def test_a_greatest_age() -> None:
    node = Node(maximum_age_s=3600)
    node.put("a", "b")
    await node.collector.collect()
    node.time += 3000
    node.used = {"a"}
    await node.collector.collect()
    node.used = set()
    node.time += 700
    assert await node.collector.collect() == 100
    assert node.removed == ["b"]


async def test_an_image_that_gets_a_container_meanwhile_stays() -> None:
    node = Node()
    node.put("a", "b")
    remove = node.remove

    async def and_use_the_other(reference: str) -> None:
        await remove(reference)
        node.used = set("ab")

    node.remove = and_use_the_other  # type: ignore[method-assign]
    await node.collector.remove_unused()
    assert node.removed == ["a"]


async def test_who_does_not_know_what_is_used_removes_nothing() -> None:
    node = Node()
    node.put("a")

    async def broken() -> set[str]:
        raise RuntimeFailure("runtime is away")

    node.collector._used = broken
    with pytest.raises(RuntimeFailure):
        await node.collector.remove_unused()
    assert node.removed == []


def test_thresholds_are_checked() -> None:
    with pytest.raises(ValueError):
        Policy(80, 85)
