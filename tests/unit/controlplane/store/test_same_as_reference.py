"""Hypothesis drives the SQLite store and the reference side by side: same results, same errors, same past."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controlplane.store.interface import Store, StoreError
from controlplane.store.memory import MemoryStore
from controlplane.store.sqlite import SqliteStore

KEYS = st.sampled_from(["core/pods/a/x", "core/pods/a/y", "core/pods/b/x", "core/pods/a-b/x", "core/nodes/x"])
PREFIXES = st.sampled_from(["", "core/", "core/pods/", "core/pods/a/", "core/pods/c/"])
VALUES = st.binary(max_size=8)
REVISIONS = st.integers(0, 40)


class SameAsReference(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.reference: Store = MemoryStore()
        self.tested: Store = SqliteStore(Path(self.folder.name) / "store.db")
        self.both("open")

    def both(self, method: str, *args: Any, **kwargs: Any) -> Any:
        results = []
        for store in (self.reference, self.tested):
            try:
                results.append(self.loop.run_until_complete(getattr(store, method)(*args, **kwargs)))
            except StoreError as error:
                results.append((type(error), vars(error)))
        assert results[0] == results[1]
        return results[0]

    def revision_of(self, key: str) -> int:
        record = self.loop.run_until_complete(self.reference.get(key))
        return 0 if record is None else record.revision

    @rule(key=KEYS, value=VALUES)
    def create(self, key: str, value: bytes) -> None:
        self.both("create", key, value)

    @rule(key=KEYS, value=VALUES, off=st.sampled_from([0, 0, 0, 1]))
    def update(self, key: str, value: bytes, off: int) -> None:
        self.both("update", key, value, self.revision_of(key) + off)

    @rule(key=KEYS, off=st.sampled_from([0, 0, 0, 1]))
    def delete(self, key: str, off: int) -> None:
        self.both("delete", key, self.revision_of(key) + off)

    @rule(revision=REVISIONS)
    def compact(self, revision: int) -> None:
        self.both("compact", revision)

    @rule(key=KEYS, revision=REVISIONS | st.none())
    def get(self, key: str, revision: int | None) -> None:
        self.both("get", key, revision)

    @rule(prefix=PREFIXES, after=KEYS | st.just(""), limit=st.integers(0, 3), revision=REVISIONS | st.none())
    def range(self, prefix: str, after: str, limit: int, revision: int | None) -> None:
        self.both("range", prefix, start_after=after, limit=limit, revision=revision)

    @rule(prefix=PREFIXES | KEYS, after=REVISIONS)
    def history(self, prefix: str, after: int) -> None:
        current = self.reference.current_revision
        self.both("_history", prefix, min(after, current), current)

    @rule()
    def reopen(self) -> None:
        self.both("close")
        self.tested = SqliteStore(Path(self.folder.name) / "store.db")
        self.both("open")

    @invariant()
    def same_revision(self) -> None:
        if hasattr(self, "tested"):
            assert self.tested.current_revision == self.reference.current_revision
            assert self.tested.compacted_revision == self.reference.compacted_revision

    def teardown(self) -> None:
        if hasattr(self, "tested"):
            self.both("close")
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.folder.cleanup()


SameAsReference.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestSameAsReference = SameAsReference.TestCase
