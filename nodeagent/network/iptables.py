"""iptables for what never is in a hurry: whole chains in one transaction, and jumps into them.

A `Chain` is rewritten completely by one `iptables-restore --noflush`, so applying it twice is applying it once, and
nobody ever sees half of it. Only our own chains are touched; the jumps from the built-in chains are the one thing
that is added and removed by itself. It blocks (a process is run): call it from a thread.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_LOCK_WAIT_S = "5"  # others (netproxy, the administrator) hold the xtables lock for milliseconds


class IptablesError(Exception):
    """iptables refused, or is not installed; the message has the command and its words."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours. `rules`: matches and target of each, as after `-A <name> `."""

    table: str
    name: str
    rules: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a built-in chain that sends packets to `target`; `rule` is the whole of it."""

    table: str
    source: str
    rule: Sequence[str]
    first: bool = False  # insert before all others instead of appending


class Iptables:
    """`command` is `iptables` or `ip6tables`, whichever variant (nft or legacy) the machine has chosen."""

    def __init__(self, command: str = "iptables") -> None:
        self._command = command

    def replace(self, chains: Sequence[Chain]) -> None:
        """Make every chain contain exactly its rules, all of them at once or none. Raises IptablesError."""
        lines: list[str] = []
        for table in sorted({chain.table for chain in chains}):
            mine = [chain for chain in chains if chain.table == table]
            lines.append(f"*{table}")
            lines += [f":{chain.name} - [0:0]" for chain in mine]
            lines += [f"-A {chain.name} {rule}" for chain in mine for rule in chain.rules]
            lines.append("COMMIT")
        self._run([f"{self._command}-restore", "--noflush", "-w", _LOCK_WAIT_S], "\n".join(lines) + "\n")

    def ensure(self, jump: Jump) -> None:
        """Add the jump unless it is there. Raises IptablesError."""
        if not self._has(jump):
            self._run(self._words("-I" if jump.first else "-A", jump))

    def remove(self, jumps: Sequence[Jump], chains: Sequence[Chain]) -> None:
        """Take out all jumps (also doubled ones), then the chains. What is not there is no error."""
        for jump in jumps:
            while self._has(jump):
                self._run(self._words("-D", jump))
        for chain in chains:
            if self._succeeds([self._command, "-w", _LOCK_WAIT_S, "-t", chain.table, "-F", chain.name]):
                self._run([self._command, "-w", _LOCK_WAIT_S, "-t", chain.table, "-X", chain.name])

    def _words(self, action: str, jump: Jump) -> list[str]:
        return [self._command, "-w", _LOCK_WAIT_S, "-t", jump.table, action, jump.source, *jump.rule]

    def _has(self, jump: Jump) -> bool:
        return self._succeeds(self._words("-C", jump))

    def _succeeds(self, words: Sequence[str]) -> bool:
        return _call(words, "").returncode == 0

    def _run(self, words: Sequence[str], text: str = "") -> None:
        done = _call(words, text)
        if done.returncode:
            raise IptablesError(f"{' '.join(words)}: {done.stderr.strip() or f'exit {done.returncode}'}")


def _call(words: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise IptablesError(f"{words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise IptablesError(f"{' '.join(words)}: no answer within 60 s") from error
