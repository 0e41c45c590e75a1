"""A shared informer's cache that already shows what we wrote ourselves.

A controller acts on a cache that runs some milliseconds behind. If it looked again before its own writes came back, it
would create a pod twice, or write a status that is refused for its old resourceVersion. Kubernetes counts expected
events ("expectations"); here the server's answer to a write is laid over the cache until the informer has seen that
revision, so every look is at least as new as our own last write. It rests on resourceVersions growing across all
objects of a resource, which our server, etcd and Kubernetes since 1.35 promise.

It is not a lock: what others write still arrives late, and updates stay guarded by resourceVersion.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from controlplane import clock
from controlplane.controllers import meta

Indexer = Callable[[meta.Object], Iterable[str]]
Handler = Callable[[meta.Object], None]
Updated = Callable[[meta.Object, meta.Object], None]


class Cache(Protocol):
    """What a view needs of `controlplane.client.informer.Informer`."""

    @property
    def resource_version(self) -> str: ...
    def get(self, key: str) -> meta.Object | None: ...
    def items(self) -> Iterable[meta.Object]: ...
    def by_index(self, name: str, value: str) -> Iterable[meta.Object]: ...
    def add_handler(self, added: Handler | None, updated: Updated | None, deleted: Handler | None) -> None: ...


class View:
    """Reads of one resource. Objects are shared: never change them."""

    def __init__(self, cache: Cache, indexers: dict[str, Indexer]) -> None:
        self._cache = cache
        self._indexers = indexers
        self._shown = 0  # the highest resourceVersion among the objects that the informer has shown us
        self._written: dict[str, meta.Object] = {}
        self._deleted: dict[str, tuple[str, str]] = {}  # key -> (uid, when)
        cache.add_handler(added=self._on_seen, updated=lambda old, new: self._on_seen(new), deleted=self._on_gone)

    def get(self, key: str) -> meta.Object | None:
        """The object with this key (`namespace/name`, or `name` of a cluster-scoped one)."""
        cached = self._cache.get(key)
        return self._newest(key, cached) if self._written or self._deleted else cached

    def items(self) -> list[meta.Object]:
        """All objects."""
        return self._merged(self._cache.items(), lambda obj: True)

    def by_index(self, name: str, value: str) -> list[meta.Object]:
        """All objects for which the index `name` gives `value`."""
        return self._merged(self._cache.by_index(name, value), lambda obj: value in self._indexers[name](obj))

    def add_handler(
        self,
        added: Handler | None = None,
        updated: Updated | None = None,
        deleted: Handler | None = None,
    ) -> None:
        """Call back on what the informer sees (not on our own writes: they come back through it). Synchronous."""
        self._cache.add_handler(added=added, updated=updated, deleted=deleted)

    def wrote(self, obj: meta.Object) -> None:
        """The server answered a write with `obj`."""
        if meta.revision(obj) > self._seen():
            self._written[meta.key(obj)] = obj

    def deleted(self, obj: meta.Object) -> None:
        """The server accepted to delete `obj`: until the informer says so, it counts as being deleted."""
        there = self.get(meta.key(obj))
        if there is not None and meta.uid(there) == meta.uid(obj) and not meta.is_deleting(there):
            self._deleted[meta.key(obj)] = (meta.uid(obj), clock.rfc3339())

    def _seen(self) -> int:
        version = self._cache.resource_version
        return max(self._shown, int(version) if version.isdigit() else 0)

    def _newest(self, key: str, cached: meta.Object | None) -> meta.Object | None:
        written = self._written.get(key)
        found = written if written is not None else cached
        doomed = self._deleted.get(key)
        if found is None or doomed is None or doomed[0] != meta.uid(found) or meta.is_deleting(found):
            return found
        return meta.with_metadata(found, deletionTimestamp=doomed[1])

    def _merged(self, cached: Iterable[meta.Object], wanted: Callable[[meta.Object], bool]) -> list[meta.Object]:
        if not self._written and not self._deleted:
            return list(cached)
        merged = {meta.key(obj): obj for obj in cached}
        keys = [*merged, *(k for k in self._written if k not in merged)]
        found = (self._newest(key, merged.get(key)) for key in keys)
        return [obj for obj in found if obj is not None and wanted(obj)]

    def _on_seen(self, obj: meta.Object) -> None:
        self._shown = max(self._shown, meta.revision(obj))
        if self._written:
            # also what others deleted before the answer to our write arrived: its revision has passed by
            seen = self._seen()
            self._written = {k: o for k, o in self._written.items() if meta.revision(o) > seen}
        if self._deleted:
            key = meta.key(obj)
            doomed = self._deleted.get(key)
            if doomed is not None and (doomed[0] != meta.uid(obj) or meta.is_deleting(obj)):
                del self._deleted[key]

    def _on_gone(self, obj: meta.Object) -> None:
        key = meta.key(obj)
        doomed = self._deleted.get(key)
        if doomed is not None and doomed[0] == meta.uid(obj):
            del self._deleted[key]
        written = self._written.get(key)
        if written is not None and meta.uid(written) == meta.uid(obj):
            del self._written[key]
        self._on_seen(obj)
