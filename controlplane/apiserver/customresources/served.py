"""Which custom resources are served: the table of resources follows the stored CustomResourceDefinitions.

`sync` compares the stored definitions with what is served and publishes a new table if they differ. It runs before the
server is ready, after every write of a definition on this server, and (`run`) when another server wrote one. `run` also
brings conditions up to date when a name becomes free, and deletes the objects of definitions that are being deleted.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from controlplane.api import status
from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource, ResourceTable
from controlplane.apiserver.customresources import naming
from controlplane.apiserver.customresources.strategy import DefinitionStrategy
from controlplane.apiserver.http import User
from controlplane.apiserver.registry.deletion import DeleteOptions
from controlplane.apiserver.registry.generic import Registry
from controlplane.apiserver.webhook_client import Caller
from controlplane.store.broadcaster import Overflow
from controlplane.store.interface import StoreError

log = logging.getLogger(__name__)
Object = dict[str, Any]
PREFIX = "apiextensions.k8s.io/customresourcedefinitions/"
_USER = User("system:apiserver", ("system:masters", "system:authenticated"))
_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Served:
    """A definition and its rows. `crd` is without its schemas, which are large."""

    revision: int
    essence: Any
    rows: list[Resource]
    crd: Object


class CustomResources:
    """`builtin`: the resources that there are anyway, which win. `publish` is given each new table, `end_watches` a
    prefix of keys whose watches mean something else from now on; `caller` asks conversion webhooks."""

    def __init__(
        self, registry: Registry, builtin: ResourceTable, definitions: Definitions,
        publish: Callable[[ResourceTable], None], end_watches: Callable[[str], None], caller: Caller | None = None,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._cache = registry.cache
        self._builtin = builtin
        self._definitions = definitions
        self._publish = publish
        self._end_watches = end_watches
        self._caller = caller
        self._served: dict[str, _Served] = {}
        self._cleaning: dict[str, asyncio.Task[None]] = {}
        found = builtin.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert found is not None
        self._resource = found
        registry.set_strategy(found, DefinitionStrategy(found, self._others, self.sync))

    def _definitions_stored(self) -> list[Object]:
        """The definitions as of the last `sync`, without schemas."""
        return [each.crd for each in self._served.values()]

    def _others(self, name: str) -> list[Object]:
        return [crd for crd in self._definitions_stored() if crd["metadata"]["name"] != name]

    def sync(self) -> None:
        """Serve what is stored."""
        stored = {cached.key: cached for cached in self._cache.list(PREFIX)[0]}
        ended: list[list[Resource]] = []
        changed = False
        for key in [key for key in self._served if key not in stored]:
            ended.append(self._served.pop(key).rows)
            changed = True
        for key, cached in stored.items():
            known = self._served.get(key)
            if known is not None and known.revision == cached.revision:
                continue
            crd = cached.object
            essence = _essence(crd)
            if known is not None and known.essence == essence:
                self._served[key] = _Served(cached.revision, essence, known.rows, _slim(crd))
                continue
            made = [row for row in rows(crd, self._definitions, self._caller) if self._is_free(row)]
            if len(crd["spec"]["versions"]) == 1:
                for row in made:
                    assert row.custom is not None
                    row.custom.since = self._cache.revision
            self._served[key] = _Served(cached.revision, essence, made, _slim(crd))
            changed = True
            if known is not None:
                ended.append(known.rows)
        if not changed:
            return
        self._publish(self._builtin.with_added(row for each in self._served.values() for row in each.rows))
        for retired in ended:
            self._retire(retired)

    def _is_free(self, row: Resource) -> bool:
        return self._builtin.find(row.group, row.version, row.plural) is None

    def _retire(self, retired: list[Resource]) -> None:
        for row in retired:
            assert row.custom is not None
            row.custom.retired = True
            self._registry.forget(row)
        if retired:
            self._end_watches(self._registry.prefix(retired[0]))

    # --- beside requests ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                watcher = self._cache.subscribe(PREFIX)
                try:
                    while True:
                        self.sync()
                        await self._correct()
                        self._clean()
                        await watcher.next()
                except Overflow:
                    continue
                finally:
                    watcher.close()
        except StoreError:
            return
        finally:
            for task in self._cleaning.values():
                task.cancel()
            await asyncio.gather(*self._cleaning.values(), return_exceptions=True)

    async def _correct(self) -> None:
        """Write the conditions that differ from what they should be, e.g. because a name is free again."""
        crds = self._definitions_stored()
        for crd in crds:
            name, group = crd["metadata"]["name"], crd["spec"]["group"]
            if "deletionTimestamp" in crd["metadata"]:
                continue
            others = [other for other in crds if other is not crd and other["spec"]["group"] == group]
            if naming.status_of(crd, others) == crd.get("status"):
                continue

            async def change(old: Object, rivals: list[Object] = others) -> Object:
                return {**old, "status": naming.status_of(old, rivals)}

            try:
                await self._registry.update(self._resource, "", name, _USER, change, subresource="status")
            except status.StatusError as error:
                log.warning("crd=%s status not written error=%s", name, error)
            self.sync()
            crds = self._definitions_stored()

    def _clean(self) -> None:
        for crd in self._definitions_stored():
            meta = crd["metadata"]
            uid = meta["uid"]
            if "deletionTimestamp" not in meta or naming.FINALIZER not in (meta.get("finalizers") or ()):
                continue
            if uid not in self._cleaning:
                task = asyncio.create_task(self._clear(crd), name=f"clearing {meta['name']}")
                self._cleaning[uid] = task
                task.add_done_callback(partial(self._cleaned, uid))

    def _cleaned(self, uid: str, task: asyncio.Task[None]) -> None:
        self._cleaning.pop(uid, None)

    async def _clear(self, crd: Object) -> None:
        """Delete all objects of `crd`, wait until they are gone, and let it go."""
        name = crd["metadata"]["name"]
        while True:
            try:
                await self._clear_once(crd)
                return
            except status.StatusError as error:
                if error.code == 404:
                    return
                log.warning("crd=%s clearing retry=true error=%s", name, error)
                await asyncio.sleep(_RETRY_S)
            except StoreError:
                return

    async def _clear_once(self, crd: Object) -> None:
        name = crd["metadata"]["name"]
        log.info("crd=%s objects deleted", name)
        await self._terminating(name, True, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        for row in rows(crd, self._definitions)[:1]:
            prefix = self._registry.prefix(row)
            watcher = self._cache.subscribe(prefix)
            try:
                while items := self._cache.list(prefix)[0]:
                    for cached in items:
                        await self._delete(row, cached.object["metadata"])
                    if self._cache.list(prefix)[0]:  # finalizers: somebody has to do something first
                        try:
                            await watcher.next(_RETRY_S)
                        except Overflow:
                            watcher.close()
                            watcher = self._cache.subscribe(prefix)
            finally:
                watcher.close()
        await self._terminating(name, False, "InstanceDeletionCompleted", "removed all instances", last=True)

    async def _delete(self, row: Resource, meta: Object) -> None:
        if "deletionTimestamp" in meta:
            return
        options = DeleteOptions(uid=meta["uid"])
        try:
            await self._registry.delete(row, meta.get("namespace", ""), meta["name"], _USER, options)
        except status.StatusError as error:
            if error.code not in (404, 409):
                raise

    async def _terminating(self, name: str, state: bool, reason: str, message: str, *, last: bool = False) -> None:
        async def change(old: Object) -> Object:
            before = old.get("status") or {}
            conditions = naming.with_condition(
                list(before.get("conditions") or ()), "Terminating", state, reason, message
            )
            return {**old, "status": {**before, "conditions": conditions}}

        async def release(old: Object) -> Object:
            kept = [each for each in old["metadata"].get("finalizers") or () if each != naming.FINALIZER]
            return {**old, "metadata": {**old["metadata"], "finalizers": kept}}

        await self._registry.update(self._resource, "", name, _USER, change, subresource="status")
        if last:
            await self._registry.update(self._resource, "", name, _USER, release)


def rows(crd: Object, definitions: Definitions, caller: Caller | None = None) -> list[Resource]:
    """The resources that a definition brings."""
    from controlplane.apiserver.customresources import rows as made  # a server without any does not pay for it

    return made.rows(crd, definitions, caller)


def _essence(crd: Object) -> Any:
    """What decides how a definition is served."""
    state = crd.get("status") or {}
    terminating = naming.is_true(crd, "Terminating") or "deletionTimestamp" in crd["metadata"]
    spec = hashlib.sha256(msgspec.json.encode(crd["spec"])).digest()
    return spec, state.get("acceptedNames"), naming.is_true(crd, "Established"), terminating


def _slim(crd: Object) -> Object:
    """A definition without its schemas: what names and conditions are decided by."""
    versions = [
        {key: each[key] for key in ("name", "served", "storage") if key in each} for each in crd["spec"]["versions"]
    ]
    return {**crd, "spec": {**crd["spec"], "versions": versions}}
