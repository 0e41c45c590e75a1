"""Who gets which event, and what it costs those who did not ask."""

from __future__ import annotations

from controlplane.store.broadcaster import Broadcaster, Watcher
from controlplane.store.interface import Event, EventType, Record, covers, resplice, splice


def event(key: str, revision: int) -> Event:
    return Event(EventType.PUT, Record(key, b"", revision, revision))


async def test_events_reach_the_watchers_of_their_prefixes_in_one_shared_list() -> None:
    broadcaster: Broadcaster[Event] = Broadcaster()
    prefixes = ["", "core/", "core/pods/", "core/pods/", "core/pods/a/", "core/pods/a/x", "core/pods/b/", "apps/"]
    watchers: list[Watcher[Event]] = [broadcaster.subscribe(prefix, 1 << 20) for prefix in prefixes]
    sent = [event("core/pods/a/x", 1), event("core/pods/a/xx", 2), event("core/nodes/x", 3)]
    broadcaster.publish(sent)
    for watcher in watchers:
        wanted = [e for e in sent if covers(watcher.prefix, e.key)]
        assert list(watcher.take()) == wanted, watcher.prefix
    broadcaster.publish(sent)
    assert watchers[2].take() is watchers[3].take()
    for watcher in watchers:
        watcher.close()
    assert len(broadcaster) == 0


def test_splice_puts_the_revision_first_into_metadata() -> None:
    assert splice(b'{"metadata":{"name":"a"}}', 7) == b'{"metadata":{"resourceVersion":"7","name":"a"}}'
    assert splice(b'{"metadata":{}}', 7) == b'{"metadata":{"resourceVersion":"7"}}'
    nested = b'{"kind":"D","metadata":{"name":"a"},"spec":{"template":{"metadata":{"labels":{}}}}}'
    spliced = splice(nested, 12)
    assert spliced.count(b"resourceVersion") == 1 and spliced.startswith(b'{"kind":"D","metadata":{"resourceVersion"')
    assert resplice(spliced, 12, 345) == splice(nested, 345)
