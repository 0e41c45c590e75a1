"""Ways out by system calls that no shell command makes: a Python inside the container makes them.

The machine's own interpreter and libraries are mounted read-only into a container that otherwise is an ordinary one:
uid 0, the default capabilities, the default seccomp profile.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime.interface import Mount, SecurityContext

Node = Any

PREAMBLE = """
import ctypes, errno, os, sys, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""
NEWUSER, NEWNS, NEWCGROUP = 0x10000000, 0x20000, 0x2000000


@pytest.fixture
def python(node: Node) -> tuple[str, list[Mount]]:
    """The interpreter's path, and the mounts that make it work in a container."""
    if os.uname().machine != "x86_64":
        pytest.skip("system call numbers of x86-64")
    executable, prefix = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    layer = Path(node.layer)
    shutil.rmtree(layer / "lib", ignore_errors=True)
    for name in ("lib", "lib64"):
        if not (layer / name).is_symlink():
            (layer / name).symlink_to(f"usr/{name}")
    mounts = [Mount("/usr", "/usr", readonly=True)]
    if not prefix.startswith("/usr"):
        mounts.append(Mount(prefix, prefix, readonly=True))
    return executable, mounts


async def said(node: Node, python: tuple[str, list[Mount]], code: str, **config: Any) -> list[str]:
    """What Python code prints, in words."""
    executable, mounts = python
    mounts = [*mounts, *config.pop("mounts", ())]
    command = (executable, "-I", "-S", "-c", PREAMBLE + code)
    container_id = await node.start(*command, mounts=mounts, **config)
    status = await node.ended(container_id)
    output = await node.log(container_id)
    assert status.exit_code == 0, output
    return output.split()


REFUSED = {
    # name: (system call, arguments), all EPERM by the seccomp profile or for want of a capability
    "clone with a user namespace": f"call(56, {NEWUSER} | 17, 0, 0, 0, 0)",
    "unshare a user namespace": f"call(272, {NEWUSER})",
    "unshare user and mount namespaces": f"call(272, {NEWUSER | NEWNS})",
    "unshare a cgroup namespace": f"call(272, {NEWCGROUP})",
    "setns": "call(308, os.open('/proc/self/ns/mnt', os.O_RDONLY), 0)",
    "keyctl": "call(250, 0, -3, 0)",
    "add_key": "call(248, b'user', b'x', b'y', 1, -3)",
    "request_key": "call(249, b'user', b'x', 0, -3)",
    "bpf": "call(321, 0, bytes(72), 72)",
    "perf_event_open": "call(298, bytes(112), 0, -1, -1, 0)",
    "open_by_handle_at": "call(304, -100, bytes(128), 0)",
    "pivot_root": "call(155, b'/', b'/')",
    "mount a cgroup (release_agent)": "call(165, b'none', b'/tmp', b'cgroup', 0, b'memory')",
    "fsopen": "call(430, b'tmpfs', 0)",
    "open_tree": "call(428, -100, b'/', 1)",
    "move_mount": "call(429, -100, b'/tmp', -100, b'/srv', 0)",
    "mount_setattr": "call(442, -100, b'/proc/sys', 0, bytes(32), 32)",
    "init_module": "call(175, bytes(16), 16, b'')",
    "finit_module": "call(313, 0, b'', 0)",
    "kexec_load": "call(246, 0, 0, 0, 0)",
    "reboot": "call(169, 0xfee1dead, 672274793, 0, 0)",
    "swapon": "call(167, b'/tmp', 0)",
    "settimeofday": "call(164, bytes(16), 0)",
    "iopl": "call(172, 3)",
    "userfaultfd": "call(323, 0)",
    "io_uring_setup": "call(425, 1, bytes(120))",
    "quotactl": "call(179, 0, b'', 0, 0)",
    "syslog": "call(103, 3, bytes(8), 8)",
}


async def test_system_calls_that_lead_out_are_refused(node: Node, python: tuple[str, list[Mount]]) -> None:
    lines = "".join(f"print({call_})\n" for call_ in REFUSED.values())
    found = dict(zip(REFUSED, await said(node, python, lines), strict=True))
    assert {name for name, answer in found.items() if answer != "EPERM"} == set()


async def test_clone3_is_unknown_so_that_its_flags_need_no_trust(node: Node, python: tuple[str, list[Mount]]) -> None:
    assert await said(node, python, "print(call(435, bytes(88), 88))") == ["ENOSYS"]


