"""The text that iptables-restore gets: everything, or only what changed. Pure.

`full()` declares and fills every chain of ours and deletes those found that nobody needs. `difference()` rewrites the
chains that changed, takes out and puts in single entries of the shared chains, and never mentions the rest: at 5,000
Services one change is a few lines in one transaction. No packet ever sees a half-made Service.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from netproxy.iptables.rules import (
    NODEPORTS,
    OWNED_PREFIXES,
    SERVICES,
    SHARED_CHAINS,
    TABLES,
    PortRules,
    Settings,
    shared_rules,
)
from netproxy.model import PortName


def full(ports: Iterable[PortRules], settings: Settings, found: Iterable[str]) -> str:
    """All rules. `found`: the nat chains that exist; ours among them that nobody needs any more are deleted.

    The nat table is written from the leaves to the root (endpoints, Services, the shared chains, then deletions), in
    transactions of at most `_BATCH` sorted chains: iptables-nft compares a new chain's name with all others of its
    transaction, and 15,000 at once take it six seconds instead of one. A chain never leads to one that is not there."""
    shared = shared_rules(settings)
    entries: dict[tuple[str, str], list[str]] = {(t, c): [] for t in TABLES for c in SHARED_CHAINS[t]}
    owned: dict[str, tuple[str, ...]] = {}
    for port in ports:
        owned.update(port.chains)
        for table, chain, rule in port.entries:
            entries[table, chain].append(rule)
    for key, lines in shared.items():
        entries[key] += lines
    text: list[str] = []
    for table in ("mangle", "filter"):
        text += _table(table, {chain: entries[table, chain] for chain in SHARED_CHAINS[table]})
    last = (SERVICES, NODEPORTS)  # where packets enter: everything they lead to must be there
    text += _table("nat", {chain: entries["nat", chain] for chain in SHARED_CHAINS["nat"] if chain not in last})
    for batch in _batches(sorted(owned, key=_leaves_first)):
        text += _table("nat", {chain: owned[chain] for chain in batch})
    text += _table("nat", {chain: entries["nat", chain] for chain in last})
    stale = {chain for chain in found if chain.startswith(OWNED_PREFIXES) and chain not in owned}
    for batch in _batches(sorted(stale, key=_leaves_first, reverse=True)):
        text += _table("nat", dict.fromkeys(batch, ()), delete=True)
    return "\n".join(text) + "\n"


def removal(saved: Mapping[str, Sequence[str]], chains: Mapping[str, Collection[str]], *, owned: bool = True) -> str:
    """Takes out those of the `chains` (by table) that are there, given what iptables-save says of each table, and with
    `owned` all chains of single Services: first the ways in, then chain by chain. Empty if there is nothing."""
    text: list[str] = []
    for table, lines in saved.items():
        found = [line[1:].split(" ", 1)[0] for line in lines if line.startswith(":")]
        shared = [chain for chain in found if chain in chains.get(table, ())]
        single = [chain for chain in found if owned and chain.startswith(OWNED_PREFIXES)]
        ours = {*shared, *single}
        if not ours:
            continue
        jumps = []
        for line in lines:
            target = _TARGET.search(line) if line.startswith("-A ") else None
            # Chains of ours that stay have been rewritten since; only others' still lead here.
            if target and target[1] in ours and not line.split(" ", 2)[1].startswith("KUBE-"):
                jumps.append("-D" + line[2:])
        text += [f"*{table}", *(f":{chain} - [0:0]" for chain in shared), *jumps, "COMMIT"]
        for batch in _batches(sorted(single, key=_leaves_first, reverse=True)):
            text += _table(table, dict.fromkeys(batch, ()), delete=True)
        text += _table(table, dict.fromkeys(shared, ()), delete=True)
    return "\n".join(text) + "\n" if text else ""


def _table(table: str, chains: Mapping[str, Sequence[str]], *, delete: bool = False) -> list[str]:
    """One transaction that makes `chains` have exactly these rules, or deletes them."""
    text = [f"*{table}"]
    text += [f":{chain} - [0:0]" for chain in chains]
    text += [f"-A {chain} {line}" for chain, lines in chains.items() for line in lines]
    text += [f"-X {chain}" for chain in chains if delete]
    return [*text, "COMMIT"]


def _batches(chains: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(chains), _BATCH):
        yield chains[start : start + _BATCH]


_BATCH = 1000
_TARGET = re.compile(r" -[jg] (KUBE-\S+)")
_LEAVES_FIRST = {"KUBE-SEP-": 0, "KUBE-SVC-": 1, "KUBE-SVL-": 1, "KUBE-EXT-": 2, "KUBE-FW-": 3}


def _leaves_first(chain: str) -> tuple[int, str]:
    return _LEAVES_FIRST[chain[: chain.index("-", 5) + 1]], chain


def difference(before: Mapping[PortName, PortRules], after: Mapping[PortName, PortRules]) -> str:
    """What turns the rules `before` of some Service ports into those `after`; a port in only one of them appears or
    goes. Empty if there is nothing to do."""
    declared: list[str] = []
    rules: list[str] = []
    deleted: list[str] = []
    inserted: dict[str, list[str]] = {table: [] for table in TABLES}
    removed: dict[str, list[str]] = {table: [] for table in TABLES}
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
        entries_before, entries_after = set(old.entries), set(new.entries)
        for table, chain, line in old.entries:
            if (table, chain, line) not in entries_after:
                removed[table].append(f"-D {chain} {line}")
        for table, chain, line in new.entries:
            if (table, chain, line) not in entries_before:
                inserted[table].append(f"-I {chain} {line}")
    # Tables are committed one after another, and a packet between two of them must not escape to the default route:
    # refusals come before the way to the endpoints goes, and go after it has come.
    text = [
        *_transaction("mangle", [*removed["mangle"], *inserted["mangle"]]),
        *_transaction("filter", inserted["filter"]),
        # Deleting first: a Service made anew may have the address of an old one.
        *_transaction("nat", [*declared, *rules, *removed["nat"], *inserted["nat"], *deleted]),
        *_transaction("filter", removed["filter"]),
    ]
    return "\n".join(text) + "\n" if text else ""


def _transaction(table: str, lines: Sequence[str]) -> list[str]:
    return [f"*{table}", *lines, "COMMIT"] if lines else []
