"""Compiles sandboxes, containers and execs into programs of system calls. Pure but for looking at what exists.

Three programs. A sandbox's runs in the shim itself (namespaces, host name, sysctls, /dev/shm). A container's is the
first code of its first process: enter cgroups, build the file tree, give up power, execve. An exec's joins what the
container's first process is in, gives up the same power, execve. `confine` is therefore written once.

Inputs that the shim fills in: 0, 1, 2 the standard streams; 3 a socket for the terminal; 4 a pidfd of the container to
join; 5 the pod's /dev/shm; 6 its user namespace.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nodeagent.linux import apparmor, capabilities, mounts, seccomp
from nodeagent.linux.mounts import AT_FDCWD
from nodeagent.linux.program import Block, Input, Program, strings
from nodeagent.runtime import rootfs
from nodeagent.runtime.identity import Identity
from nodeagent.runtime.interface import RuntimeFailure, SandboxConfig, UserNamespace

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
CLONE_NEWUSER = 0x10000000
STDIN, STDOUT, STDERR, TERMINAL, CONTAINER, SHM, USERNS = (Input(i) for i in range(7))
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 8, 24, 38
_CLOSE_RANGE_CLOEXEC = 4
_TIOCSCTTY, _TIOCGPTPEER = 0x540E, 0x5441
_KEYCTL_JOIN_SESSION_KEYRING = 1
_MASTER = 200  # the descriptor number under which the terminal's master end is sent: the message must name it
_O_NOCTTY_RDWR = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_NOT_HERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_RLIMITS = {"core": 4, "nproc": 6, "nofile": 7, "memlock": 8}


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a container's processes may do, resolved to numbers. `rlimits`: name → (soft, hard)."""

    identity: Identity
    bounding: int
    no_new_privs: bool
    seccomp: bytes  # a BPF program, or empty for none
    rlimits: Mapping[str, tuple[int, int]]
    oom_score_adj: int
    join: Sequence[str]  # v1 cgroup files to write `0` to
    apparmor: str = ""  # a loaded profile to be under from execve on
    users: UserNamespace | None = None  # whose numbers `identity` means; None: the node's


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    env: Sequence[str]
    cwd: str
    tty: bool


def sandbox_namespaces(config: SandboxConfig) -> int:
    """The CLONE_* flags of what the shim has for itself and its containers."""
    return CLONE_NEWUTS | (0 if config.host_network else CLONE_NEWNET) | (0 if config.host_ipc else CLONE_NEWIPC)


def sandbox(config: SandboxConfig, shm_path: str) -> tuple[Program, list[int]]:
    """What the shim does in its new namespaces, and the steps whose results containers get as inputs from SHM on.
    `shm_path`: where the pod's /dev/shm must be mounted, on kernels that cannot clone a detached mount; else empty."""
    program = Program()
    name = config.hostname.encode()
    if name:
        program.add("sethostname", name, len(name), about=config.hostname)
    for key, value in config.sysctls.items():
        path = "/proc/sys/" + sysctl_path(key)
        if {"", ".", ".."} & {*path.split("/")[1:]}:
            raise RuntimeFailure(f"sysctl {key!r} is not allowed", "CreatePodSandboxError")
        write(program, path, value, about=f"sysctl {key}")
    if config.host_ipc:
        return program, []
    root = config.user_namespace.first if config.user_namespace else 0
    if shm_path:
        program.add("mkdirat", AT_FDCWD, shm_path, 0o700, about=shm_path)
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        mounts.mount(program, "shm", shm_path, "tmpfs", flags, f"mode=1777,size=65536k,uid={root},gid={root}")
        return program, []
    fs = program.add("fsopen", "tmpfs", 1, about="/dev/shm")
    for key, value in (("size", "67108864"), ("mode", "1777"), ("uid", str(root)), ("gid", str(root))):
        program.add("fsconfig", fs, 1, key, value, 0, about=f"/dev/shm {key}")
    program.add("fsconfig", fs, 6, None, None, 0, about="/dev/shm")
    flags = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | mounts.ATTR_NOEXEC
    tree = program.add("fsmount", fs, 1, flags, about="/dev/shm")
    program.add("close", fs)
    return program, [tree.step]


def container(tree: rootfs.Tree, confinement: Confinement, command: Command) -> Program:
    """The first code of a container."""
    program = Program()
    _begin(program)
    _enter_cgroups(program, confinement)
    program.add("unshare", CLONE_NEWCGROUP, about="cgroup namespace")
    if confinement.users is not None:
        program.add("dup3", USERNS, rootfs.USERS, os.O_CLOEXEC, about="the pod's user namespace")
    rootfs.build(program, tree)
    _streams(program, command.tty, _on_node(confinement), console=True)
    if confinement.users is not None:
        _become_user(program, USERNS)
        # A mount namespace that is theirs: with CAP_SYS_ADMIN they may mount in it, but undo none of ours.
        program.add("unshare", CLONE_NEWNS, about="mount namespace of the pod's users")
    _finish(program, confinement, command, create_cwd=not tree.readonly)
    return program


