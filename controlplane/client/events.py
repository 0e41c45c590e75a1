"""Telling people what happened: core/v1 Events, written in the background, never in anybody's way.

`event()` only queues (bounded: when the queue is full the event is dropped and counted); `run()` writes. The same
event again (object, type, reason and message) becomes a higher `count` on the first one. One object may cause a burst
of 25 events and one every five minutes after that, as client-go's spam filter has it. Nothing here raises.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from controlplane.client.resources import EVENTS
from controlplane.client.rest import Client, Obj
from controlplane.clock import rfc3339, wall_time

log = logging.getLogger(__name__)

_QUEUE = 4096
_REMEMBERED = 4096
_BURST = 25
_REFILL_SECONDS = 300.0
_ATTEMPTS = 5


@dataclass(slots=True)
class _Written:
    name: str
    count: int


class Recorder:
    """Events of one component. Run `run()` as a task beside the component's own."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        """`component`: as `kubectl describe` shows it, e.g. `default-scheduler` or `kubelet`."""
        self.dropped = 0
        self._client = client
        self._source = {"component": component, **({"host": host} if host else {})}
        self._component, self._host = component, host
        self._last_name = 0
        self._queue: asyncio.Queue[Obj] = asyncio.Queue(_QUEUE)
        self._written: OrderedDict[tuple[str, ...], _Written] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def event(self, obj: Obj, type: str, reason: str, message: str) -> None:
        """Record that `reason` (CamelCase) happened to `obj`. `type`: `Normal` or `Warning`."""
        try:
            self._queue.put_nowait(self._make(obj, type, reason, message[:1024]))
        except asyncio.QueueFull:
            self.dropped += 1
        except (KeyError, TypeError):
            log.exception("event_failed reason=%s", reason)

    def _make(self, obj: Obj, type: str, reason: str, message: str) -> Obj:
        metadata = obj["metadata"]
        involved = {
            "apiVersion": obj.get("apiVersion", ""),
            "kind": obj.get("kind", ""),
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        seconds = wall_time()
        now = rfc3339(seconds)
        self._last_name = max(int(seconds * 1e9), self._last_name + 1)  # unique though the clock may stand still
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{self._last_name:x}",
                "namespace": metadata.get("namespace") or "default",
            },
            "involvedObject": {k: v for k, v in involved.items() if v},
            "reason": reason,
            "message": message,
            "type": type,
            "source": self._source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except StatusError as error:
                log.info("event_refused reason=%s error=%s", event["reason"], error)
            except Unreachable as error:
                log.info("event_lost reason=%s error=%s", event["reason"], error)
            except Exception:
                log.exception("event_failed reason=%s", event["reason"])
            self._queue.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until what was queued is written, at most `seconds`. `run` must be running."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            log.info("events_left count=%d", self._queue.qsize())

    async def _write(self, event: Obj) -> None:
        involved = event["involvedObject"]
        owner = f"{involved.get('kind')}/{involved.get('namespace')}/{involved['name']}/{involved.get('uid')}"
        if not self._allowed(owner):
            self.dropped += 1
            return
        key = (owner, event["type"], event["reason"], event["message"])
        namespace = event["metadata"]["namespace"]
        known = self._written.get(key)
        if known:
            self._written.move_to_end(key)
            change = {"count": known.count + 1, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._insist(lambda: self._client.patch(EVENTS, known.name, change, namespace))
                known.count += 1
                return
            except StatusError as error:
                if error.code != 404:  # expired by its time to live: start a new one
                    raise
        await self._insist(lambda: self._client.create(EVENTS, event))
        self._written[key] = _Written(event["metadata"]["name"], 1)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    async def _insist(self, request: Callable[[], Awaitable[Obj]]) -> None:
        """Repeat `request` while the server is away, for about twenty seconds altogether."""
        for attempt in range(_ATTEMPTS):
            try:
                await request()
                return
            except Unreachable:
                if attempt + 1 == _ATTEMPTS:
                    raise
                await asyncio.sleep(0.5 * 3**attempt)

    def _allowed(self, owner: str) -> bool:
        """Take a token of this object's bucket."""
        now = asyncio.get_running_loop().time()
        tokens, last = self._tokens.pop(owner, (float(_BURST), now))
        tokens = min(tokens + (now - last) / _REFILL_SECONDS, float(_BURST))
        allowed = tokens >= 1
        self._tokens[owner] = (tokens - 1 if allowed else tokens, now)
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)
        return allowed
