"""What is known of every request when it is over: counters for /metrics, a log line, and whoever else listens.

The listeners are the door for an audit log: each gets the request (with its user and what it asked for), the response
and the seconds it took. Metric names are Kubernetes' own (kubernetes.io/docs/reference/instrumentation/metrics).
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator

from controlplane.apiserver.http import Handler, Request, Response
from controlplane.apiserver.requestinfo import RequestInfo

log = logging.getLogger(__name__)

Listener = Callable[[Request, Response, float], None]
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_SLOW_S = 1.0
_LONG = frozenset(("log", "exec", "attach", "portforward", "proxy"))
_NOTHING = RequestInfo(False, "", "")


class Observer:
    """`filter` goes first in the pipeline."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.inflight = 0
        self._totals: dict[tuple[str, str, str, str, str, int], int] = {}
        self._durations: dict[tuple[str, str, str, str, str], tuple[list[int], list[float]]] = {}

    async def filter(self, request: Request, rest: Handler) -> Response:
        clock = asyncio.get_running_loop().time
        begun = clock()
        self.inflight += 1
        try:
            response = await rest(request)
        finally:
            self.inflight -= 1
        seconds = clock() - begun
        info: RequestInfo = request.info or _NOTHING
        self._count(info, response.status, seconds)
        for listener in self.listeners:
            listener(request, response, seconds)
        if seconds > _SLOW_S and info.verb != "watch" and info.subresource not in _LONG:
            self._log(logging.WARNING, request, response, seconds)
        elif log.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, request, response, seconds)
        return response

    def _count(self, info: RequestInfo, code: int, seconds: float) -> None:
        key = (info.verb, info.group, info.version, info.resource, info.subresource)
        if not info.is_resource or code in (404, 405):
            # Only what exists has a label of its own: strangers must not be able to make up names.
            key = (info.verb if info.is_resource else "", "", "", "", "")
        self._totals[*key, code] = self._totals.get((*key, code), 0) + 1
        if info.verb == "watch" or info.subresource in _LONG:
            return
        found = self._durations.get(key)
        if found is None:
            found = self._durations[key] = [0] * (len(_BUCKETS) + 1), [0.0]
        found[0][bisect_left(_BUCKETS, seconds)] += 1
        found[1][0] += seconds

    def _log(self, level: int, request: Request, response: Response, seconds: float) -> None:
        log.log(
            level, "request method=%s path=%s user=%s code=%d ms=%.1f",
            request.method, request.path, request.user.name, response.status, seconds * 1000,
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Prometheus text."""
        name = "apiserver_request_total"
        yield f"# TYPE {name} counter"
        for (*labels, code), count in sorted(self._totals.items()):
            yield f'{name}{{{_labels(*labels)},code="{code}"}} {count}'
        name = "apiserver_request_duration_seconds"
        yield f"# TYPE {name} histogram"
        for key, (counts, total) in sorted(self._durations.items()):
            text, running = _labels(*key), 0
            for bound, count in zip((*map(str, _BUCKETS), "+Inf"), counts, strict=True):
                running += count
                yield f'{name}_bucket{{{text},le="{bound}"}} {running}'
            yield f"{name}_sum{{{text}}} {total[0]:.6f}"
            yield f"{name}_count{{{text}}} {running}"
        yield "# TYPE apiserver_current_inflight_requests gauge"
        yield f"apiserver_current_inflight_requests {self.inflight}"


def _labels(verb: str, group: str, version: str, resource: str, subresource: str) -> str:
    pairs = {"verb": verb.upper(), "group": group, "version": version, "resource": resource, "subresource": subresource}
    return ",".join(f'{name}="{value}"' for name, value in pairs.items())
