"""What a controller wants done, as values: a plan is a list of these, which a test can compare and a log can tell.

Each action is one write to the API. `Writer` is how it is executed: the client, with every answer laid over the shared
caches (view.py). Not here: deciding, retrying and events, which are reconcile.py's.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.api.status import StatusError
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client, PatchKind
from controlplane.controllers import meta
from controlplane.controllers.view import View


class Writer:
    """Writes through `client`, remembered in the view of the resource, if there is one."""

    def __init__(self, client: Client, views: dict[ApiResource, View]) -> None:
        self.client = client
        self._views = views

    def _wrote(self, resource: ApiResource, obj: meta.Object) -> meta.Object:
        view = self._views.get(resource)
        if view is not None and obj.get("metadata", {}).get("uid"):
            view.wrote(obj)
        return obj

    async def create(self, resource: ApiResource, obj: meta.Object) -> meta.Object:
        return self._wrote(resource, await self.client.create(resource, obj, meta.namespace(obj)))

    async def update(self, resource: ApiResource, obj: meta.Object, subresource: str = "") -> meta.Object:
        return self._wrote(resource, await self.client.update(resource, obj, subresource=subresource))

    async def patch(
        self, resource: ApiResource, obj: meta.Object, body: Any, subresource: str = "", kind: PatchKind = "merge"
    ) -> meta.Object:
        answer = await self.client.patch(
            resource, meta.name(obj), body, meta.namespace(obj), kind=kind, subresource=subresource
        )
        return self._wrote(resource, answer)

    async def delete(self, resource: ApiResource, obj: meta.Object, **options: Any) -> None:
        """Delete exactly this object (its UID is a precondition). One that is gone is as good as deleted."""
        try:
            uid = meta.uid(obj) or None
            await self.client.delete(resource, meta.name(obj), meta.namespace(obj), uid=uid, **options)
        except StatusError as error:
            if error.code != 404:
                raise
        view = self._views.get(resource)
        if view is not None:
            view.deleted(obj)


class Action(Protocol):
    """One write."""

    def describe(self) -> str: ...

    async def execute(self, writer: Writer) -> meta.Object | None: ...


@dataclass(frozen=True, slots=True)
class Create:
    resource: ApiResource
    obj: meta.Object

    def describe(self) -> str:
        made = self.obj["metadata"]
        return f"create {self.resource.plural} {made.get('namespace', '')}/{made.get('name') or made['generateName']}"

    async def execute(self, writer: Writer) -> meta.Object | None:
        return await writer.create(self.resource, self.obj)


@dataclass(frozen=True, slots=True)
class Update:
    """Replace `obj` (or its `subresource`), guarded by the resourceVersion it carries."""

    resource: ApiResource
    obj: meta.Object
    subresource: str = ""

    def describe(self) -> str:
        return f"update {self.resource.plural}{'/' * bool(self.subresource)}{self.subresource} {meta.key(self.obj)}"

    async def execute(self, writer: Writer) -> meta.Object | None:
        return await writer.update(self.resource, self.obj, self.subresource)


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch (a dict) or a JSON patch (a list) of `obj` or its `subresource`."""

    resource: ApiResource
    obj: meta.Object
    body: Any
    subresource: str = ""

    def describe(self) -> str:
        return f"patch {self.resource.plural}{'/' * bool(self.subresource)}{self.subresource} {meta.key(self.obj)}"

    async def execute(self, writer: Writer) -> meta.Object | None:
        kind: PatchKind = "json" if isinstance(self.body, list) else "merge"
        return await writer.patch(self.resource, self.obj, self.body, self.subresource, kind)


@dataclass(frozen=True, slots=True)
class Delete:
    resource: ApiResource
    obj: meta.Object
    options: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        return f"delete {self.resource.plural} {meta.key(self.obj)}"

    async def execute(self, writer: Writer) -> meta.Object | None:
        await writer.delete(self.resource, self.obj, **self.options)
        return None


Done = Callable[[Action, "meta.Object | None"], None]
Failed = Callable[[Action, Exception], None]


async def slow_start(writer: Writer, actions: Sequence[Action], done: Done, failed: Failed) -> Exception | None:
    """Execute `actions` in batches of 1, 2, 4, … at once, and stop after a batch with a failure: a quota or a webhook
    that refuses one pod refuses all, and must not be asked a hundred times. Returns the first failure."""
    start, size = 0, 1
    while start < len(actions):
        error = await all_at_once(writer, actions[start : start + size], done, failed)
        if error is not None:
            return error
        start, size = start + size, size * 2
    return None


async def all_at_once(writer: Writer, actions: Iterable[Action], done: Done, failed: Failed) -> Exception | None:
    """Execute `actions` concurrently, all of them; `done` and `failed` are told of each. Returns the first failure."""
    actions = list(actions)
    answers = await asyncio.gather(*(a.execute(writer) for a in actions), return_exceptions=True)
    first: Exception | None = None
    for action, answer in zip(actions, answers, strict=True):
        if isinstance(answer, Exception):
            failed(action, answer)
            first = first or answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            done(action, answer)
    return first
