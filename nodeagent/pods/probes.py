"""Startup, readiness and liveness probes of running containers.

One task for each probe, which sleeps its period; a container without probes costs nothing. The startup probe goes
first, alone. Startup and readiness are asked eagerly during their first period. Results go to the worker through two
callbacks: `changed` when started or ready flips, `condemn` when the container must be restarted. Thresholds and
messages: kubelet's pkg/kubelet/prober.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from controlplane import clock
from nodeagent.pods import handlers
from nodeagent.pods.memory import Condemned, Health
from nodeagent.pods.model import Desired, Object, Wanted

log = logging.getLogger(__name__)

Tell = Callable[[Object, str, str, str], None]

_EAGER_S = 0.05  # the first pause of the eager phase; each following one is twice as long


@dataclass(slots=True)
class ContainerProbes:
    """The probes of one running container instance. `started_at`: seconds since the epoch."""

    want: Desired
    wanted: Wanted
    target: handlers.Target
    started_at: float
    health: Health
    tell: Tell
    changed: Callable[[], None]
    condemn: Callable[[str, Condemned], None]
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Begin. Sets in `health` what holds without probes."""
        spec = self.wanted.spec
        if spec.get("startupProbe") and not self.health.started:
            self._spawn(self._startup(spec["startupProbe"]))
            return
        self.health.started = True
        self._rest()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _rest(self) -> None:
        spec = self.wanted.spec
        if spec.get("readinessProbe"):
            self._spawn(self._readiness(spec["readinessProbe"]))
        else:
            self.health.ready = True
        if spec.get("livenessProbe"):
            self._spawn(self._liveness(spec["livenessProbe"]))

    def _spawn(self, coroutine: object) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))  # type: ignore[arg-type]

    async def _startup(self, probe: Object) -> None:
        if await self._until_decided(probe, "Startup"):
            self.health.started = True
            self._rest()
            self.changed()
        else:
            self._doom(probe, "startup")

    async def _liveness(self, probe: Object) -> None:
        await self._delay(probe, at_least=_period(probe))  # a program needs a moment before it can fail
        failures = 0
        while True:
            failures = 0 if await self._ask(probe, "Liveness") else failures + 1
            if failures >= (probe.get("failureThreshold") or 3):
                self._doom(probe, "liveness")
                return
            await self._period(probe)

    async def _readiness(self, probe: Object) -> None:
        await self._delay(probe)
        if not self.health.ready and (probe.get("successThreshold") or 1) == 1 and await self._eagerly(probe):
            self.health.ready = True
            self.changed()
            await self._period(probe)
        same, last = 0, self.health.ready
        while True:
            ok = await self._ask(probe, "Readiness")
            same = same + 1 if ok == last else 1
            last = ok
            threshold = (probe.get("successThreshold") or 1) if ok else (probe.get("failureThreshold") or 3)
            if ok != self.health.ready and same >= threshold:
                self.health.ready = ok
                self.changed()
            await self._period(probe)

    async def _until_decided(self, probe: Object, name: str) -> bool:
        await self._delay(probe)
        if await self._eagerly(probe):
            return True
        failures = 0
        while True:
            if await self._ask(probe, name):
                return True
            failures += 1
            if failures >= (probe.get("failureThreshold") or 3):
                return False
            await self._period(probe)

    async def _eagerly(self, probe: Object) -> bool:
        """Ask at once and, until the first period is over, soon again: most programs answer within a moment, and need
        not wait ten seconds to be noticed. These failures count nothing and are told to nobody."""
        pause, left = _EAGER_S, _period(probe)
        while left > 0:
            result = await handlers.run(probe, self.target, float(probe.get("timeoutSeconds") or 1))
            if result.ok:
                return True
            pause = min(pause, left)
            await asyncio.sleep(pause)
            left -= pause
            pause *= 2
        return False

    async def _ask(self, probe: Object, name: str) -> bool:
        result = await handlers.run(probe, self.target, float(probe.get("timeoutSeconds") or 1))
        if not result.ok:
            self.tell(self.want.pod, "Warning", "Unhealthy", f"{name} probe failed: {result.output}"[:1024])
        return result.ok

    def _doom(self, probe: Object, name: str) -> None:
        grace = probe.get("terminationGracePeriodSeconds")
        message = f"Container {self.wanted.name} failed {name} probe, will be restarted"
        seconds = self.want.termination_grace_s if grace is None else float(grace)
        self.condemn(self.target.container_id, Condemned(message, seconds))

    async def _delay(self, probe: Object, at_least: float = 0.0) -> None:
        delay = max(float(probe.get("initialDelaySeconds") or 0), at_least)
        left = self.started_at + delay - clock.wall_time()
        if left > 0:
            await asyncio.sleep(left)

    async def _period(self, probe: Object) -> None:
        await asyncio.sleep(_period(probe))


def _period(probe: Object) -> float:
    return float(probe.get("periodSeconds") or 10)
