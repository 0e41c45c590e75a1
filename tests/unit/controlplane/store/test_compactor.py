"""When the past is forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane import clock
from controlplane.store.compactor import Compactor, plan
from controlplane.store.memory import MemoryStore


@pytest.fixture
def now() -> Iterator[list[float]]:
    """A wall clock that the test sets."""
    at = [1_000_000.0]
    real = clock._wall
    clock.install(wall=lambda: at[0])
    yield at
    clock.install(wall=real)


def test_plan_keeps_what_is_younger_than_the_retention() -> None:
    marks = [(100.0, 1), (200.0, 5), (300.0, 9)]
    assert plan(marks, 350.0, 12, 100) == (5, [(300.0, 9), (350.0, 12)])
    assert plan([], 350.0, 12, 100) == (0, [(350.0, 12)])
    assert plan([(999.0, 3)], 350.0, 12, 100) == (0, [(350.0, 12)])  # the clock was set back


async def test_forgets_after_the_retention_also_across_restarts(now: list[float]) -> None:
    store = MemoryStore()
    await store.open()
    await store.create("k/a", b"")
    assert await Compactor(store, retention_s=3600).once() == 0
    noted = store.current_revision
    await store.update("k/a", b"", 1)
    now[0] += 3601
    assert await Compactor(store, retention_s=3600).once() == noted
    assert store.compacted_revision == noted
    await store.close()


async def test_idle_cluster_writes_nothing(now: list[float]) -> None:
    store = MemoryStore()
    await store.open()
    await store.create("k/a", b"")
    compactor = Compactor(store)
    for _ in range(3):
        await compactor.once()
        now[0] += 300
    assert store.current_revision == 2
    await store.close()


def test_plan_of_a_store_that_is_too_large_keeps_half() -> None:
    marks = [(100.0, 1), (200.0, 5), (300.0, 9), (400.0, 11)]
    assert plan(marks, 450.0, 12, 1000, too_large=True) == (5, [(300.0, 9), (400.0, 11), (450.0, 12)])
    assert plan([(400.0, 11)], 450.0, 12, 1000, too_large=True) == (11, [(450.0, 12)])
    assert plan([], 450.0, 12, 1000, too_large=True) == (0, [(450.0, 12)])


async def test_a_store_that_is_too_large_forgets_before_its_time(now: list[float]) -> None:
    store = MemoryStore()
    await store.open()
    revision = await store.create("k/a", b"")
    size = [100]
    compactor = Compactor(store, retention_s=86_400, size=lambda: size[0], limit_bytes=1000)
    for _ in range(4):
        now[0] += 300
        revision = await store.update("k/a", b"", revision)
        assert await compactor.once() == 0
    size[0] = 1001
    now[0] += 300
    assert await compactor.once() > 0
    assert 0 < store.compacted_revision < revision
    await store.close()