def execution(namespaces: int, confinement: Confinement, command: Command) -> Program:
    """A process that joins a container. The PID namespace is the shim's to enter: that works for children only."""
    program = Program()
    _begin(program)
    _enter_cgroups(program, confinement)
    program.add("setns", CONTAINER, namespaces, about="the container's namespaces")
    if confinement.users is not None:
        rootfs.act_as(program, confinement.users.first)
    _streams(program, command.tty, _on_node(confinement), console=False)
    if confinement.users is not None:
        _become_user(program, CONTAINER)
    _finish(program, confinement, command, create_cwd=False)
    return program


def sysctl_path(name: str) -> str:
    """`net.ipv4.conf.eth0/1.x` and `net/ipv4/conf/eth0.1/x` are the same file: the first separator decides."""
    first = next((c for c in name if c in "./"), "")
    return name.translate(str.maketrans("./", "/.")) if first == "." else name


def write(program: Program, path: str, value: str, forgive: tuple[int, ...] = (), about: str = "") -> None:
    """Open a file that exists and write `value` to it in one write."""
    fd = program.add("openat", AT_FDCWD, path, os.O_WRONLY | os.O_CLOEXEC, 0, forgive=forgive, about=about or path)
    data = value.encode()
    forgive = (*forgive, errno.EBADF) if forgive else ()
    program.add("write", fd, data, len(data), forgive=forgive, about=about or path)
    program.add("close", fd, forgive=(errno.EBADF,))