async def test_nothing_of_the_nodes_keys_is_in_reach(node: Node, python: tuple[str, list[Mount]]) -> None:
    """Even without seccomp: the container has a session keyring of its own."""
    from nodeagent.linux import syscalls

    name = b"wherry-test-key\0"
    key = syscalls.raw(248, b"user\0", name, b"secret", 6, -3)  # into this process's session keyring
    if key < 0:
        pytest.skip("no keyrings here")
    try:
        search = "print(call(250, 10, -3, b'user', b'wherry-test-key', 0))"
        found = await said(node, python, search, security=SecurityContext(seccomp="Unconfined"))
        assert found == ["ENOKEY"]
    finally:
        syscalls.raw(250, 3, key)  # KEYCTL_REVOKE


TRACE = """
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    try:
        comm = open(f'/proc/{pid}/cmdline', 'rb').read()
    except OSError:
        continue
    if not (WHAT in comm):
        continue
    print('attach', call(101, 16, pid, 0, 0))
    for name in ('mem', 'environ', 'maps'):
        try:
            os.open(f'/proc/{pid}/{name}', os.O_RDONLY); print(name, 'ok')
        except OSError as error:
            print(name, errno.errorcode[error.errno])
    for name in ('root', 'cwd', 'exe'):
        try:
            os.stat(f'/proc/{pid}/{name}'); print(name, 'ok')
        except OSError as error:
            print(name, errno.errorcode[error.errno])
    pidfd = libc.syscall(434, pid, 0)
    print('getfd', call(438, pidfd, 0, 0))
    local, there = ctypes.create_string_buffer(8), struct.pack('QQ', 4194304, 8)
    print('vm_readv', call(310, pid, struct.pack('QQ', ctypes.addressof(local), 8), 1, there, 1, 0))
"""


async def test_ptrace_of_another_users_process_in_the_pod(node: Node, python: tuple[str, list[Mount]]) -> None:
    """Containers that share their processes see each other; another user's they must not enter."""
    sandbox = await node.sandbox(share_process_namespace=True)
    await node.start("/bin/sleep", "1111", sandbox=sandbox)
    security = SecurityContext(run_as_user=101)
    words = await said(node, python, f"WHAT = b'1111'\n{TRACE}", sandbox=sandbox, security=security)
    answers = dict(zip(words[::2], words[1::2], strict=True))
    assert len(answers) == 9 and set(answers.values()) <= {"EPERM", "EACCES"}, answers


async def test_ptrace_of_the_node_with_the_nodes_process_ids(node: Node, python: tuple[str, list[Mount]]) -> None:
    """hostPID shows the node's processes; ordinary root of a container still may not enter root's of the node: it has
    fewer capabilities than they."""
    words = await said(node, python, f"WHAT = {str(node.base).encode()!r}\n{TRACE}", pod={"host_pid": True})
    answers: dict[str, set[str]] = {}
    for name, answer in zip(words[::2], words[1::2], strict=True):
        answers.setdefault(name, set()).add(answer)
    assert len(answers) == 9 and set.union(*answers.values()) <= {"EPERM", "EACCES"}, answers


async def test_device_nodes_of_a_volume_open_nothing(
    node: Node, python: tuple[str, list[Mount]], tmp_path: Path
) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    for name, major, minor in (("mem", 1, 1), ("kmsg", 1, 11), ("fuse", 10, 229), ("disk", 254, 0)):
        kind = 0o060000 if name == "disk" else 0o020000
        os.mknod(volume / name, kind | 0o666, os.makedev(major, minor))
    code = """
for name in sorted(os.listdir('/v')):
    try:
        os.open('/v/' + name, os.O_RDWR); print(name, 'ok')
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""
    words = await said(node, python, code, mounts=[Mount(str(volume), "/v")])
    answers = dict(zip(words[::2], words[1::2], strict=True))
    assert set(answers) == {"mem", "kmsg", "fuse", "disk"}
    assert set(answers.values()) <= {"EPERM", "ENXIO", "ENODEV"}, answers


async def test_the_kernels_settings_cannot_be_written(node: Node, python: tuple[str, list[Mount]]) -> None:
    code = """
wrong = []
for top in ('/proc/sys', '/proc/irq', '/proc/bus', '/proc/fs', '/sys'):
    for directory, _, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path) and os.access(path, os.W_OK):
                wrong.append(path)
for path in ('/proc/sysrq-trigger', '/proc/kcore', '/proc/timer_list', '/proc/keys'):
    if os.path.exists(path) and os.access(path, os.W_OK) and not os.stat(path).st_rdev:
        wrong.append(path)
print(len(wrong), *wrong[:5])
"""
    assert await said(node, python, code) == ["0"]
