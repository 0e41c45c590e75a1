"""Machines with an init of their own, in seconds: systemd-nspawn containers on a bridge in a network namespace.

    network namespace wherry-m-<pid>:  bridge 10.88.0.1/24 ──┬── host0 10.88.0.11  n1
                                                             └── host0 10.88.0.12  n2 …

A machine is an overlay on a tree that is never written; its upper directory is on a tmpfs, and so is /var/lib/wherry,
because containers' own overlays cannot lie on an overlay. Both outlive a reboot and a power failure of the machine.
What is the host's: the kernel, its modules, most sysctls, and cgroups (each machine is in one of its own, v1 or v2).

A killed test run leaves a tmpfs, a namespace and cgroups; the next one removes what belongs to no living process.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from controlplane.cli.lab import cgroups
from tests.e2e.machines.root import PROJECT

NETWORK = "10.88.0"
_PLACE = "/run/wherry-machines"
_ENVIRONMENT = {
    "PATH": "/opt/wherry/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root", "LANG": "C.UTF-8", "SYSTEMD_PAGER": "", "NO_COLOR": "1",
}  # fmt: skip
_MOUNT_CGROUPS = """[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for c in /sys/fs/cgroup/*; do mountpoint -q $c && mount -o remount,bind,rw $c; done; true'
"""
_NETWORK = """[Match]
Name=host0
[Link]
RequiredForOnline=yes
[Network]
Address={address}/24
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


# Mounts are in a namespace of their own, so they go with the machine, whatever happens to us. Told to keep to its unit,
# nspawn leaves rebooting to whoever started it and says so by 133.
_POWER = """
mount -t overlay overlay -o "$1" "$2" && shift 2 || exit
while :; do
    setpriv --pdeathsig KILL nsenter "--net=$1" "${@:2}"
    [ $? = 133 ] || exit
done
"""


class Failed(AssertionError):
    """A command on a machine failed; the message has its output."""


class Machine:
    """One machine. `run` works while it is up."""

    def __init__(self, fleet: "Fleet", name: str, address: str) -> None:
        self.fleet, self.name, self.address = fleet, name, address
        self.place = fleet.place / name
        self._nspawn: subprocess.Popen[bytes] | None = None

    # Power.

    def start(self) -> None:
        """Switch it on; returns at once (`wait_up`)."""
        merged = self.place / "root"
        if not merged.exists():
            for part in ("upper", "work", "root", "data"):
                (self.place / part).mkdir(parents=True)
            self._furnish(self.place / "upper")
        command = [
            "systemd-nspawn", "--quiet", f"--directory={merged}", f"--machine={self.name}", "--register=no",
            "--keep-unit", "--boot", "--private-network", f"--network-bridge={self.fleet.bridge}", "--capability=all",
            "--resolv-conf=off", f"--bind={self.place / 'data'}:/var/lib/wherry",
            *(f"--bind-ro={source}:{target}" for source, target in self.fleet.shared.items()),
        ]  # fmt: skip
        layers = f"lowerdir={self.fleet.tree},upperdir={self.place / 'upper'},workdir={self.place / 'work'}"
        with (self.place / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "--propagation=slave", "bash", "-c", _POWER, "machine", layers, str(merged),
                 f"/run/netns/{self.fleet.name}", *command],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, preexec_fn=self._prepare,
            )  # fmt: skip

    def _prepare(self) -> None:
        """In the child: it dies with us, and has cgroups of its own."""
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
        os.setsid()
        cgroups.join(f"{self.fleet.name}/{self.name}")

    def _furnish(self, root: Path) -> None:
        def write(path: str, text: str) -> None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)

        write("etc/hostname", f"{self.name}\n")
        write("etc/hosts", f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        write("etc/machine-id", "")
        write("etc/systemd/network/10-host0.network", _NETWORK.format(address=self.address, gateway=f"{NETWORK}.1"))
        write("etc/systemd/system/writable-cgroups.service", _MOUNT_CGROUPS)
        for wanted, unit, by in (
            ("sysinit.target", "writable-cgroups.service", "/etc/systemd/system"),
            ("multi-user.target", "systemd-networkd.service", "/lib/systemd/system"),
            ("network-online.target", "systemd-networkd-wait-online.service", "/lib/systemd/system"),
        ):
            link = root / "etc/systemd/system" / f"{wanted}.wants" / unit
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"{by}/{unit}")

    @property
    def leader(self) -> int:
        """The host's pid of the machine's init; LookupError while there is none."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            raise LookupError(f"{self.name} is off; see {self.place / 'console.log'}")
        for nspawn in _children(self._nspawn.pid):
            for child in _children(nspawn):
                if Path(f"/proc/{child}/root/run/systemd/system").is_dir():
                    return child
        raise LookupError(f"{self.name} has no init yet")

    def wait_up(self, seconds: float = 60) -> None:
        """Until its init has started everything that it starts at boot (or has given up on some of it)."""
        until(lambda: self.leader and self.boot_finished(), f"{self.name} is up", seconds)

    def boot_finished(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def cut_power(self) -> None:
        """Off, without a word to anybody."""
        if self._nspawn is not None:
            with contextlib.suppress(LookupError, ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(5)
            self._nspawn.kill()
            self._nspawn.wait()
            self._nspawn = None

    # Inside.

    def run(self, *command: str, check: bool = True, stdin: str | None = None, seconds: float = 300) -> str:
        """Standard output of `command` as root on the machine. Raises Failed with all of its output."""
        done = self.result(*command, stdin=stdin, seconds=seconds)
        if check and done.returncode:
            raise Failed(f"{self.name}: {' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def result(self, *command: str, stdin: str | None = None, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
             *command],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True,
            timeout=seconds, env=_ENVIRONMENT,
        )  # fmt: skip

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` has them."""
        lines = self.run("systemctl", "show", unit, *(f"--property={p}" for p in properties)).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def path(self, inside: str) -> Path:
        """The host's path of a file of the running machine."""
        return Path(f"/proc/{self.leader}/root{inside}")


class Fleet:
    """The network and its machines. Use `fleet()`."""

    bridge = "br0"

    def __init__(self, tree: Path, shared: dict[Path, str]) -> None:
        self.tree, self.shared = tree, shared
        self.name = f"wherry-m-{os.getpid()}"
        self.place = Path(_PLACE) / self.name
        self.machines: list[Machine] = []

    def add(self, name: str) -> Machine:
        machine = Machine(self, name, f"{NETWORK}.{11 + len(self.machines)}")
        self.machines.append(machine)
        return machine

    def command(self, *words: str) -> list[str]:
        """`words` as a command on the machines' network."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def open(self) -> None:
        self.place.mkdir(parents=True)
        _call("mount", "-t", "tmpfs", "-o", "mode=755,size=4g", "tmpfs", str(self.place))
        _call("ip", "netns", "add", self.name)
        for words in (
            f"link add {self.bridge} type bridge",
            f"link set {self.bridge} up",
            f"addr add {NETWORK}.1/24 dev {self.bridge}",
            "link set lo up",
        ):
            _call("ip", "-n", self.name, *words.split())

    def close(self) -> None:
        for machine in self.machines:
            machine.cut_power()
        _sweep(self.name)


@contextlib.contextmanager
def fleet(tree: Path, shared: dict[Path, str] | None = None) -> Iterator[Fleet]:
    """A network without machines; at the end nothing is left of either. `shared`: folders, and where machines see them
    (read-only)."""
    for left in sorted(Path(_PLACE).glob("wherry-m-*")):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            _sweep(left.name)
    made = Fleet(tree, {PROJECT: "/project", **(shared or {})})
    try:
        made.open()
        yield made
    finally:
        made.close()


def _sweep(name: str) -> None:
    cgroups.kill(name)
    place = Path(_PLACE) / name
    for words in (["umount", "-l", str(place)], ["ip", "netns", "delete", name]):
        subprocess.run(words, capture_output=True, check=False, timeout=30)
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(AssertionError):  # what is still dying; the next run looks again
        until(lambda: not cgroups.remove(name), "cgroups are removed", 10)
    with contextlib.suppress(OSError):
        Path(_PLACE).rmdir()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def until(probe: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The first true value of `probe()`. AssertionError with the last one, or the last error, when time is up."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if value := probe():
                return value
            last = value
        except (AssertionError, LookupError, OSError, subprocess.SubprocessError, ValueError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}; last: {last}")
