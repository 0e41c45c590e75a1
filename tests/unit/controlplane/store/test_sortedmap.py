"""The sorted map against a dict, and its snapshots against copies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store import sortedmap
from controlplane.store.sortedmap import Snapshot, SortedMap

KEYS = st.integers(0, 60).map(lambda n: f"{n % 3}/{n:02}")
STEPS = st.lists(st.tuples(st.sampled_from(["put", "put", "remove", "snapshot"]), KEYS), max_size=150)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sortedmap, "_CHUNK", 4)


def expected(model: dict[str, int], start: str, end: str | None) -> list[int]:
    return [v for k, v in sorted(model.items()) if k >= start and (end is None or k < end)]


@settings(deadline=None, max_examples=200)
@given(STEPS, st.integers(0, 30))
def test_equals_a_dict_and_snapshots_never_change(steps: list[tuple[str, str]], loaded: int) -> None:
    sortedmap._CHUNK = 4
    model = {f"{n % 3}/{n:02}": -n for n in range(loaded)}
    tested: SortedMap[int] = SortedMap(sorted(model.items()))
    snapshots: list[tuple[Snapshot[int], dict[str, int], str, str | None]] = []
    for number, (what, key) in enumerate(steps):
        if what == "put":
            model[key] = number
            tested.put(key, number)
        elif what == "remove":
            if key in model:
                del model[key]
                tested.remove(key)
            else:
                with pytest.raises(KeyError):
                    tested.remove(key)
        else:
            start, end = key[:2], key[:1] + "0"
            snapshots.append((tested.snapshot(start, end), dict(model), start, end))
            snapshots.append((tested.snapshot("", None), dict(model), "", None))
        assert tested.get(key) == model.get(key)
    assert tested.range("", None) == expected(model, "", None)
    for prefix in ("0/", "1/", "2/", "3/"):
        end = prefix[:-1] + "0"
        assert tested.range(prefix, end) == expected(model, prefix, end)
    for snapshot, then, start, last in snapshots:
        wanted = expected(then, start, last)
        assert snapshot.values() == wanted and snapshot.length == len(wanted)
        names = [k for k in sorted(then) if k >= start and (last is None or k < last)]
        for after in ("", "1/07", "1/", *names[::3], "9"):
            rest = [then[k] for k in names if k > after]
            assert snapshot.page(after, 3) == (rest[:3], max(0, len(rest) - 3))
            assert snapshot.page(after, 0) == (rest, 0)


def test_keys_in_order_fill_the_chunks() -> None:
    tested: SortedMap[int] = SortedMap()
    for n in range(1000):
        tested.put(f"{n:04}", n)
    assert len(tested._chunks) < 1000 / 4
