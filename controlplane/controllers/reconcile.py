"""The loop that every controller runs: keys from informers, through a work queue, to `reconcile(key)`, until it fits.

`Controller` is the base class: it subscribes to shared informers, queues keys, and runs a few workers; a key is never
reconciled twice at the same time, a failure is retried with growing delays, and `reconcile` may ask to be called again
later. `Context` carries what all controllers of a process share: the client, one informer a resource, the recorder.

Controllers look at views (view.py) that show their own writes at once, and write through `self.writer`. Not here: any
decision; those are pure functions in each controller's file.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from controlplane.api.status import StatusError
from controlplane.client import resources as r
from controlplane.client.errors import Unreachable
from controlplane.client.events import Recorder
from controlplane.client.informer import Informer
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client
from controlplane.client.workqueue import WorkQueue
from controlplane.controllers import controllerref, meta, pods
from controlplane.controllers.actions import Action, Writer
from controlplane.controllers.config import Config
from controlplane.controllers.view import Indexer, View

log = logging.getLogger(__name__)

_PACE_SECONDS = 0.05
_PACED_KEYS = 10_000


def _namespace_index(obj: meta.Object) -> tuple[str, ...]:
    return (meta.namespace(obj),)


def _node_index(pod: meta.Object) -> tuple[str, ...]:
    return (pods.node_name(pod),) if pods.node_name(pod) else ()


def _service_index(endpointslice: meta.Object) -> tuple[str, ...]:
    service = meta.labels(endpointslice).get("kubernetes.io/service-name")
    return (f"{meta.namespace(endpointslice)}/{service}",) if service else ()


_OWNED: dict[str, Indexer] = {"owner": controllerref.owner_index, "namespace": _namespace_index}
INDEXERS: dict[ApiResource, dict[str, Indexer]] = {
    r.PODS: {**_OWNED, "node": _node_index},
    r.DEPLOYMENTS: {"namespace": _namespace_index},
    r.REPLICASETS: _OWNED,
    r.REPLICATIONCONTROLLERS: _OWNED,
    r.STATEFULSETS: {"namespace": _namespace_index},
    r.DAEMONSETS: {"namespace": _namespace_index},
    r.CONTROLLERREVISIONS: _OWNED,
    r.JOBS: _OWNED,
    r.ENDPOINTSLICES: {"service": _service_index},
    r.SERVICES: {"namespace": _namespace_index},
    r.PODDISRUPTIONBUDGETS: {"namespace": _namespace_index},
    r.PERSISTENTVOLUMECLAIMS: {"namespace": _namespace_index},
    r.RESOURCEQUOTAS: {"namespace": _namespace_index},
}
"""The indexes of the shared informers: known before any controller asks, since an informer is made once."""


class Context:
    """What the controllers of one process share."""

    def __init__(self, client: Client, config: Config | None = None) -> None:
        self.client = client
        self.config = config or Config()
        self.informers: dict[ApiResource, Informer] = {}
        self.views: dict[ApiResource, View] = {}
        self.whole: set[ApiResource] = set()
        """What the views show all objects of."""
        self.writer = Writer(client, self.views)
        self._recorders: dict[str, Recorder] = {}

    def view(self, resource: ApiResource, namespace: str = "", field_selector: str = "") -> View:
        """The shared view of `resource`. Namespace and field selector narrow what is watched; whoever asks first
        decides, so every controller must ask alike."""
        if resource not in self.views:
            indexers = INDEXERS.get(resource, {})
            informer = Informer(self.client, resource, namespace, field_selector=field_selector, indexers=indexers)
            self.informers[resource] = informer
            self.views[resource] = View(informer, indexers)
            if not namespace and not field_selector:
                self.whole.add(resource)
        return self.views[resource]

    def recorder(self, component: str) -> Recorder:
        """The events recorder of a component, such as `deployment-controller`."""
        if component not in self._recorders:
            self._recorders[component] = Recorder(self.client, component)
        return self._recorders[component]

    def background(self) -> Iterable[Callable[[], Coroutine[Any, Any, None]]]:
        """What must run for views and recorders to work; each ends only by cancellation."""
        yield from (informer.run for informer in self.informers.values())
        yield from (recorder.run for recorder in self._recorders.values())


class Controller:
    """Base of all controllers. A subclass names itself, takes its views in `__init__` (calling `super().__init__`
    first), adds handlers that `enqueue`, and implements `reconcile`."""

    name: ClassVar[str]
    """As in the `--controllers` option, e.g. `deployment-controller`."""
    workers: ClassVar[int] = 5

    def __init__(self, context: Context) -> None:
        self.context = context
        self.client = context.client
        self.config = context.config
        self.writer = context.writer
        self.recorder = context.recorder(self.name)
        self.queue: WorkQueue[str] = WorkQueue()
        self._paced: dict[str, float] = {}  # key -> loop time at which it was last due
        self.needs: list[ApiResource] = []
        """What must be complete before this controller starts."""

    async def reconcile(self, key: str) -> float | None:
        """Bring the object named by `key` nearer to what it shall be. Returns seconds after which to look again, or
        None when only a change matters. May raise anything: it is retried."""
        raise NotImplementedError

    def view(self, resource: ApiResource, namespace: str = "", field_selector: str = "") -> View:
        """The shared view of `resource`; this controller will not start before it is complete."""
        self.needs.append(resource)
        return self.context.view(resource, namespace, field_selector)

    def watch(self, resource: ApiResource, *, ignore_status: bool = False) -> View:
        """The shared view of the resource that this controller is about: every change queues its key.
        `ignore_status`: but for changes of nothing but the status, which are its own."""
        view = self.view(resource)

        def updated(old: meta.Object, new: meta.Object) -> None:
            if not (ignore_status and meta.differ_only_in_status(old, new)):
                self.enqueue(new)

        view.add_handler(added=self.enqueue, updated=updated, deleted=self.enqueue)
        return view

    def enqueue(self, obj: meta.Object) -> None:
        self.queue.add(meta.key(obj))

    def enqueue_paced(self, key: str) -> None:
        """Queue `key` at once, or 50 ms after it was last queued so: when thirty pods become ready together, what
        follows from them is written a few times, not thirty."""
        now, last = asyncio.get_running_loop().time(), self._paced.get(key, 0.0)
        if last > now:
            return  # due in a moment anyway
        if len(self._paced) > _PACED_KEYS:
            self._paced.clear()  # forgetting only means not to wait once
        self._paced[key] = due = max(last + _PACE_SECONDS, now)
        self.queue.add_after(key, due - now)

    async def perform(self, action: Action) -> meta.Object | None:
        """Execute one action and say so."""
        answer = await action.execute(self.writer)
        log.debug("%s", action.describe())
        return answer

    def event(self, obj: meta.Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an event about `obj`; never blocks, never fails."""
        self.recorder.event(obj, "Warning" if warning else "Normal", reason, message)

    async def start(self) -> None:
        """Called once when all views are complete, before the first reconcile."""

    async def run(self) -> None:
        """Work until cancelled."""
        for resource in self.needs:
            await self.context.informers[resource].synced()
        await self.start()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                again = await self.reconcile(key)
            except StatusError as error:
                # a conflict says that the cache was behind; it is the normal way to learn that
                level = logging.DEBUG if error.code in (404, 409) else logging.WARNING
                log.log(level, "controller=%s key=%s retry=true error=%s", self.name, key, error)
                self.queue.add_rate_limited(key)
            except Unreachable as error:
                log.warning("controller=%s key=%s retry=true error=%s", self.name, key, error)
                self.queue.add_rate_limited(key)
            except Exception:
                log.exception("controller=%s key=%s retry=true", self.name, key)
                self.queue.add_rate_limited(key)
            else:
                self.queue.forget(key)
                if again is not None:
                    self.queue.add_after(key, again)
            finally:
                self.queue.done(key)
