"""What is known of every request when it is over: counters for /metrics, a log line, and whoever else listens.

The listeners are the door for an audit log: each gets the request (with its user and what it asked for), the response
and the seconds it took. Metric names, labels and buckets are Kubernetes' own
(kubernetes.io/docs/reference/instrumentation/metrics).
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from controlplane.apiserver.exposition import Histogram, family, histograms
from controlplane.apiserver.http import Handler, Request, Response
from controlplane.apiserver.requestinfo import RequestInfo

log = logging.getLogger(__name__)

Listener = Callable[[Request, Response, float], None]
_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
)  # fmt: skip
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
_SLOW_S = 1.0
_LONG = frozenset(("log", "exec", "attach", "portforward", "proxy"))
_CONNECT = _LONG - {"log"}
_NOTHING = RequestInfo(False, "", "")
_VERBS = {"create": "POST", "update": "PUT", "delete": "DELETE", "deletecollection": "DELETECOLLECTION"}
_PATHS = frozenset(("api", "apis", "healthz", "livez", "readyz", "metrics", "openapi", "version", ".well-known"))
_READING = frozenset(("GET", "HEAD"))


class Key(NamedTuple):
    """The labels that say which requests are counted together."""

    verb: str
    dry_run: str
    group: str
    version: str
    resource: str
    subresource: str
    scope: str
    component: str = "apiserver"


class Observer:
    """`filter` goes first in the pipeline."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.mutating = 0
        self.reading = 0
        self._totals: dict[tuple[Key, int], int] = defaultdict(int)
        self._durations: dict[Key, Histogram] = {}
        self._sizes: dict[Key, Histogram] = {}
        self._keys: dict[tuple[str, ...], Key] = {}
        self._deprecated: dict[tuple[str, ...], int] = {}

    @property
    def inflight(self) -> int:
        return self.mutating + self.reading

    async def filter(self, request: Request, rest: Handler) -> Response:
        clock = asyncio.get_running_loop().time
        begun = clock()
        reading = request.method in _READING
        if reading:
            self.reading += 1
        else:
            self.mutating += 1
        try:
            response = await rest(request)
        finally:
            if reading:
                self.reading -= 1
            else:
                self.mutating -= 1
        seconds = clock() - begun
        info: RequestInfo = request.info or _NOTHING
        self._count(request, info, response, seconds)
        for listener in self.listeners:
            listener(request, response, seconds)
        if seconds > _SLOW_S and info.verb != "watch" and info.subresource not in _LONG:
            self._log(logging.WARNING, request, response, seconds)
        elif log.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, request, response, seconds)
        return response

    def _count(self, request: Request, info: RequestInfo, response: Response, seconds: float) -> None:
        code = response.status
        key = self._key(request, info, known=code not in (404, 405))
        self._totals[key, code] += 1
        if key.verb in ("WATCH", "CONNECT") or info.subresource == "log":
            return
        found = self._durations.get(key)
        if found is None:
            found = self._durations[key] = Histogram(_SECONDS)
        found.observe(seconds)
        if info.is_resource and key.verb in ("GET", "LIST") and response.stream is None:
            sizes = self._sizes.get(key)
            if sizes is None:
                sizes = self._sizes[key] = Histogram(_BYTES)
            sizes.observe(sum(map(len, response.pieces)) if response.pieces else len(response.body))

    def _key(self, request: Request, info: RequestInfo, *, known: bool) -> Key:
        if not info.is_resource:
            first = request.path.split("/", 2)[1] if request.path.startswith("/") else ""
            path = f"/{first}" if first in _PATHS else ""
            # Only what exists has a label of its own: strangers must not be able to make up names.
            return Key(request.method if known else "", "", "", "", "", path if known else "", "")
        verb = info.verb
        if verb == "patch" and "apply-patch" in request.headers.get("Content-Type", ""):
            verb = "apply"
        dry_run = "All" if request.query_string and "dryRun" in request.query else ""
        parts = (
            verb, dry_run, info.group, info.version, info.resource, info.subresource,
            "n" if info.namespace else "", "o" if info.name or verb == "create" else "", "y" if known else "",
        )  # fmt: skip
        key = self._keys.get(parts)
        if key is None:
            key = _resource_key(*parts)
            if len(self._keys) < 10_000:
                self._keys[parts] = key
        return key

    def deprecated(self, group: str, version: str, resource: str, subresource: str, removed: str) -> None:
        """A request for something that will go (in Kubernetes `removed`, if that is known)."""
        self._deprecated[group, version, resource, subresource, removed] = 1

    def _log(self, level: int, request: Request, response: Response, seconds: float) -> None:
        log.log(
            level, "request method=%s path=%s user=%s code=%d ms=%.1f",
            request.method, request.path, request.user.name, response.status, seconds * 1000,
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Prometheus text."""
        totals = sorted(self._totals.items())
        yield from family(
            "apiserver_request_total", "counter", "Counter of apiserver requests.",
            (({**key._asdict(), "code": str(code)}, count) for (key, code), count in totals),
        )  # fmt: skip
        durations = [(key._asdict(), found) for key, found in sorted(self._durations.items())]
        about = "Response latency distribution in seconds."
        yield from histograms("apiserver_request_duration_seconds", about, durations)
        # Webhooks' time would be taken off here; what is served without them takes the same.
        yield from histograms("apiserver_request_sli_duration_seconds", about, durations)
        yield from histograms(
            "apiserver_response_sizes", "Response size distribution in bytes.",
            ((_without(key._asdict(), "dry_run"), found) for key, found in sorted(self._sizes.items())),
        )  # fmt: skip
        yield from family(
            "apiserver_current_inflight_requests", "gauge", "Number of requests under way, by kind.",
            [({"request_kind": "mutating"}, self.mutating), ({"request_kind": "readOnly"}, self.reading)],
        )  # fmt: skip
        names = ("group", "version", "resource", "subresource", "removed_release")
        yield from family(
            "apiserver_requested_deprecated_apis", "gauge", "Deprecated APIs that have been requested.",
            ((dict(zip(names, labels, strict=True)), 1) for labels in sorted(self._deprecated)),
        )  # fmt: skip


def _without(labels: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key != name}


def _resource_key(
    verb: str, dry_run: str, group: str, version: str, resource: str, subresource: str, in_namespace: str,
    one: str, known: str,
) -> Key:  # fmt: skip
    shown = "CONNECT" if subresource in _CONNECT else _VERBS.get(verb, verb.upper())
    if not known:
        return Key(shown, "", "", "", "", "", "")
    scope = "resource" if one else "namespace" if in_namespace else "cluster"
    return Key(shown, dry_run, group, version, resource, subresource, scope)
