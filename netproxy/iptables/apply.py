"""iptables mode, applied: runs iptables-restore and iptables-save, and remembers what it has written.

Every write is `iptables-restore --noflush`: a transaction a table that leaves all foreign chains alone. The first one
(and every repair) reads the kernel's chains before, so that what an earlier life left behind goes; later ones send the
difference to what this object last wrote. Processes run on a thread of their own, which also may sit in another network
namespace than the rest (tests do that).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from netproxy import leftovers, sysctl
from netproxy.backend import Plans
from netproxy.iptables import rules, transaction
from netproxy.iptables.rules import PortRules, Settings
from netproxy.iptables.tool import Iptables, insertions
from netproxy.model import PortName
from netproxy.topology import ServicePlan

T = TypeVar("T")

_COMMENTS_UP_TO = 1000  # Service ports; kube-proxy drops its comments beyond 1,000 endpoints


class IptablesBackend:
    """See the module; `netproxy.backend.Backend`."""

    def __init__(
        self,
        settings: Settings,
        thread: ThreadPoolExecutor | None = None,
        command: str = "iptables",
        *,
        ipvs_exclude_cidrs: tuple[str, ...] = (),
    ) -> None:
        """`thread`: an executor of one thread in the node's network namespace; by default a new one in ours.
        `ipvs_exclude_cidrs`: virtual servers there are not what IPVS mode left."""
        self._settings = settings
        self._tool = Iptables(command)
        self._exclude_cidrs = ipvs_exclude_cidrs
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="iptables")
        self._written: dict[PortName, PortRules] = {}
        self._switched = False

    async def check(self) -> None:
        await self._run(lambda: self._tool.save("nat"))

    async def replace(self, plans: Plans) -> None:
        await self._run(lambda: self._replace(plans))

    async def update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        await self._run(lambda: self._update(changes))

    async def intact(self) -> bool:
        return await self._run(self._tool.canaries)

    async def cleanup(self) -> None:
        await self._run(self._cleanup)

    async def close(self) -> None:
        if self._own_thread:
            self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # On the thread.

    def _replace(self, plans: Plans) -> None:
        # A kernel told to be liberal about TCP windows calls nothing invalid that is not.
        liberal = sysctl.read("net/netfilter/nf_conntrack_tcp_be_liberal") == "1"
        comments = len(plans) <= _COMMENTS_UP_TO
        settings = dataclasses.replace(self._settings, comments=comments, drop_invalid=not liberal)
        if settings.localhost_node_ports:
            sysctl.write(leftovers.ROUTE_LOCALNET, "1")
        written = {name: rules.port_rules(plan, settings) for name, plan in plans.items()}
        saved = {table: self._tool.save(table) for table in ("filter", "nat")}
        found = [line[1:].split(" ", 1)[0] for line in saved["nat"] if line.startswith(":KUBE-")]
        text = transaction.full(written.values(), settings, found)
        self._tool.restore(text + insertions(rules.jumps(), saved))
        if not self._switched:
            self._switched = leftovers.of_other_mode(self._tool, "iptables", saved, self._exclude_cidrs)
        self._settings = settings
        self._written = written

    def _update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        before = {name: self._written[name] for name in changes if name in self._written}
        after = {name: rules.port_rules(plan, self._settings) for name, plan in changes.items() if plan is not None}
        text = transaction.difference(before, after)
        if text:
            self._tool.restore(text)
        for name in before:
            del self._written[name]
        self._written.update(after)

    def _cleanup(self) -> None:
        leftovers.of_all(self._tool, self._exclude_cidrs)
        self._written = {}
