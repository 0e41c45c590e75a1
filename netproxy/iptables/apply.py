"""iptables mode, applied: runs iptables-restore and iptables-save, and remembers what it has written.

Every write is `iptables-restore --noflush`: a transaction a table that leaves all foreign chains alone. The first one
(and every repair) reads the kernel's chains before, so that what an earlier life left behind goes; later ones send the
difference to what this object last wrote. Processes run on a thread of their own, which also may sit in another network
namespace than the rest (tests do that).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from netproxy.backend import BackendError, Plans
from netproxy.iptables import rules, transaction
from netproxy.iptables.rules import CANARY, TABLES, PortRules, Settings
from netproxy.model import PortName
from netproxy.topology import ServicePlan

log = logging.getLogger(__name__)
T = TypeVar("T")

_LOCK_WAIT_S = "5"
_COMMENTS_UP_TO = 1000  # Service ports; kube-proxy drops its comments beyond 1,000 endpoints


class IptablesBackend:
    """See the module; `netproxy.backend.Backend`."""

    def __init__(self, settings: Settings, thread: ThreadPoolExecutor | None = None, command: str = "iptables") -> None:
        """`thread`: an executor of one thread in the node's network namespace; by default a new one in ours."""
        self._settings = settings
        self._command = command
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="iptables")
        self._written: dict[PortName, PortRules] = {}

    async def replace(self, plans: Plans) -> None:
        await self._run(lambda: self._replace(plans))

    async def update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        await self._run(lambda: self._update(changes))

    async def intact(self) -> bool:
        return await self._run(self._intact)

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
        liberal = _read_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal") == "1"
        comments = len(plans) <= _COMMENTS_UP_TO
        settings = dataclasses.replace(self._settings, comments=comments, drop_invalid=not liberal)
        if settings.localhost_node_ports:
            _write_sysctl("net/ipv4/conf/all/route_localnet", "1")
        written = {name: rules.port_rules(plan, settings) for name, plan in plans.items()}
        saved = {table: self._save(table) for table in ("filter", "nat")}
        found = [line[1:].split(" ", 1)[0] for line in saved["nat"] if line.startswith(":KUBE-")]
        text = transaction.full(written.values(), settings, found)
        missing = [j for j in rules.jumps() if not _has_jump(saved[j.table], j.source, j.rule)]
        for table in ("filter", "nat"):
            inserts = [f"-I {j.source} {j.rule}" for j in missing if j.table == table]
            if inserts:
                text += "\n".join([f"*{table}", *inserts, "COMMIT"]) + "\n"
        self._restore(text)
        self._settings = settings
        self._written = written

    def _update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        before = {name: self._written[name] for name in changes if name in self._written}
        after = {name: rules.port_rules(plan, self._settings) for name, plan in changes.items() if plan is not None}
        text = transaction.difference(before, after)
        if text:
            self._restore(text)
        for name in before:
            del self._written[name]
        self._written.update(after)

    def _intact(self) -> bool:
        """Our canary chains have their one rule in every table. `iptables -F` takes the rule, `-X` or a firewall's
        reload the chain."""
        for table in TABLES:
            done = self._call([self._command, "-w", _LOCK_WAIT_S, "-t", table, "-S", CANARY])
            if done.returncode or "-A" not in done.stdout:
                return False
        return True

    def _cleanup(self) -> None:
        text = transaction.removal({table: self._save(table) for table in TABLES})
        if text:
            self._restore(text)
            # Only our own rules made this setting safe.
            _write_sysctl("net/ipv4/conf/all/route_localnet", "0")
        self._written = {}

    def _restore(self, text: str) -> None:
        words = [f"{self._command}-restore", "-w", _LOCK_WAIT_S, "--noflush"]
        done = self._call(words, text)
        if done.returncode:
            reason = done.stderr.strip()
            number = re.search(r"line:? (\d+)", reason)
            lines = text.splitlines()
            at = f" [{lines[int(number[1]) - 1]}]" if number and 0 < int(number[1]) <= len(lines) else ""
            raise BackendError(f"{' '.join(words)}: {reason or f'exit {done.returncode}'}{at}")

    def _save(self, table: str) -> list[str]:
        done = self._call([f"{self._command}-save", "-t", table])
        if done.returncode:
            raise BackendError(f"{self._command}-save -t {table}: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def _call(self, words: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(words, input=text, capture_output=True, text=True, timeout=120, check=False)
        except OSError as error:
            raise BackendError(f"{words[0]}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"{' '.join(words)}: no answer within 120 s") from error


def _has_jump(saved: Sequence[str], source: str, rule: str) -> bool:
    """Whether `saved` has a rule from `source` to the same target. What is before `-j` is ours to choose and the
    tool's to print, so it is not compared."""
    start, end = f"-A {source} ", rule[rule.index("-j ") :]
    return any(line.startswith(start) and line.endswith(end) for line in saved)


def _read_sysctl(name: str) -> str:
    """A sysctl of this thread's network namespace; empty if the kernel does not have it."""
    try:
        with open("/proc/sys/" + name, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _write_sysctl(name: str, value: str) -> None:
    """Set a sysctl of this thread's network namespace unless it is so already. Raises BackendError."""
    if _read_sysctl(name) == value:
        return
    try:
        fd = os.open("/proc/sys/" + name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise BackendError(f"sysctl {name}={value}: {error.strerror}") from error
