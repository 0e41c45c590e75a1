"""What Services do, tried on machine X: the suite of tests/linux/netproxy, in network namespaces that X's kernel makes.

    services.send(machine)                     once: the tests, and pytest's own packages (all pure Python)
    services.behave(machine, "ipvs")           what pytest said; AssertionError if anything failed or was left out

A machine is anything with `run` and `copy`. It needs the project's own Python packages, iptables, ipset and iproute2
and a kernel with what the mode needs: there a missing module is a failure, not a reason to skip.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Protocol

PROJECT = Path(__file__).resolve().parents[3]
MODES = ("iptables", "ipvs")
FOLDER = "/var/tmp/wherry-behaviour"
_PACKAGES = (
    "pytest",
    "_pytest",
    "py",
    "pytest_asyncio",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
    "typing_extensions",
)
_TESTS = (
    "tests/conftest.py",
    "tests/linux/network_lab.py",
    "tests/linux/netproxy",
    "tests/contract/test_ipvs_kernel.py",
)


class Machine(Protocol):
    """Where the suite runs. `run`: a command as root, returns what it printed, AssertionError unless it exits with 0.
    `copy`: a file or folder to a path there."""

    def run(self, command: str, timeout: float = ...) -> str: ...
    def copy(self, source: Path, target: str) -> None: ...


def command(mode: str, project: str, python: str, site: str = "") -> str:
    """A shell command that runs the suite in `mode`. `project`: the folder with the tests; `site`: more packages."""
    words = [python, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "--tb=short", "-o", "addopts="]
    words += ["--import-mode=importlib", "--rootdir", project, *_TESTS[2:3]]
    if mode == "ipvs":
        words += _TESTS[3:]
    path = ":".join(filter(None, (project, site)))
    # Five times the usual patience: the machine may be emulated.
    environment = (
        f"WHERRY_TEST_PATIENCE=5 PYTHONDONTWRITEBYTECODE=1 WHERRY_PROXY_MODES={mode} PYTHONPATH={shlex.quote(path)}"
    )
    return f"modprobe -a br_netfilter ip_vs sctp; cd {shlex.quote(project)} && {environment} {shlex.join(words)}"


def judge(mode: str, said: str) -> str:
    """The last line of what pytest said. AssertionError if tests failed, or the wrong ones ran."""
    last = said.strip().splitlines()[-1] if said.strip() else ""
    passed = re.search(r"(\d+) passed", last)
    assert passed and int(passed[1]) >= 20 and "failed" not in last and "error" not in last, said[-6000:]
    return last


def send(machine: Machine, folder: str = FOLDER) -> None:
    """What the suite needs beside an installed project."""
    machine.run(f"rm -rf {folder} && mkdir -p {folder}/site {folder}/tests/linux {folder}/tests/contract")
    for name in ("pyproject.toml", *_TESTS):
        machine.copy(PROJECT / name, f"{folder}/{name}")
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue
        origin = Path(spec.origin or "")
        source = origin.parent if origin.name == "__init__.py" else origin
        machine.copy(source, f"{folder}/site/{source.name}")
        for info in source.parent.glob(f"{package}-*.dist-info"):  # pytest finds its plugins by these
            machine.copy(info, f"{folder}/site/{info.name}")


def behave(machine: Machine, mode: str, python: str = "/opt/wherry/bin/python", folder: str = FOLDER) -> str:
    """Run the suite there. Returns pytest's last line."""
    said = machine.run(command(mode, folder, python, f"{folder}/site"), timeout=900)
    return judge(mode, said)
