"""A local, indexed copy of a resource, kept current by a watch, and callbacks for what changes.

Flow: one watch with `sendInitialEvents` fills the store and goes on with the changes (servers without that: a list,
then a watch). When the watch ends it is resumed from the last revision seen, bookmarks included; when that revision
is too old (410) the store is filled anew and the difference is told to the handlers as if it had been watched. The
API server may be away for any length of time: the store then stays as it was, and attempts go on with back-off.

Objects are shared with every reader: never change one. Handlers are plain functions, called in the order of the
changes, after the store has changed; what they raise is logged and does no harm. It does not resync periodically.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from controlplane.api.status import StatusError
from controlplane.client.backoff import Backoff
from controlplane.client.errors import Unreachable
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client, Obj
from controlplane.clock import chance

log = logging.getLogger(__name__)

IndexFunc = Callable[[Obj], Iterable[str]]

_INITIAL_END = "k8s.io/initial-events-end"
_PAGE = 500


def key_of(obj: Obj) -> str:
    """`namespace/name`, or `name` alone for what has no namespace."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def split_key(key: str) -> tuple[str, str]:
    """(namespace, name) of a `key_of`."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def without_managed_fields(obj: Obj) -> Obj:
    """`obj` without `metadata.managedFields`: half of a typical object, and of use to nobody who watches."""
    metadata = obj.get("metadata", {})
    metadata.pop("managedFields", None)
    return obj


@dataclass(frozen=True, slots=True)
class _Handler:
    added: Callable[[Obj], None] | None
    updated: Callable[[Obj, Obj], None] | None
    deleted: Callable[[Obj], None] | None


class Informer:
    """Create, add handlers, run `run()` as a task, wait for `synced()`, then read."""

    def __init__(
        self,
        client: Client,
        r: ApiResource,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, IndexFunc] | None = None,
        *,
        transform: Callable[[Obj], Obj] = without_managed_fields,
        watch_list: bool = True,
    ) -> None:
        """`indexers`: name -> function giving the values under which `by_index` finds an object. `transform`: applied
        to each fresh object before it is stored; may change it in place. `watch_list`: try `sendInitialEvents`."""
        self.resource = r
        self._client, self._namespace = client, namespace
        self._labels, self._fields = label_selector, field_selector
        self._indexers = dict(indexers or {})
        self._indices: dict[str, dict[str, dict[str, Obj]]] = {name: {} for name in self._indexers}
        self._transform = transform
        self._watch_list = watch_list
        self._store: dict[str, Obj] = {}
        self._handlers: list[_Handler] = []
        self._version = ""
        self._synced = asyncio.Event()
        self._backoff = Backoff(0.05, 5.0)

    # --- reading

    async def synced(self) -> None:
        """Return once the store holds everything that the server had when the informer started."""
        await self._synced.wait()

    @property
    def has_synced(self) -> bool:
        """Whether `synced()` would return at once."""
        return self._synced.is_set()

    @property
    def resource_version(self) -> str:
        """The revision up to which the store is current; empty before the first sync."""
        return self._version

    def get(self, key: str) -> Obj | None:
        """The object with this `key_of`."""
        return self._store.get(key)

    def items(self) -> list[Obj]:
        """Every object, in no particular order."""
        return list(self._store.values())

    def keys(self) -> list[str]:
        """Every object's `key_of`."""
        return list(self._store)

    def __len__(self) -> int:
        return len(self._store)

    def by_index(self, name: str, value: str) -> list[Obj]:
        """The objects for which the indexer `name` gives `value`."""
        return list(self._indices[name].get(value, {}).values())

    def add_handler(
        self,
        added: Callable[[Obj], None] | None = None,
        updated: Callable[[Obj, Obj], None] | None = None,
        deleted: Callable[[Obj], None] | None = None,
    ) -> None:
        """Call `added(obj)`, `updated(old, new)`, `deleted(last known obj)` from now on; `added` at once for every
        object that is already here."""
        handler = _Handler(added, updated, deleted)
        self._handlers.append(handler)
        for obj in list(self._store.values()):
            self._tell(handler.added, obj)

    # --- following the server

    async def run(self) -> None:
        """Follow the server until cancelled. Call it once."""
        while True:
            try:
                progress = await self._follow()
            except StatusError as error:
                progress = False
                self._refused(error)
            except Unreachable as error:
                progress = False
                log.info("watch_broken resource=%s error=%s", self.resource.group_resource, error)
            except Exception:
                progress, self._version = False, ""
                log.exception("informer_failed resource=%s", self.resource.group_resource)
            if progress:
                self._backoff.reset()
            await asyncio.sleep(0 if progress else self._backoff.next())

    def _refused(self, error: StatusError) -> None:
        """What an answer that is no success means for the next attempt."""
        if error.code == 410:
            self._version = ""
            log.info("watch_expired resource=%s", self.resource.group_resource)
        elif error.code in (400, 422) and self._watch_list and not self._version:
            self._watch_list = False
            log.info("watch_list_unsupported resource=%s error=%s", self.resource.group_resource, error.message)
        else:
            log.warning("watch_refused resource=%s code=%d error=%s", self.resource.group_resource, error.code, error)

    async def _follow(self) -> bool:
        """One watch, from start to end; whether it was of use (so that the next may follow at once)."""
        filling: dict[str, Obj] | None = None
        if not self._version:
            if self._watch_list:
                filling = {}
            else:
                await self._list()
        started = asyncio.get_running_loop().time()
        useful = False
        watch = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._labels,
            field_selector=self._fields,
            send_initial_events=filling is not None,
            timeout_seconds=int(300 * (1 + chance.random())),
        )
        async with aclosing(watch):
            async for kind, obj in watch:
                version = obj["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    if filling is None:
                        self._version = version
                    elif (obj["metadata"].get("annotations") or {}).get(_INITIAL_END) == "true":
                        self._replace(filling, version)
                        filling = None
                    useful = True
                    self._backoff.reset()
                    continue
                obj = self._transform(obj)
                if filling is not None:
                    if kind == "DELETED":
                        filling.pop(key_of(obj), None)
                    else:
                        filling[key_of(obj)] = obj
                    continue
                if kind == "DELETED":
                    self._remove(key_of(obj), obj)
                else:
                    self._put(key_of(obj), obj)
                self._version = version
                useful = True
        return useful or asyncio.get_running_loop().time() - started > 1.0

    async def _list(self) -> None:
        """Fill the store from pages of a list."""
        found: dict[str, Obj] = {}
        token = ""
        while True:
            page = await self._client.list(
                self.resource,
                self._namespace,
                label_selector=self._labels,
                field_selector=self._fields,
                limit=_PAGE,
                continue_token=token,
            )
            for obj in page.get("items") or []:
                obj.setdefault("apiVersion", self.resource.api_version)  # typed servers leave both out in lists
                obj.setdefault("kind", self.resource.kind)
                found[key_of(obj)] = self._transform(obj)
            metadata = page["metadata"]
            token = metadata.get("continue") or ""
            if not token:
                break
        self._replace(found, metadata["resourceVersion"])

    # --- the store

    def _replace(self, found: dict[str, Obj], version: str) -> None:
        """Make the store equal to `found`, telling the difference."""
        for key in [k for k in self._store if k not in found]:
            self._remove(key, self._store[key])
        for key, obj in found.items():
            old = self._store.get(key)
            if old is None or old["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._put(key, obj)
        self._version = version
        if not self._synced.is_set():
            self._synced.set()
            log.info("synced resource=%s objects=%d revision=%s", self.resource.group_resource, len(found), version)

    def _put(self, key: str, obj: Obj) -> None:
        old = self._store.get(key)
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            self._remove(key, old)  # deleted and created again while nobody watched
            old = None
        self._store[key] = obj
        self._index(key, old, obj)
        for handler in self._handlers:
            if old is None:
                self._tell(handler.added, obj)
            else:
                self._tell(handler.updated, old, obj)

    def _remove(self, key: str, last: Obj) -> None:
        old = self._store.pop(key, None)
        if old is None:
            return
        self._index(key, old, None)
        for handler in self._handlers:
            self._tell(handler.deleted, last)

    def _index(self, key: str, old: Obj | None, new: Obj | None) -> None:
        for name, function in self._indexers.items():
            index = self._indices[name]
            before = self._values(function, old)
            after = self._values(function, new)
            for value in before - after:
                entries = index[value]
                entries.pop(key, None)
                if not entries:
                    del index[value]
            if new is not None:
                for value in after:
                    index.setdefault(value, {})[key] = new

    def _values(self, function: IndexFunc, obj: Obj | None) -> set[str]:
        if obj is None:
            return set()
        try:
            return set(function(obj))
        except Exception:
            log.exception("indexer_failed resource=%s", self.resource.group_resource)
            return set()

    def _tell(self, callback: Callable[..., None] | None, *args: Obj) -> None:
        if callback is None:
            return
        try:
            callback(*args)
        except Exception:
            log.exception("handler_failed resource=%s handler=%r", self.resource.group_resource, callback)
