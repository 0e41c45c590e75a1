"""The proxy: events in, one backend kept equal to them.

    informers ─> ChangeTracker ─> runner ─> topology.plan ─> backend.update or .replace ─> conntrack, health checks

Only Services that changed since the last write are planned again. After a failed or lost write, and every
`full_sync_s`, everything is written anew.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from netproxy import conntrack, topology
from netproxy.backend import Backend
from netproxy.changes import ChangeTracker
from netproxy.healthcheck import Health, ServiceHealth
from netproxy.model import Obj, PortName, ServiceName
from netproxy.runner import BoundedFrequencyRunner
from netproxy.topology import Location, ServicePlan

log = logging.getLogger(__name__)
_ZONE_LABEL = "topology.kubernetes.io/zone"
_EXCLUDE_TAINT = "ToBeDeletedByClusterAutoscaler"


class Proxy:
    """One node's proxy. Feed it with `service_changed` and its like, run `run()`, wait for `ready`."""

    def __init__(
        self,
        backend: Backend,
        node_name: str,
        *,
        min_sync_period_s: float = 0.0,
        sync_period_s: float = 30.0,
        full_sync_s: float = 3600.0,
        thread: ThreadPoolExecutor | None = None,
        health_host: str = "",
    ) -> None:
        """`thread`: where connection tracking is read, in the node's network namespace; by default one of its own."""
        self._backend = backend
        self._tracker = ChangeTracker(node_name)
        self._location = Location(node_name)
        self._plans: dict[ServiceName, dict[PortName, ServicePlan]] = {}
        self._runner = BoundedFrequencyRunner(
            self._sync, self._check, min_interval_s=min_sync_period_s, idle_interval_s=sync_period_s
        )
        self._full_sync_s = full_sync_s
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="conntrack")
        self._full = True
        self._full_at = 0.0
        self._started = False
        self.ready = asyncio.Event()
        """Set after the first successful write."""
        self.health = Health(limit_s=2 * max(sync_period_s, 1.0))
        self._service_health = ServiceHealth(self.health, health_host)

    # Events, in any order, at any time.

    def service_changed(self, service: Obj, *_: object) -> None:
        self._note(self._tracker.service_changed(service))

    def service_deleted(self, service: Obj) -> None:
        self._note(self._tracker.service_deleted(service))

    def slice_changed(self, endpoint_slice: Obj) -> None:
        self._note(self._tracker.slice_changed(endpoint_slice))

    def slice_deleted(self, endpoint_slice: Obj) -> None:
        self._note(self._tracker.slice_deleted(endpoint_slice))

    def node_changed(self, node: Obj) -> None:
        """Our own Node: its zone decides on hints, its taints on load balancers."""
        metadata = node["metadata"]
        taints = node.get("spec", {}).get("taints") or ()
        going = bool(metadata.get("deletionTimestamp")) or any(t.get("key") == _EXCLUDE_TAINT for t in taints)
        self.health.node_eligible = not going
        location = Location(self._location.node_name, (metadata.get("labels") or {}).get(_ZONE_LABEL, ""))
        if location != self._location:
            self._location = location
            self._full = True
            self._note(True)

    def start(self) -> None:
        """What was fed so far is complete: from now on rules may be written."""
        self._started = True
        self._note(True)

    async def run(self) -> None:
        """Keep the backend up to date until cancelled. The rules stay."""
        try:
            await self._runner.run()
        finally:
            await self._service_health.close()
            if self._own_thread:
                self._thread.shutdown(wait=True)

    def _note(self, matters: bool) -> None:
        if matters and self._started:
            self.health.queued()
            self._runner.request()

    # Writing.

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        full = self._full or began - self._full_at >= self._full_sync_s
        changed = self._tracker.take()
        names = set(self._tracker.names()) | set(self._plans) if full else changed
        fresh = {name: self._plan(name) for name in names}
        try:
            if full:
                await self._backend.replace({p: plan for plans in fresh.values() for p, plan in plans.items()})
            else:
                changes: dict[PortName, ServicePlan | None] = {}
                for name, plans in fresh.items():
                    old = self._plans.get(name, {})
                    changes.update({p: None for p in old if p not in plans})
                    changes.update({p: plan for p, plan in plans.items() if old.get(p) != plan})
                await self._backend.update(changes)
        except BaseException:
            self._full = True
            self._tracker.put_back(changed)
            raise
        if full:
            self._full, self._full_at = False, began
        await self._forget_stale(fresh)
        for name, plans in fresh.items():
            if plans:
                self._plans[name] = plans
            else:
                self._plans.pop(name, None)
        await self._sync_health_ports()
        if not self._tracker.pending:
            self.health.updated()
        log.log(
            logging.INFO if full else logging.DEBUG,
            "rules written full=%s services=%d changed=%d ms=%.1f",
            str(full).lower(), len(self._plans), len(names), (loop.time() - began) * 1000,
        )  # fmt: skip
        self.ready.set()

    async def _check(self) -> None:
        """Nothing has happened for a while: is everything still there?"""
        if not self._started:
            return
        if asyncio.get_running_loop().time() - self._full_at >= self._full_sync_s:
            self._full = True
        elif not await self._backend.intact():
            log.warning("rules are gone; writing all of them again")
            self._full = True
        if self._full:
            self._note(True)
        elif not self._tracker.pending:  # something may have come in while we looked
            self.health.updated()

    def _plan(self, name: ServiceName) -> dict[PortName, ServicePlan]:
        return {
            port.name: topology.plan(port, self._tracker.endpoints(name, port.name.port), self._location)
            for port in self._tracker.ports(name)
        }

    async def _forget_stale(self, fresh: dict[ServiceName, dict[PortName, ServicePlan]]) -> None:
        """Delete UDP connections that the rules just written would no longer make."""
        gone = [
            ServicePlan(plan.port)
            for name, plans in fresh.items()
            for port, plan in self._plans.get(name, {}).items()
            if port not in plans
        ]
        now = [
            plan
            for name, plans in fresh.items()
            for port, plan in plans.items()
            if self._plans.get(name, {}).get(port) != plan
        ]
        expected = {**conntrack.expected(gone), **conntrack.expected(now)}
        if not expected:
            return

        def forget() -> int:
            with conntrack.Conntrack() as table:
                return table.delete(conntrack.stale(table.udp(), expected))

        try:
            count = await asyncio.get_running_loop().run_in_executor(self._thread, forget)
        except OSError as error:  # e.g. no ctnetlink in this kernel: rules are right, old UDP flows die of age
            log.warning("stale connections stay error=%r", str(error))
            return
        if count:
            log.info("forgot stale UDP connections count=%d", count)

    async def _sync_health_ports(self) -> None:
        wanted = {}
        for name, plans in self._plans.items():
            for plan in plans.values():
                if plan.port.health_check_node_port:
                    wanted[name] = (plan.port.health_check_node_port, len({e.ip for e in plan.local}))
        await self._service_health.sync(wanted)
