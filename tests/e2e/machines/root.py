"""What machines are made of, made once and kept: a Debian tree, and an offline folder for the provisioning.

Both lie in a cache folder outside the project (WHERRY_TEST_CACHE, else /var/cache/wherry-tests), named after what they
were made from: a change makes a new one, and the oldest are removed. Packages come from this machine's own sources.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
PROVISION = PROJECT / "vagrant" / "provision"
CACHE = Path(os.environ.get("WHERRY_TEST_CACHE", "/var/cache/wherry-tests"))

# A small server as it is installed: an init, a network, Python. What else Wherry needs, its provisioning installs.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "iptables", "kmod", "procps", "python3", "python3-venv",
    "ca-certificates",
)  # fmt: skip
_KEPT = 2  # of each kind, besides the one in use: another checkout of the project may be testing with it
_RECIPE = "1"  # count up when a tree made by older code will not do


def tree() -> Path:
    """A Debian (or Ubuntu) of this machine's release, never booted."""
    return _kept("root", [_codename(), *PACKAGES, _RECIPE], _bootstrap)


def offline() -> Path:
    """`vagrant/provision/offline` of this project's dependencies; its wheel of the project itself may be old."""
    made_from = [PROJECT / "pyproject.toml", PROVISION / "offline", PROVISION / "10-packages.sh"]
    return _kept("offline", [_codename(), *(p.read_text() for p in made_from)], _download)


def wheel(target: Path, folder: Path) -> Path:
    """The project as it is now, built without network by what `folder` (see `offline`) has."""
    subprocess.run(
        ["pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps", "--no-index",
         "--find-links", str(folder / "wheels"), "-w", str(target), str(PROJECT)],
        check=True, timeout=120,
    )  # fmt: skip
    return next(target.glob("wherry-*.whl"))


def _bootstrap(target: Path) -> None:
    sources = [p for p in Path("/etc/apt/sources.list.d").glob("*") if p.suffix in (".list", ".sources")]
    classic = Path("/etc/apt/sources.list")
    if classic.exists() and classic.read_text().strip():
        sources.append(classic)
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", _codename(), str(target),
         *map(str, sources)],
        check=True, timeout=600, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _download(target: Path) -> None:
    subprocess.run([str(PROVISION / "offline"), str(target)], check=True, timeout=600)


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))


def _kept(kind: str, made_from: list[str], make: Callable[[Path], None]) -> Path:
    key = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:12]
    found = CACHE / f"{kind}-{key}"
    with _lock():
        if not found.exists():
            others = sorted(CACHE.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in others[_KEPT:]:
                shutil.rmtree(old)
            growing = CACHE / f".{kind}-new"
            shutil.rmtree(growing, ignore_errors=True)
            make(growing)
            growing.rename(found)
        os.utime(found)
    return found


@contextmanager
def _lock() -> Iterator[None]:
    """One at a time: the first makes it, the others find it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