def _begin(program: Program) -> None:
    program.add("close_range", 3, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC, about="descriptors")
    default = bytes(32)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and ignoring survives execve
        program.add("rt_sigaction", int(number), default, None, 8)
    program.add("rt_sigprocmask", 2, bytes(8), None, 8)
    program.add("setsid")
    program.add("umask", 0o022)
    program.add("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, forgive=(errno.ENOSYS, errno.EPERM, errno.EDQUOT))


def _enter_cgroups(program: Program, confinement: Confinement) -> None:
    for path in confinement.join:
        write(program, path, "0")
    if confinement.oom_score_adj:
        write(program, "/proc/self/oom_score_adj", str(confinement.oom_score_adj), (errno.EACCES, errno.EPERM))
    for name, (soft, hard) in confinement.rlimits.items():
        pair = struct.pack("<QQ", soft & 0xFFFFFFFFFFFFFFFF, hard & 0xFFFFFFFFFFFFFFFF)
        program.add("prlimit64", 0, _RLIMITS[name], pair, None, forgive=(errno.EPERM,), about=f"rlimit {name}")


def _on_node(confinement: Confinement) -> int:
    """The user of the container's process, as the node counts."""
    return confinement.identity.uid + (confinement.users.first if confinement.users else 0)


def _become_user(program: Program, where: Input) -> None:
    """Enter the pod's user namespace, as its root, with all power in it and none outside."""
    program.add("setns", where, CLONE_NEWUSER, about="the pod's user namespace")
    program.add("setgroups", 0, None, about="no groups of the node")
    program.add("setresgid", 0, 0, 0, about="gid 0 of the pod's users")
    program.add("setresuid", 0, 0, 0, about="uid 0 of the pod's users")


def _streams(program: Program, tty: bool, uid: int, *, console: bool) -> None:
    """Standard streams: the pipes given, or a new terminal of the container's own /dev/pts, whose other end is sent
    through the socket given."""
    if not tty:
        for number, stream in enumerate((STDIN, STDOUT, STDERR)):
            program.add("dup3", stream, number, 0)
        if uid:  # so that the program may open /dev/stdout; stdin may be /dev/null, which is not ours to give
            for number in (1, 2):
                program.add("fchownat", number, "", uid, -1, mounts.AT_EMPTY_PATH, forgive=(0xFFFF,))
        return
    master = program.add("openat", AT_FDCWD, "/dev/pts/ptmx", _O_NOCTTY_RDWR, 0, about="/dev/pts/ptmx")
    program.add("dup3", master, _MASTER, os.O_CLOEXEC)
    program.add("ioctl", _MASTER, 0x40045431, bytes(4), about="unlock the terminal")  # TIOCSPTLCK
    slave = program.add("ioctl", _MASTER, _TIOCGPTPEER, _O_NOCTTY_RDWR, about="the terminal")
    if uid:
        program.add("fchownat", slave, "", uid, -1, mounts.AT_EMPTY_PATH, about="the terminal")
    if console:  # the first terminal of a new /dev/pts is number 0
        mounts.make_file(program, "/dev/console")
        program.add("mount", "/dev/pts/0", "/dev/console", None, mounts.MS_BIND, None, about="/dev/console")
    control = struct.pack("<QiiiI", 20, 1, 1, _MASTER, 0)  # SOL_SOCKET, SCM_RIGHTS
    iov = Block([b"t", 1])
    message = Block([None, 0, iov, 1, control, len(control), 0])
    program.add("sendmsg", TERMINAL, message, 0, about="the terminal")
    program.add("close", _MASTER)
    for number in (0, 1, 2):
        program.add("dup3", slave, number, 0)
    program.add("ioctl", 0, _TIOCSCTTY, 0, about="controlling terminal")


def _finish(program: Program, confinement: Confinement, command: Command, *, create_cwd: bool) -> None:
    """Give up everything that is not the container's, in the only order that works, and become its command."""
    identity = confinement.identity
    # Before the working directory, which the image chooses: /proc/self/fd/N must not lead to the node (CVE-2024-21626).
    program.add("close_range", 3, 0xFFFFFFFF, 0, about="descriptors of the node")
    cwd = command.cwd or "/"
    if create_cwd and cwd != "/":
        mounts.make_directories(program, cwd)
    if cwd != "/" or not create_cwd:
        program.add("chdir", cwd, forgive=(errno.EACCES,), about=cwd)
    for number in range(len(capabilities.NAMES)):
        if not confinement.bounding >> number & 1:
            program.add("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0, forgive=(errno.EINVAL,), about="bounding set")
    if confinement.no_new_privs:
        program.add("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, about="no_new_privs")
    elif confinement.seccomp:  # without no_new_privs this needs CAP_SYS_ADMIN, which is about to go
        _seccomp(program, confinement.seccomp)
    program.add("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    groups = struct.pack(f"<{len(identity.groups)}I", *identity.groups)
    program.add("setgroups", len(identity.groups), groups, about="supplementary groups")
    program.add("setresgid", identity.gid, identity.gid, identity.gid, about=f"gid {identity.gid}")
    program.add("setresuid", identity.uid, identity.uid, identity.uid, about=f"uid {identity.uid}")
    low, high = confinement.bounding & 0xFFFFFFFF, confinement.bounding >> 32
    data = struct.pack("<6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable (none), twice
    program.add("capset", struct.pack("<II", 0x20080522, 0), data, about="capabilities")
    if cwd != "/":
        program.add("chdir", cwd, about=cwd)
    program.add("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if confinement.no_new_privs and confinement.seccomp:
        _seccomp(program, confinement.seccomp)
    if confinement.apparmor:
        path = next((p for p in apparmor.EXEC_ATTRIBUTES if os.path.exists(p)), apparmor.EXEC_ATTRIBUTES[-1])
        write(program, path, f"exec {confinement.apparmor}", about=f"AppArmor profile {confinement.apparmor}")
    argv, env = strings(command.argv), strings(command.env)
    candidates = search(command)
    for path in candidates[:-1]:
        program.add("execve", path, argv, env, forgive=_NOT_HERE, about=path)
    program.add("execve", candidates[-1], argv, env, about=candidates[-1])


def _seccomp(program: Program, filter_: bytes) -> None:
    block = Block([len(filter_) // 8, filter_])
    program.add("seccomp", seccomp.SET_MODE_FILTER, 0, block, about="seccomp filter")


def search(command: Command) -> list[str]:
    """The paths to try, in order, as execvp would. Raises RuntimeFailure without a command."""
    if not command.argv or not command.argv[0]:
        raise RuntimeFailure("no command specified", "CreateContainerError")
    name = command.argv[0]
    if "/" in name:
        return [name]
    path = next((e[5:] for e in command.env if e.startswith("PATH=")), DEFAULT_PATH)
    return [f"{directory or '.'}/{name}" for directory in path.split(":")]


def explain(program: Program, failure: tuple[int, int], denied: bool, argv: Sequence[str]) -> tuple[int, str]:
    """(exit code, message) for a program that failed, in the words users know from runc. `denied`: an earlier place
    in $PATH had the program, but not for us."""
    step = program.steps[failure[0]]
    number = failure[1]
    if step.name != "execve":
        return 128, f"failed to create container: {program.error(failure)}"
    name = argv[0]
    if denied or number == errno.EACCES:
        return 126, f'exec: "{name}": permission denied'
    if number in (errno.ENOENT, errno.ENOTDIR):
        if "/" in name:
            return 127, f'exec: "{name}": stat {name}: {os.strerror(number).lower()}'
        return 127, f'exec: "{name}": executable file not found in $PATH'
    return 126, f"exec {step.about}: {os.strerror(number).lower()}"
