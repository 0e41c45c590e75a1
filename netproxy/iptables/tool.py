"""Running iptables-save and iptables-restore: `--noflush`, so that a transaction leaves all foreign chains alone."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence

from netproxy.backend import BackendError
from netproxy.iptables.rules import CANARY, TABLES, Jump

_LOCK_WAIT_S = "5"


class Iptables:
    """The tool of one address family, in the network namespace of the calling thread. Blocks; raises BackendError."""

    def __init__(self, command: str = "iptables") -> None:
        self._command = command

    def restore(self, text: str) -> None:
        words = [f"{self._command}-restore", "-w", _LOCK_WAIT_S, "--noflush"]
        done = self._call(words, text)
        if done.returncode:
            reason = done.stderr.strip()
            number = re.search(r"line:? (\d+)", reason)
            lines = text.splitlines()
            at = f" [{lines[int(number[1]) - 1]}]" if number and 0 < int(number[1]) <= len(lines) else ""
            raise BackendError(f"{' '.join(words)}: {reason or f'exit {done.returncode}'}{at}")

    def save(self, table: str) -> list[str]:
        done = self._call([f"{self._command}-save", "-t", table])
        if done.returncode:
            raise BackendError(f"{self._command}-save -t {table}: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def canaries(self) -> bool:
        """Whether our canary chains have their one rule in every table. `iptables -F` takes the rule, `-X` or a
        firewall's reload the chain."""
        for table in TABLES:
            done = self._call([self._command, "-w", _LOCK_WAIT_S, "-t", table, "-S", CANARY])
            if done.returncode or "-A" not in done.stdout:
                return False
        return True

    def _call(self, words: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(words, input=text, capture_output=True, text=True, timeout=120, check=False)
        except OSError as error:
            raise BackendError(f"{words[0]}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"{' '.join(words)}: no answer within 120 s") from error


def insertions(jumps: Iterable[Jump], saved: dict[str, list[str]]) -> str:
    """Transactions that insert the `jumps` that `saved` (lines of iptables-save by table) does not have."""
    text: list[str] = []
    missing = [jump for jump in jumps if not _has_jump(saved[jump.table], jump.source, jump.rule)]
    for table in dict.fromkeys(jump.table for jump in missing):
        text += [f"*{table}", *(f"-I {j.source} {j.rule}" for j in missing if j.table == table), "COMMIT"]
    return "\n".join(text) + "\n" if text else ""


def _has_jump(saved: Sequence[str], source: str, rule: str) -> bool:
    """Whether `saved` has a rule from `source` to the same target. What is before `-j` is ours to choose and the
    tool's to print, so it is not compared."""
    start, end = f"-A {source} ", rule[rule.index("-j ") :]
    return any(line.startswith(start) and line.endswith(end) for line in saved)
