"""What a container is and may do, seen from inside a real one."""

import os
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime.interface import (
    ContainerState,
    ImageConfig,
    LinuxResources,
    Mount,
    RuntimeFailure,
    SecurityContext,
)

Node = Any


@pytest.mark.parametrize("node", [True, False], ids=["native", "python"], indirect=True)
async def test_both_executors_make_the_same_container(node: Node) -> None:
    script = "grep -E '^(Cap|NoNew|Seccomp:|Groups|SigIgn|SigBlk)' /proc/self/status; mount | wc -l; ls /dev; id; pwd"
    output = await node.shell(script, working_dir="/srv/deep/er")
    assert "CapEff:\t00000000a80425fb" in output and "CapAmb:\t0000000000000000" in output
    assert "CapInh:\t0000000000000000" in output and "CapBnd:\t00000000a80425fb" in output
    assert "Seccomp:\t2" in output and "NoNewPrivs:\t0" in output
    assert "SigIgn:\t0000000000000000" in output and "SigBlk:\t0000000000000000" in output
    assert output.endswith("/srv/deep/er\n")
    devices = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"}
    assert devices <= set(output.split())


async def test_own_namespaces(node: Node) -> None:
    output = await node.shell(
        "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo $$; hostname"
    )
    inside = output.split()
    outside = [os.readlink(f"/proc/self/ns/{n}") for n in ("mnt", "pid", "net", "ipc", "uts", "cgroup")]
    assert not set(inside) & set(outside)
    assert inside[6] == "1" and inside[7].startswith("pod-")


async def test_containers_of_a_pod_share_network_ipc_uts_and_shm(node: Node) -> None:
    sandbox = await node.sandbox()
    script = (
        "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; touch /dev/shm/$NAME; ls /dev/shm; echo end"
    )
    words = []
    for name in ("first", "second"):  # both run at once: the kernel reuses a dead namespace's number
        command = ("/bin/sh", "-c", script + "; sleep 1000")
        container_id = await node.start(*command, sandbox=sandbox, envs=(("NAME", name),))
        await node.log_has(container_id, "end\n")
        words.append((await node.log(container_id)).split())
    first, second = words
    assert first[:3] == second[:3] and not set(first[3:5]) & set(second[3:5])
    assert first[5:] == ["first", "end"] and second[5:] == ["first", "second", "end"]


async def test_shared_memory_on_kernels_that_cannot_clone_a_detached_mount(node: Node) -> None:
    node.runtime._compiler.shm_detached = False
    sandbox = await node.sandbox()
    assert await node.shell("touch /dev/shm/a && ls /dev/shm", sandbox=sandbox) == "a\n"
    output = await node.shell("touch /dev/shm/b && ls /dev/shm; mount | grep /dev/shm", sandbox=sandbox)
    assert output.startswith("a\nb\n") and "noexec" in output and "size=65536k" in output


async def test_host_namespaces(node: Node) -> None:
    pod = {"host_network": True, "host_pid": True, "host_ipc": True}
    output = await node.shell("for n in net pid ipc mnt; do readlink /proc/self/ns/$n; done", pod=pod)
    net, pid, ipc, mnt = output.split()
    assert [net, pid, ipc] == [os.readlink(f"/proc/self/ns/{n}") for n in ("net", "pid", "ipc")]
    assert mnt != os.readlink("/proc/self/ns/mnt")


async def test_shared_process_namespace(node: Node) -> None:
    sandbox = await node.sandbox(share_process_namespace=True)
    await node.start("/bin/sleep", "4711", sandbox=sandbox)
    output = await node.shell("ps; echo me $$", sandbox=sandbox)
    assert "sleep 4711" in output and "me 1\n" not in output


async def test_user_from_image_name_and_numbers(node: Node) -> None:
    image = node.add_image("web", ImageConfig(user="web"))
    assert (
        await node.shell("id; echo $HOME", image=image) == "uid=101(web) gid=102(web) groups=102(web),300(logs)\n/srv\n"
    )
    security = SecurityContext(run_as_user=1234, run_as_group=5678, supplemental_groups=(42, 43))
    output = await node.shell("id; grep CapEff /proc/self/status; echo hi > /dev/stdout", security=security)
    assert output.startswith("uid=1234 gid=5678 groups=42,43,5678\nCapEff:\t0000000000000000\n")
    assert output.endswith("hi\n")
    with pytest.raises(RuntimeFailure, match="unable to find user nobody-here"):
        await node.start("/bin/true", image=node.add_image("bad", ImageConfig(user="nobody-here")))


