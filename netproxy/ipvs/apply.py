"""IPVS mode, applied: reads what the kernel has, works out what is missing, and does it.

The first write (and every repair) reads everything; later ones compare what Service ports wanted before with what they
want now, and touch nothing else. Everything runs on a thread of its own, which also may sit in another network
namespace than the rest (tests do that).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from netproxy import leftovers
from netproxy.backend import Plans
from netproxy.iptables.tool import Iptables, insertions
from netproxy.ipvs import requirements, rules
from netproxy.ipvs.graceful import Leaving
from netproxy.ipvs.kernel import Kernel, LinuxKernel, execute
from netproxy.ipvs.operations import Operation, difference
from netproxy.ipvs.plan import Desired, Node, PortState, Settings, port_state
from netproxy.ipvs.state import Key, State
from netproxy.model import PortName
from netproxy.topology import ServicePlan

log = logging.getLogger(__name__)
T = TypeVar("T")

_SWEEP_S = 5.0  # so often at most it is looked whether leaving destinations may go
_SAMPLE = 500  # virtual servers whose destinations are compared at each check


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of the configuration changes the kernel's settings. Times in seconds; 0: as the kernel has it."""

    strict_arp: bool = False
    tcp_timeout_s: int = 0
    tcp_fin_timeout_s: int = 0
    udp_timeout_s: int = 0
    graceful_s: float = 3600.0


class IpvsBackend:
    """See the module; `netproxy.backend.Backend`."""

    def __init__(
        self,
        settings: Settings,
        thread: ThreadPoolExecutor | None = None,
        *,
        tuning: Tuning | None = None,
        kernel: Kernel | None = None,
        tool: Iptables | None = None,
    ) -> None:
        """`thread`: an executor of one thread in the node's network namespace; by default a new one in ours.
        `kernel`, `tool`: others than this machine's (tests)."""
        self._settings, self._tuning = settings, tuning or Tuning()
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="ipvs")
        self._real = kernel is None
        self._kernel = kernel
        self._tool = tool or Iptables()
        self._desired = Desired()
        self._leaving = Leaving(self._tuning.graceful_s)
        self._node = Node()
        self._switched = False
        self._swept_at = float("-inf")
        self._sample_from = 0

    async def check(self) -> None:
        if self._real:
            await self._run(lambda _: requirements.check(self._settings.scheduler))

    async def replace(self, plans: Plans) -> None:
        await self._run(lambda now: self._replace(plans, now))

    async def update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        await self._run(lambda now: self._update(changes, now))

    async def intact(self) -> bool:
        return await self._run(self._intact)

    async def cleanup(self) -> None:
        await self._run(lambda _: self._cleanup())

    async def close(self) -> None:
        await self._run(lambda _: self._close())
        if self._own_thread:
            self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[float], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, loop.time())

    # On the thread.

    def _close(self) -> None:
        if self._real and self._kernel:
            self._kernel.close()
            self._kernel = None

    def _opened(self) -> Kernel:
        if self._kernel is None:
            self._kernel = LinuxKernel()
        self._kernel.open()
        return self._kernel

    def _replace(self, plans: Plans, now: float) -> None:
        kernel = self._opened()
        if self._real:
            requirements.tune(strict_arp=self._tuning.strict_arp)
        kernel.set_timeouts(self._tuning.tcp_timeout_s, self._tuning.tcp_fin_timeout_s, self._tuning.udp_timeout_s)
        actual = kernel.read()
        self._node = Node.of(kernel.addresses()[1], self._settings)
        self._desired = Desired()
        self._desired.change({name: self._port_state(plan) for name, plan in plans.items()})
        desired = self._desired.state()
        steps = difference(actual, desired, self._settings.exclude_cidrs)
        self._execute(steps.put)
        saved = {table: self._tool.save(table) for table in ("filter", "nat")}
        self._tool.restore(rules.text(self._settings) + insertions(rules.jumps(), saved))
        self._execute(steps.remove)
        self._leaving.written(actual, desired, now)
        if not self._switched:
            self._switched = leftovers.of_other_mode(self._tool, "ipvs", saved)
        self._sweep(self._leaving.keys, now)

    def _update(self, changes: Mapping[PortName, ServicePlan | None], now: float) -> None:
        wanted = {name: None if plan is None else self._port_state(plan) for name, plan in changes.items()}
        before, after = self._desired.change(wanted)
        for key, destinations in before.destinations.items():
            destinations.update((target, 0) for target in self._leaving.of(key))
        steps = difference(before, after)
        self._execute([*steps.put, *steps.remove])
        self._leaving.written(before, after, now)
        self._sweep([key for key in self._leaving.keys if key in after.servers], now)
        if now - self._swept_at >= _SWEEP_S:
            self._sweep(self._leaving.keys, now)

    def _port_state(self, plan: ServicePlan) -> PortState:
        return port_state(plan, self._settings, self._node)

    def _execute(self, operations: list[Operation]) -> None:
        if log.isEnabledFor(logging.DEBUG):
            for operation in operations:
                log.debug("operation %s", operation.describe())
        execute(operations, self._opened())

    def _sweep(self, keys: list[Key], now: float) -> None:
        """Remove leaving destinations that nobody is connected to any more."""
        kernel = self._opened()
        self._swept_at = now
        done: list[Operation] = []
        for key in keys:
            done += self._leaving.due(key, kernel.destinations(key), now)
        if done:
            self._execute(done)

    def _intact(self, now: float) -> bool:
        """Whether the kernel still has what was written. Virtual servers, addresses and the sizes of sets are all
        compared, destinations of some virtual servers each time."""
        kernel = self._opened()
        self._sweep(self._leaving.keys, now)
        desired = self._desired.state()
        ours, node = kernel.addresses()
        sizes = {name: len(members) for name, members in desired.members.items()}
        return (
            kernel.servers() >= desired.servers.keys()
            and ours == desired.addresses
            and node == self._node.addresses
            and kernel.set_sizes() == sizes
            and self._sample_intact(kernel, desired)
            and self._tool.canaries()
        )

    def _sample_intact(self, kernel: Kernel, desired: State) -> bool:
        keys = list(desired.servers)
        start = self._sample_from if self._sample_from < len(keys) else 0
        self._sample_from = start + _SAMPLE
        for key in itertools.islice(keys, start, start + _SAMPLE):
            wanted = dict.fromkeys(self._leaving.of(key), 0) | desired.destinations[key]
            if {d.target: d.weight for d in kernel.destinations(key)} != wanted:
                return False
        return True

    def _cleanup(self) -> None:
        if self._real:
            leftovers.of_all(self._tool, self._settings.exclude_cidrs)
            self._close()
        elif self._kernel:
            leftovers.of_ipvs(self._kernel, self._settings.exclude_cidrs)
        self._desired, self._leaving = Desired(), Leaving(self._tuning.graceful_s)
