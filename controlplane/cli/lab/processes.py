"""Which processes of the host are which daemon of which node.

A corner's init knows its services by the pids of its own PID namespace and writes them to a report; here they are
translated: a child of init, seen from the host, whose innermost NSpid is the reported one.
"""

import json
from pathlib import Path
from typing import Any

from controlplane.cli.lab.spec import Lab


def report(lab: Lab, node: str) -> Path:
    """Where the init of `node` writes its services' states (inside a corner it is the same path)."""
    return lab.run / f"{node}.json"


def table(lab: Lab, supervisor: int, corners: dict[str, int]) -> list[dict[str, Any]]:
    """Every process as {component, node, pid, state, restarts}; pid 0 for one that does not run now."""
    rows: list[dict[str, Any]] = [_row("lab", "", supervisor, "running")]
    for node, init in sorted(corners.items()):
        rows.append(_row("init", node, init, "running"))
        translated = _children(init)
        for name, unit in _states(lab, node).items():
            rows.append(_row(name, node, translated.get(unit["pid"], 0), unit["state"], unit["restarts"]))
    return rows


def _row(component: str, node: str, pid: int, state: str, restarts: int = 0) -> dict[str, Any]:
    return {"component": component, "node": node, "pid": pid, "state": state, "restarts": restarts}


def _states(lab: Lab, node: str) -> dict[str, Any]:
    try:
        states: dict[str, Any] = json.loads(report(lab, node).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return states


def _children(parent: int) -> dict[int, int]:
    """pid in the innermost namespace -> pid here, of the children of `parent`."""
    found = {}
    try:
        pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except FileNotFoundError:
        return {}
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
        found[int(inner)] = int(pid)
    return found