async def test_capabilities(node: Node) -> None:
    script = "grep -E 'CapEff|CapBnd' /proc/self/status"
    none = await node.shell(script, security=SecurityContext(drop_capabilities=("ALL",)))
    assert none.split()[1::2] == ["0" * 16, "0" * 16]
    one = await node.shell(
        script, security=SecurityContext(drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",))
    )
    assert one.split()[1::2] == [f"{1 << 10:016x}"] * 2
    more = await node.shell(script, security=SecurityContext(add_capabilities=("NET_ADMIN",)))
    assert int(more.split()[1], 16) == 0xA80425FB | 1 << 12


async def test_no_new_privs_and_seccomp_profiles(node: Node, tmp_path: Path) -> None:
    script = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status"
    assert (await node.shell(script, security=SecurityContext(no_new_privs=True))).split()[1::2] == ["1", "2"]
    assert (await node.shell(script, security=SecurityContext(seccomp="Unconfined"))).split()[1::2] == ["0", "0"]
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    output = await node.shell(
        "mkdir /tmp/x || touch /tmp/y && ls /tmp", security=SecurityContext(seccomp=f"Localhost:{profile}")
    )
    assert "Operation not permitted" in output and output.endswith("y\n")


async def test_masked_and_readonly_paths(node: Node) -> None:
    output = await node.shell(
        "wc -c < /proc/timer_list; ls -A /sys/firmware; echo 1 > /proc/sys/kernel/domainname; "
        "mount | grep -c 'proc/sys '"
    )
    assert output.splitlines()[0] == "0"
    assert "Read-only file system" in output and output.endswith("1\n")
    security = SecurityContext(masked_paths=("/etc/passwd", "/srv"), readonly_paths=("/tmp",))
    output = await node.shell("cat /etc/passwd; ls -A /srv; touch /tmp/x", security=security)
    assert output.strip() == "touch: /tmp/x: Read-only file system"


async def test_readonly_root(node: Node) -> None:
    output = await node.shell("touch /x; touch /dev/shm/y && echo shm", security=SecurityContext(readonly_rootfs=True))
    assert output == "touch: /x: Read-only file system\nshm\n"


async def test_mounts(node: Node, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("content\n")
    mounts = (
        Mount(str(tmp_path / "dir"), "/data/deep"),
        Mount(str(tmp_path / "file"), "/etc/some/file", readonly=True),
        Mount("/proc/self/cgroup", "/dev/termination-log"),
    )
    output = await node.shell(
        "cat /etc/some/file; touch /data/deep/made; echo x > /etc/some/file; cat /dev/termination-log | wc -l",
        mounts=mounts,
    )
    assert output.startswith("content\n") and "Read-only file system" in output
    assert (tmp_path / "dir/made").exists() and (tmp_path / "file").read_text() == "content\n"


async def test_missing_mount_source_is_reported(node: Node) -> None:
    with pytest.raises(RuntimeFailure, match="/no/such/source: No such file"):
        await node.start("/bin/true", mounts=(Mount("/no/such/source", "/data"),))


async def test_mount_through_an_image_symlink_stays_inside(node: Node, tmp_path: Path) -> None:
    layer = tmp_path / "evil"
    layer.mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    (layer / "data").symlink_to(str(victim))
    (layer / "up").symlink_to("../../../../../../" + str(victim))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/secret").write_text("x")
    image = node.add_image("evil", ImageConfig(), str(layer))
    mounts = (Mount(str(tmp_path / "source"), "/data/sub"), Mount(str(tmp_path / "source"), "/up/sub"))
    with pytest.raises(RuntimeFailure):
        await node.start("/bin/true", image=image, mounts=mounts)
    assert list(victim.iterdir()) == []


async def test_environment_and_command(node: Node) -> None:
    config = ImageConfig(("/bin/sh", "-c"), ("echo from image $A $B $HOME; pwd",), ("A=1", "B=2"), "/opt")
    image = node.add_image("configured", config)
    container_id = await node.start(image=image, envs=(("B", "3 4"),))
    await node.ended(container_id)
    assert await node.log(container_id) == "from image 1 3 4 /root\n/opt\n"
    container_id = await node.start(image=image, args=("echo args",))
    await node.ended(container_id)
    assert await node.log(container_id) == "args\n"


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("no-such-program", 127, 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/opt/noexec", 126, 'exec: "/opt/noexec": permission denied'),
        ("/opt/garbage", 126, "exec /opt/garbage: exec format error"),
    ],
)
async def test_what_cannot_be_executed(node: Node, command: str, code: int, message: str) -> None:
    sandbox = await node.sandbox()
    with pytest.raises(RuntimeFailure) as caught:
        await node.start(command, sandbox=sandbox)
    assert str(caught.value) == message
    (status,) = await node.runtime.containers(sandbox.id)
    assert (status.state, status.exit_code, status.message) == (ContainerState.EXITED, code, message)


async def test_program_is_searched_in_path(node: Node) -> None:
    sandbox = await node.sandbox()
    container_id = await node.start("sh", "-c", "echo found", sandbox=sandbox, envs=(("PATH", "/opt:/nowhere:/bin"),))
    await node.ended(container_id)
    assert await node.log(container_id) == "found\n"


async def test_limits_are_set_and_updated(node: Node) -> None:
    resources = LinuxResources(512, 50_000, 100_000, 64 << 20, 50, oom_score_adj=500)
    script = (
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us pids/pids.max "
        "/proc/self/oom_score_adj; sleep 1000"
    )
    limit = "memory/memory.limit_in_bytes"
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        limit = "memory.max"
        script = "cd /sys/fs/cgroup; cat memory.max cpu.weight cpu.max pids.max /proc/self/oom_score_adj; sleep 1000"
    container_id = await node.start("/bin/sh", "-c", script, resources=resources)
    await node.log_has(container_id, "\n500\n")
    output = (await node.log(container_id)).split()
    assert output[0] == str(64 << 20) and "50000" in output and output[-2:] == ["50", "500"]
    await node.runtime.update_resources(container_id, LinuxResources(memory_limit_bytes=32 << 20))
    session = await node.runtime.exec(container_id, ["/bin/cat", f"/sys/fs/cgroup/{limit}"], tty=False, stdin=False)
    chunk = await session.read()
    assert chunk and int(chunk[1]) == 32 << 20
    await session.close()


async def test_a_group_above_pods_has_its_share_and_can_be_told_again(node: Node) -> None:
    path = f"wherry-test-{os.getpid()}/burstable"
    cgroups = node.runtime._cgroups
    unified = cgroups.layout.unified
    top = cgroups.layout.v2 if unified else cgroups.layout.v1["cpu"]
    file = f"{top}/{path}/{'cpu.weight' if unified else 'cpu.shares'}"
    try:
        for shares, weight in ((2, "1"), (1024, "39")):
            await node.runtime.set_group(path, LinuxResources(cpu_shares=shares))
            assert Path(file).read_text().strip() == (weight if unified else str(shares))
    finally:
        assert cgroups.remove(path.partition("/")[0])


async def test_rlimits_and_sysctls(node: Node) -> None:
    node.runtime._compiler._rlimits = {"nofile": (512, 1024), "core": (0, 0)}
    output = await node.shell("ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
                              pod={"sysctls": {"net.ipv4.ip_unprivileged_port_start": "80"}})  # fmt: skip
    assert output.split() == ["512", "1024", "80"]


async def test_privileged(node: Node) -> None:
    output = await node.shell(
        "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev | wc -l; "
        "mount | grep -c 'sysfs (rw'",
        security=SecurityContext(privileged=True),
    )
    words = output.split()
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    assert words[1] == own.split()[1] and words[3] == "0" and "mounted" in words and words[-1] == "1"
    assert int(words[-2]) > 16
