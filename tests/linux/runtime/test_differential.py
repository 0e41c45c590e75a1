"""Ours and crun on the same root file system, told the same: what a process inside sees must be the same.

Every difference that is left is in EXPLAINED, with its reason; one that is not there fails, and so does an entry that
no longer differs.
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime.interface import (
    ContainerConfig,
    Mount,
    PodIdentity,
    SandboxConfig,
    SecurityContext,
    UserNamespace,
)

Node = Any

RLIMITS = {"nofile": (1000, 2000), "core": (0, 0)}

FACTS = """
exec 2>&1
echo "== env"; env | sort
echo "== cwd"; pwd
echo "== id"; id
echo "== umask"; umask
echo "== hostname"; hostname
echo "== status"; grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|SigIgn|SigBlk):' /proc/self/status
echo "== maps"; cat /proc/self/uid_map /proc/self/gid_map
echo "== limits"; cat /proc/self/limits
echo "== mounts"; cat /proc/self/mountinfo
echo "== devices"; ls -ln /dev | grep -v ' pts$' | tail -n +2
echo "== descriptors"; ls /proc/self/fd
echo "== oom"; cat /proc/self/oom_score_adj
echo "== sysctl"; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax
echo "== masked"
for p in /proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/scsi /sys/firmware; do
  [ -e $p ] && echo $p $(head -c 1 $p 2>/dev/null | wc -c) $(ls $p 2>/dev/null | grep -cv /)
done
for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/bus/x /proc/irq/x /sys/x /x; do
  (echo x > $p) 2>/dev/null && echo $p written || echo $p refused
done
echo "== refused"
for c in "mount -t tmpfs none /tmp" "unshare -U true" "unshare -m true" "mknod /tmp/b b 7 0" "mknod /tmp/z c 1 5" \
  "hostname x" "chmod 4755 /tmp" "chown 5:5 /tmp" "nsenter -t 1 -m true"; do
  $c >/dev/null 2>&1; echo "$c: $?"
done
"""

EXPLAINED = {
    # What an engine does above crun, and our runtime itself, since there is no engine between it and the agent.
    ".*: env (HOSTNAME|HOME|PATH)": "given by the runtime, from the pod and the image's /etc/passwd",
    "no new privileges: (id|status Gid|status Groups)": "user 101's group and groups are read from the image",
    # The kernel's own files are covered as strictly as they were mounted; crun's covers drop nosuid, nodev, noexec.
    ".*: mount /proc/(acpi|bus|fs|irq|sys)": "ours keep nosuid, nodev and noexec on read-only and masked directories",
    ".*: mount /sys/firmware": "likewise",
    ".*: mount /proc/(interrupts|keys|timer_list)": "masked by the container's own /dev/null; crun binds the node's",
    ".*: mount /sys": "the superblock is read-only, too; crun's only the mount",
    ".*: mount /sys/fs/cgroup(/.*)?": "ours shows the controllers that limit the pod, and its tmpfs is read-only",
    "(user|no new privileges): device null": "crun gives its standard input, the node's /dev/null, to the user",
    # A pod with users of its own: crun needs somebody to have chowned the root file system; ours maps it.
    "own users: device .*": "ours makes them for the pod's root; crun binds the node's, which are nobody's",
    "own users: mount /dev/(full|null|random|tty|urandom|zero)": "likewise",
    "own users: (masked /x|refused chmod 4755 /tmp:|refused chown 5:5 /tmp:)": "the image's files are the pod's root's",
}
"""Pattern of `case: fact` -> why ours is not as crun's (1.8)."""


def sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("== "):
            lines = found.setdefault(line[3:], [])
        else:
            lines.append(line)
    return found


def facts(text: str) -> dict[str, str]:
    """What a container said, as single comparable facts."""
    result: dict[str, str] = {}
    for name, lines in sections(text).items():
        if name == "env":
            result |= {f"env {line.partition('=')[0]}": line.partition("=")[2] for line in lines}
        elif name == "status":
            result |= {f"status {line.split(':')[0]}": " ".join(line.split()[1:]) for line in lines}
        elif name == "limits":
            result |= {f"limit {line[:26].strip()}": " ".join(line[26:].split()) for line in lines[1:]}
        elif name == "mounts":
            for line in lines:
                before, after = line.split(" - ")
                _, _, _, root, target, options = before.split()[:6]
                kind, _, more = after.split(" ", 2)
                flags = ",".join(sorted(options.split(",")))
                shown = "" if kind in ("overlay", "cgroup", "cgroup2") else ",".join(sorted(more.split(",")))
                shown = re.sub(r"inode64,?|rw,?|,$", "", shown)
                result[f"mount {target}"] = f"{kind} {flags} {shown} {root if kind == 'proc' else ''}".strip()
        elif name == "devices":
            for line in lines:
                words = line.split()
                target = words[-1]
                result[f"device {target if '->' not in line else words[-3]}"] = " ".join(
                    words[:1] + words[2:4] + ([words[4] + words[5]] if words[0][0] == "c" else [])
                ) + (f" -> {target}" if "->" in line else "")
        elif name in ("masked", "refused"):
            result |= {f"{name} {line.rpartition(' ')[0]}": line.rpartition(" ")[2] for line in lines}
        else:
            result[name] = " | ".join(lines)
    return result


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"envs": (("A", "1"), ("B", "two words"), ("PATH", "/bin"))}),
    "user": ({}, {"security": SecurityContext(run_as_user=1234, run_as_group=77, supplemental_groups=(5, 9)),
                  "working_dir": "/srv"}),
    "no capabilities": ({}, {"security": SecurityContext(drop_capabilities=("ALL",))}),
    "other capabilities": ({}, {"security": SecurityContext(add_capabilities=("NET_ADMIN", "SYS_TIME"),
                                                            drop_capabilities=("CHOWN", "MKNOD"))}),
    "no new privileges": ({}, {"security": SecurityContext(no_new_privs=True, run_as_user=101)}),
    "read-only": ({}, {"security": SecurityContext(readonly_rootfs=True)}),
    "sysctls": ({"sysctls": {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "4096"}}, {}),
    "own users": ({"user_namespace": UserNamespace(2_000_000)}, {}),
}  # fmt: skip


