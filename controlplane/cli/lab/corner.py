"""A node's corner of this machine: from a fork of the supervisor to a first process that believes it is a machine.

    supervisor ── fork ─> doorman: joins the node's cgroups, unshares namespaces
                             └─ fork ─> init: process 1 of the corner (init.py); the doorman leaves at once

The supervisor is a child subreaper, so init becomes its child; init dies with it (PR_SET_PDEATHSIG), and everything
in the corner dies with init, because that is what the kernel does to a PID namespace. Nothing is `exec`ed: imported
modules and their memory are shared by every daemon of every node.
"""

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

from controlplane.cli.lab import cgroups, network
from controlplane.cli.lab.spec import Lab, Node
from nodeagent.linux.syscalls import call

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
_CORNER = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
# Directories of the machine that corners mount their own over: made where missing, removed with the last lab if empty.
MADE = tuple(map(Path, ("/etc/wherry", "/run/wherry", "/var/log/wherry", "/var/log/pods", "/var/lib/wherry")))
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SIGKILL = 9


def become_subreaper() -> None:
    """Orphans below this process come to it instead of the machine's process 1."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(lab: Lab, node: Node, first: Callable[[], None]) -> int:
    """Make the corner and run `first` in it as process 1. Returns that process's pid here; raises OSError."""
    found = cgroups.hierarchies()
    cgroups.remove(f"{lab.cgroup}/{node.name}")  # of its last life, if it had one
    said, say = os.pipe()
    waiting, go = os.pipe()
    doorman = os.fork()
    if doorman == 0:
        _last_words(node, lambda: _open(lab, node, found, say, waiting, go, first))
    os.close(say)
    os.close(waiting)
    with open(said, "rb") as answer:
        words = answer.read(4)
    os.waitpid(doorman, 0)
    if len(words) < 4:
        os.close(go)
        raise OSError(f"the corner of {node.name} could not be made: see {node.root / 'log' / 'init.log'}")
    pid = int(struct.unpack("=i", words)[0])
    try:
        network.plug(lab, node, pid)
        os.write(go, b"g")
    finally:
        os.close(go)  # without the byte, init reads end-of-file and leaves
    return pid


def _open(
    lab: Lab, node: Node, found: list[cgroups.Hierarchy], say: int, waiting: int, go: int, first: Callable[[], None]
) -> None:
    """The doorman: prepare what only the outside can, make the namespaces, fork init."""
    os.close(go)
    os.setsid()
    _log_to(node)
    cgroups.join(f"{lab.cgroup}/{node.name}")
    call("unshare", _CORNER)
    pid = os.fork()
    if pid:
        os.write(say, struct.pack("=i", pid))
        return
    os.close(say)
    if os.read(waiting, 1) != b"g":
        return
    os.close(waiting)
    # Only now: the signal is sent when the parent dies, and until the doorman is gone that would be the doorman.
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    call("sethostname", node.name.encode(), len(node.name))
    _mounts(node, found, hosts=_hosts(lab))
    cgroups.settle(found, "wherry")
    network.inside(lab, node)
    first()


def _last_words(node: Node, action: Callable[[], None]) -> None:
    """Run `action` in a forked child and never return; what went wrong goes to the corner's log."""
    status = 1
    try:
        action()
        status = 0
    except BaseException:
        import traceback

        _log_to(node)
        traceback.print_exc()
    finally:
        os._exit(status)


def _log_to(node: Node) -> None:
    directory = node.root / "log"
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(directory / "init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)
    os.close(null)


def _hosts(lab: Lab) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    return "\n".join(lines + [f"{node.address} {node.name}" for node in lab.nodes]) + "\n"


def _mounts(node: Node, found: list[cgroups.Hierarchy], hosts: str) -> None:
    """The node's own directories where a machine has them, and its own view of processes, devices and cgroups."""
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None, path="/")
    (node.root / "hosts").write_text(hosts)
    (node.root / "xtables.lock").touch()
    Path("/run/xtables.lock").touch()
    places = {
        "hosts": "/etc/hosts",
        "xtables.lock": "/run/xtables.lock",  # iptables' lock is per machine: one per corner
        "etc": "/etc/wherry",
        "log": "/var/log/wherry",
        "pods": "/var/log/pods",
        "data": "/var/lib/wherry",  # last: it hides the lab's directory
    }
    for name, target in places.items():
        source = node.root / name
        if not source.exists():
            source.mkdir(parents=True, mode=0o700)
        if source.is_dir():
            Path(target).mkdir(parents=True, exist_ok=True)
        call("mount", bytes(source), target.encode(), None, MS_BIND, None, path=target)
    Path("/run/wherry").mkdir(exist_ok=True)
    call(
        "mount",
        b"tmpfs",
        b"/run/wherry",
        b"tmpfs",
        cgroups.MS_NOSUID | cgroups.MS_NODEV,
        b"mode=700",
        path="/run/wherry",
    )
    call(
        "mount",
        b"proc",
        b"/proc",
        b"proc",
        cgroups.MS_NOSUID | cgroups.MS_NODEV | cgroups.MS_NOEXEC,
        None,
        path="/proc",
    )
    call(
        "mount",
        b"sysfs",
        b"/sys",
        b"sysfs",
        cgroups.MS_NOSUID | cgroups.MS_NODEV | cgroups.MS_NOEXEC,
        None,
        path="/sys",
    )
    cgroups.mount(found)
    with contextlib.suppress(OSError):
        os.chdir("/")
