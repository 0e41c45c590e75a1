"""Run the benchmarks one after another and print one table.

    tests/run --bench [--json FILE] [names…]      python tests/benchmarks/run.py [--json FILE] [names…]

A bench is a module bench_NAME.py here with `figures()`, which yields `Figure`s as it measures them. Each runs in a
process of its own. Exit code 1 if a bench failed; a missed aim is a result, not a failure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from figures import Figure, table

HERE = Path(__file__).resolve().parent
# What a user waits for first, then what needs a quiet machine least.
ORDER = (
    "startup",
    "idle",
    "pods",
    "containers",
    "density",
    "streams",
    "api",
    "lists",
    "watch",
    "protobuf",
    "scale",
    "scheduler",
    "proxy",
    "modes",
)
_LIMIT_S = 300.0


def _child(name: str, results: Any) -> None:
    try:
        for figure in importlib.import_module(f"bench_{name}").figures():
            results.send(figure)
    except Exception:
        traceback.print_exc()
        results.send(traceback.format_exc(limit=1).splitlines()[-1])
    results.send(None)


def _bench(name: str) -> tuple[list[Figure], str]:
    """(figures, error or "")."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(name, theirs))
    process.start()
    theirs.close()
    found: list[Figure] = []
    error = ""
    deadline = time.monotonic() + _LIMIT_S
    while ours.poll(max(0.0, deadline - time.monotonic())):
        try:
            item = ours.recv()
        except EOFError:
            error = "its process died"
            break
        if item is None:
            break
        if isinstance(item, str):
            error = item
        else:
            found.append(item)
    else:
        error = f"not done after {_LIMIT_S:.0f} s"
        process.terminate()
    process.join()
    return found, error


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help="which: " + ", ".join(ORDER))
    parser.add_argument("--json", help="write the figures there, too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ORDER):
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are: {', '.join(ORDER)}")
    if os.geteuid() != 0:
        parser.error("run it as root")
    every: dict[str, list[Figure]] = {}
    errors: dict[str, str] = {}
    for name in options.names or ORDER:
        begun = time.monotonic()
        print(f"bench {name} …", file=sys.stderr, flush=True)
        every[name], error = _bench(name)
        if error:
            errors[name] = error
        print(f"bench {name}: {time.monotonic() - begun:.1f} s {error}".rstrip(), file=sys.stderr, flush=True)
    print(table(figure for found in every.values() for figure in found))
    for name, error in errors.items():
        print(f"bench {name} FAILED: {error}")
    if options.json:
        machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        benches = {name: [figure.dump() for figure in found] for name, found in every.items()}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        document = {"when": when, "machine": machine, "benches": benches, "errors": errors}
        Path(options.json).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