@pytest.fixture
def crun(node: Node, tmp_path: Path) -> Any:
    if shutil.which("crun") is None or os.uname().machine != "x86_64":
        pytest.skip("needs crun on x86-64")
    spec = importlib.util.spec_from_file_location("wherry_test_crun", Path(__file__).with_name("crun.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Crun(tmp_path / "crun", node.layer, RLIMITS)


async def both(node: Node, crun: Any, script: str, case: str) -> tuple[dict[str, str], dict[str, str]]:
    pod, container = CASES[case]
    container_id = await node.start("/bin/sh", "-c", script, pod={"hostname": "box", **pod}, **container)
    await node.ended(container_id)
    identity = PodIdentity("default", "x", "x")
    config = ContainerConfig("c", 0, "", command=("/bin/sh", "-c", script), **container)
    _, theirs = await crun.run(SandboxConfig(identity, "box", "", **pod), config)
    return facts(await node.log(container_id)), facts(theirs)


@pytest.fixture
def limited(node: Node) -> Node:
    node.runtime._compiler._rlimits = RLIMITS
    return node


async def test_what_a_process_sees(limited: Node, crun: Any) -> None:
    wrong, seen = [], set()
    for case in CASES:
        ours, theirs = await both(limited, crun, FACTS, case)
        assert len(theirs) > 60, theirs
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                pattern = next((p for p in EXPLAINED if re.fullmatch(p, f"{case}: {name}")), None)
                seen.add(pattern)
                if pattern is None:
                    wrong.append(f"{case}: {name}\n   ours   {ours.get(name)}\n   theirs {theirs.get(name)}")
    assert not wrong, "\n".join(["", *wrong])
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")  # where less differs
    assert unified or not {*EXPLAINED} - seen, "no longer different: remove the explanation"


@pytest.mark.parametrize(
    ("script", "signal"),
    [
        ("exit 0", 0), ("exit 42", 0), ("exit 255", 0), ("kill -TERM $$; exit 3", 0),
        ("echo ready; while true; do sleep 0.01; done", 9),
        ("trap 'exit 7' TERM; echo ready; while true; do sleep 0.01; done", 15),
        ("sh -c 'kill -SEGV $$'; exit $?", 0), ("exec /bin/false", 0),
    ],
)  # fmt: skip
async def test_exit_codes_and_signals(node: Node, crun: Any, script: str, signal: int) -> None:
    config = ContainerConfig("c", 0, "", command=("/bin/sh", "-c", script), envs=(("PATH", "/bin"),))
    code, _ = await crun.run(SandboxConfig(PodIdentity("d", "x", "x"), "box", ""), config, kill=signal)
    container_id = await node.start("/bin/sh", "-c", script, stop_signal="SIGTERM")
    if signal:
        await node.log_has(container_id, "ready")
        await node.runtime.stop_container(container_id, 10 if signal == 15 else 0)
    assert (await node.ended(container_id)).exit_code == code


@pytest.mark.parametrize("command", ["/bin/none", "none", "/opt/noexec", "/opt", "/opt/garbage"])
async def test_what_cannot_be_executed(node: Node, crun: Any, command: str) -> None:
    from nodeagent.runtime.interface import RuntimeFailure

    config = ContainerConfig("c", 0, "", command=(command,), envs=(("PATH", "/bin"),))
    code, message = await crun.run(SandboxConfig(PodIdentity("d", "x", "x"), "box", ""), config)
    assert code != 0 and message
    with pytest.raises(RuntimeFailure):
        await node.start(command)


async def test_mounts_of_volumes(node: Node, crun: Any, tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "file").write_text("x")
    mounts = (
        Mount(str(volume), "/a"), Mount(str(volume), "/b/c", readonly=True), Mount(str(volume / "file"), "/etc/one"),
        Mount(str(volume), "/slave", propagation="rslave"), Mount(str(volume), "/rro", readonly=True, recursive=True),
    )  # fmt: skip
    script = "grep -E ' (/a|/b/c|/etc/one|/slave|/rro) ' /proc/self/mountinfo; ls /b/c; cat /etc/one"
    container_id = await node.start("/bin/sh", "-c", script, mounts=mounts)
    await node.ended(container_id)
    config = ContainerConfig("c", 0, "", command=("/bin/sh", "-c", script), envs=(("PATH", "/bin"),), mounts=mounts)
    _, theirs = await crun.run(SandboxConfig(PodIdentity("d", "x", "x"), "box", ""), config)

    def shown(text: str) -> list[str]:
        lines = [re.sub(r"^\d+ \d+ |(shared|master):\d+ ", "", line) for line in text.splitlines()]
        return sorted(lines)

    assert shown(await node.log(container_id)) == shown(theirs)
