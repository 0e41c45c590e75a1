"""When there is pressure: syntax, grace, transition."""

from __future__ import annotations

import pytest

from nodeagent.pods.eviction.thresholds import DEFAULT_HARD, Observation, Watch, parse, seconds

GIB = 1 << 30


def seen(available: int, capacity: int = 8 * GIB):
    return {"memory.available": Observation(available, capacity)}


def test_defaults_are_kubelets() -> None:
    assert {t.signal: t.value for t in parse(DEFAULT_HARD)} == {
        "memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%",
        "imagefs.inodesFree": "5%",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["memory<1", "memory.available=1", "memory.available<", "memory.available<x", "a<1"])
def test_a_bad_threshold_is_refused_by_name(text) -> None:
    with pytest.raises(ValueError, match=r"memory|a<1"):
        parse([text])


def test_a_soft_threshold_needs_its_grace_period() -> None:
    with pytest.raises(ValueError, match="grace"):
        parse([], ["memory.available<1Gi"])


def test_zero_means_off() -> None:
    assert parse(["memory.available<0%", "nodefs.available<0"]) == []


@pytest.mark.parametrize(("text", "value"), [("1m30s", 90), ("2h", 7200), ("500ms", 0.5), ("0s", 0), ("1.5m", 90)])
def test_durations(text, value) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1m5"])
def test_what_is_no_duration(text) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def test_hard_acts_at_once_and_the_condition_lingers() -> None:
    watch = Watch.of(parse(["memory.available<100Mi"]), 300)
    assert watch.look(seen(GIB), 0) == [] and watch.conditions(0) == frozenset()
    assert [t.signal for t in watch.look(seen(50 << 20), 10)] == ["memory.available"]
    assert watch.conditions(10) == {"MemoryPressure"}
    assert watch.look(seen(GIB), 20) == [] and watch.conditions(20) == {"MemoryPressure"}
    watch.look(seen(GIB), 310)
    assert watch.conditions(310) == frozenset()


def test_soft_acts_after_its_grace_and_forgets_an_interruption() -> None:
    watch = Watch.of(parse([], ["memory.available<10%"], ["memory.available=1m"]), 0)
    assert watch.look(seen(GIB // 2), 0) == [] and watch.conditions(0) == {"MemoryPressure"}
    assert watch.look(seen(GIB), 30) == [] and watch.conditions(30) == frozenset()
    assert watch.look(seen(GIB // 2), 40) == [] and watch.look(seen(GIB // 2), 99) == []
    assert len(watch.look(seen(GIB // 2), 100)) == 1


def test_a_minimum_reclaim_asks_for_more_once_it_has_begun() -> None:
    watch = Watch.of(parse(["memory.available<100Mi"], reclaim=["memory.available=200Mi"]), 0)
    assert watch.look(seen(250 << 20), 0) == []
    assert watch.look(seen(90 << 20), 1) and watch.look(seen(250 << 20), 2)
    assert watch.look(seen(310 << 20), 3) == [] and watch.look(seen(250 << 20), 4) == []
