"""The filter of API priority and fairness, and how it follows its configuration.

Watches, and streams to nodes, hold a seat only while they begin: what goes on for hours must not keep one. The
configuration is read anew when an object of it has changed; requests under way keep to what they began with.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.apiserver.exposition import family
from controlplane.apiserver.flowcontrol.levels import Level, levels
from controlplane.apiserver.flowcontrol.schemas import Classifier, Schema
from controlplane.apiserver.flowcontrol.turnstile import Turnstile
from controlplane.apiserver.http import Handler, Request, Response
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import CacheWatcher, WatchCache

_GROUP = "flowcontrol.apiserver.k8s.io"
SCHEMAS, LEVELS = f"{_GROUP}/flowschemas/", f"{_GROUP}/prioritylevelconfigurations/"
EXPENSIVE_OBJECTS = 500  # a list of more is made one at a time: some half a millisecond


class FlowControl:
    """`seats`: how many requests may be under way at once, over all levels."""

    def __init__(self, cache: WatchCache, seats: int) -> None:
        self._cache, self._seats = cache, seats
        self._watchers = self._subscribe()
        self._turnstile = Turnstile()
        self._classifier = Classifier([])
        self._levels: dict[str, Level] = {}
        self._default = Level("catch-all", False, seats, 0, 0, 64, 8, 50)  # until the cluster has its objects

    def _subscribe(self) -> list[CacheWatcher]:
        return [self._cache.subscribe(prefix) for prefix in (SCHEMAS, LEVELS)]

    def _keep_up(self) -> None:
        try:
            changed = [watcher for watcher in self._watchers if watcher.take()]
        except Overflow:  # nobody asked for so long that the queue ran over
            self._watchers = changed = self._subscribe()
        if changed:
            self.read()

    def read(self) -> None:
        """Take the objects as they are now."""
        self._classifier = Classifier.of([each.object for each in self._cache.list(SCHEMAS)[0]])
        self._levels = levels([each.object for each in self._cache.list(LEVELS)[0]], self._seats)

    async def filter(self, request: Request, rest: Handler) -> Response:
        self._keep_up()
        info: RequestInfo = request.info
        schema = self._classifier.find(request.user, info)
        others = self._levels
        level = others.get(schema.level) if schema is not None else None
        if level is None:
            level = self._default
        flow = _flow(schema, request, info)
        await level.enter(flow, others)
        try:
            if info.verb == "list" and not level.exempt and self._is_expensive(request, info):
                await self._turnstile.turn(flow)
            response = await rest(request)
        finally:
            level.leave(others)
        if schema is not None and request.headers.get("X-Kubernetes-Pf-Debug"):
            response.headers = {**(response.headers or {}), "X-Kubernetes-PF-FlowSchema-UID": schema.uid}
        return response

    def _is_expensive(self, request: Request, info: RequestInfo) -> bool:
        if info.name or ("limit=" in request.query_string and _small(request.query.get("limit", ""))):
            return False
        prefix = f"{info.group or 'core'}/{info.resource}/" + (f"{info.namespace}/" if info.namespace else "")
        return self._cache.count(prefix) > EXPENSIVE_OBJECTS

    def metrics(self) -> Iterator[str]:
        """Prometheus text, with Kubernetes' names."""
        found = list(self._levels.values())
        yield from family(
            "apiserver_flowcontrol_nominal_limit_seats", "gauge", "Nominal number of execution seats of a level.",
            [({"priority_level": x.name}, x.nominal) for x in found],
        )  # fmt: skip
        yield from family(
            "apiserver_flowcontrol_current_executing_seats", "gauge", "Seats taken now.",
            [({"priority_level": x.name}, x.in_use) for x in found],
        )  # fmt: skip
        yield from family(
            "apiserver_flowcontrol_current_inqueue_requests", "gauge", "Requests waiting for a seat now.",
            [({"priority_level": x.name}, x.waiting) for x in found],
        )  # fmt: skip
        yield from family(
            "apiserver_flowcontrol_dispatched_requests_total", "counter", "Requests that got a seat.",
            [({"priority_level": x.name}, x.dispatched) for x in found],
        )  # fmt: skip
        yield from family(
            "apiserver_flowcontrol_rejected_requests_total", "counter", "Requests that were refused.",
            [({"priority_level": x.name, "reason": why}, n) for x in found for why, n in sorted(x.refused.items())],
        )  # fmt: skip


def _flow(schema: Schema | None, request: Request, info: RequestInfo) -> str:
    return f"{schema.name}/{schema.flow(request.user, info)}" if schema is not None else request.user.name


def _small(limit: str) -> bool:
    return limit.isdecimal() and 0 < int(limit) <= EXPENSIVE_OBJECTS
