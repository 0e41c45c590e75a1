"""Taking away what a mode put into the kernel: all of it (clean-up), or what the mode before left (a switch).

A mode that takes over writes its own rules first and then calls `of_other_mode`, so that Services work all the time:
iptables mode's rules get packets before IPVS does, and connections that iptables mode has begun stay as connection
tracking knows them. Those that IPVS has begun end when its virtual servers go.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from netproxy import sysctl
from netproxy.backend import BackendError
from netproxy.iptables import rules as iptables_rules
from netproxy.iptables import transaction
from netproxy.iptables.rules import OWNED_PREFIXES, TABLES, Jump
from netproxy.iptables.rules import SHARED_CHAINS as IPTABLES_CHAINS
from netproxy.iptables.tool import Iptables
from netproxy.ipvs import rules as ipvs_rules
from netproxy.ipvs.kernel import Kernel, LinuxKernel, execute, present
from netproxy.ipvs.operations import DestroySet, RemoveServer, difference
from netproxy.ipvs.rules import SHARED_CHAINS as IPVS_CHAINS
from netproxy.ipvs.sets import SETS
from netproxy.ipvs.state import State

log = logging.getLogger(__name__)
ROUTE_LOCALNET = "net/ipv4/conf/all/route_localnet"
Chains = Mapping[str, Collection[str]]


def of_other_mode(
    tool: Iptables, mode: str, saved: Mapping[str, Sequence[str]], exclude_cidrs: Collection[str] = ()
) -> bool:
    """Remove all that is ours but not of `mode`, which has just been written. `saved`: what iptables-save said of each
    table before that. Returns whether nothing is left; what is left does no harm, and is logged."""
    ipvs = mode == "ipvs"
    ours, others = (IPVS_CHAINS, IPTABLES_CHAINS) if ipvs else (IPTABLES_CHAINS, IPVS_CHAINS)
    chains = {table: set(others[table]) - set(ours[table]) for table in TABLES}
    try:
        _remove_jumps(tool, saved, (ipvs_rules if ipvs else iptables_rules).jumps(), ours)
        _remove(tool, saved, chains, single=ipvs, ipvs=not ipvs, exclude_cidrs=exclude_cidrs)
    except BackendError as error:
        log.warning("the other mode's leftovers stay error=%r", str(error))
        return False
    return True


def _remove_jumps(tool: Iptables, saved: Mapping[str, Sequence[str]], jumps: Iterable[Jump], chains: Chains) -> None:
    """Take out jumps to `chains` that are not among `jumps`: both modes have the chain, but not the way to it."""
    wanted = {(jump.table, jump.source, jump.rule.rpartition(" ")[2]) for jump in jumps}
    for table, lines in saved.items():
        stray = []
        for line in lines:
            words = line.split()
            if words[:1] != ["-A"] or words[1].startswith("KUBE-") or words[-2] != "-j":
                continue
            if words[-1] in chains[table] and (table, words[1], words[-1]) not in wanted:
                stray.append("-D" + line[2:])
        if stray:
            tool.restore("\n".join([f"*{table}", *stray, "COMMIT"]) + "\n")


def of_all(tool: Iptables, exclude_cidrs: Collection[str] = ()) -> None:
    """Remove every trace of every mode. Raises BackendError."""
    chains = {table: {*IPTABLES_CHAINS[table], *IPVS_CHAINS[table]} for table in TABLES}
    saved = {table: tool.save(table) for table in TABLES}
    _remove(tool, saved, chains, single=True, ipvs=True, exclude_cidrs=exclude_cidrs)


def _remove(
    tool: Iptables,
    saved: Mapping[str, Sequence[str]],
    chains: Chains,
    *,
    single: bool,
    ipvs: bool,
    exclude_cidrs: Collection[str],
) -> None:
    there = {line[1:].split(" ", 1)[0] for lines in saved.values() for line in lines if line.startswith(":KUBE-")}
    text = transaction.removal(saved, chains, owned=single)
    if text:
        tool.restore(text)
    iptables_was_here = "KUBE-FIREWALL" in there or any(chain.startswith(OWNED_PREFIXES) for chain in there)
    if single and iptables_was_here:
        sysctl.write(ROUTE_LOCALNET, "0")  # only iptables mode's own rules made this setting safe
    if ipvs and (present() or "KUBE-IPVS-FILTER" in there):
        kernel = LinuxKernel()
        try:
            kernel.open()
            of_ipvs(kernel, exclude_cidrs)
        finally:
            kernel.close()


def of_ipvs(kernel: Kernel, exclude_cidrs: Collection[str]) -> None:
    """Virtual servers, sets and the interface. No rule may mention the sets any more. Raises BackendError."""
    actual = kernel.read()
    empty = difference(State(actual.servers, actual.destinations), State(), exclude_cidrs)
    servers = [operation for operation in empty.remove if isinstance(operation, RemoveServer)]
    execute([*servers, *(DestroySet(name) for name in SETS if name in actual.members)], kernel)
    kernel.remove_interface()
