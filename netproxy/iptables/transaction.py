"""The text that iptables-restore gets: everything, or only what changed. Pure.

`full()` declares and fills every chain of ours and deletes those found that nobody needs. `difference()` rewrites the
chains that changed, takes out and puts in single entries of the shared chains, and never mentions the rest: at 5,000
Services one change is a few lines. Both are one transaction a table: the kernel does all or nothing, and no packet sees
a half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netproxy.iptables.rules import OWNED_PREFIXES, SHARED_CHAINS, TABLES, PortRules, Settings, shared_rules
from netproxy.model import PortName


def full(ports: Iterable[PortRules], settings: Settings, found: Iterable[str]) -> str:
    """All rules. `found`: the nat chains that exist; ours among them that nobody needs any more are deleted."""
    entries: dict[tuple[str, str], list[str]] = {(t, c): [] for t in TABLES for c in SHARED_CHAINS[t]}
    declared: list[str] = []
    rules: list[str] = []
    needed: set[str] = set()
    for port in ports:
        for table, chain, rule in port.entries:
            entries[table, chain].append(rule)
        for chain, lines in port.chains.items():
            needed.add(chain)
            declared.append(f":{chain} - [0:0]")
            rules += [f"-A {chain} {line}" for line in lines]
    for key, lines in shared_rules(settings).items():
        entries[key] += lines
    stale = sorted(c for c in found if c.startswith(OWNED_PREFIXES) and c not in needed)
    text: list[str] = []
    for table in TABLES:
        text.append(f"*{table}")
        text += [f":{chain} - [0:0]" for chain in SHARED_CHAINS[table]]
        if table == "nat":
            text += declared
            text += [f":{chain} - [0:0]" for chain in stale]
        for chain in SHARED_CHAINS[table]:
            text += [f"-A {chain} {line}" for line in entries[table, chain]]
        if table == "nat":
            text += rules
            text += [f"-X {chain}" for chain in stale]
        text.append("COMMIT")
    return "\n".join(text) + "\n"


def difference(before: Mapping[PortName, PortRules], after: Mapping[PortName, PortRules]) -> str:
    """What turns the rules `before` of some Service ports into those `after`; a port in only one of them appears or
    goes. Empty if there is nothing to do."""
    declared: list[str] = []
    rules: list[str] = []
    deleted: list[str] = []
    entries: dict[str, list[str]] = {table: [] for table in TABLES}
    nothing = PortRules()
    for name in {**before, **after}:
        old, new = before.get(name, nothing), after.get(name, nothing)
        for chain, lines in new.chains.items():
            if old.chains.get(chain) != lines:
                declared.append(f":{chain} - [0:0]")
                rules += [f"-A {chain} {line}" for line in lines]
        for chain in old.chains:
            if chain not in new.chains:
                declared.append(f":{chain} - [0:0]")
                deleted.append(f"-X {chain}")
        # Deleting first: a Service made anew may have the address of an old one.
        entries_before, entries_after = set(old.entries), set(new.entries)
        for table, chain, line in old.entries:
            if (table, chain, line) not in entries_after:
                entries[table].insert(0, f"-D {chain} {line}")
        for table, chain, line in new.entries:
            if (table, chain, line) not in entries_before:
                entries[table].append(f"-I {chain} {line}")
    text: list[str] = []
    for table in TABLES:
        nat = table == "nat"
        lines_ = [*(declared if nat else ()), *(rules if nat else ()), *entries[table], *(deleted if nat else ())]
        if lines_:
            text += [f"*{table}", *lines_, "COMMIT"]
    return "\n".join(text) + "\n" if text else ""
