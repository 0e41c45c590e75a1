"""Pods with users of their own (hostUsers: false): root inside is nobody outside."""

import os
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime.interface import Mount, RuntimeFailure, SecurityContext, UserNamespace

Node = Any

USERS = UserNamespace(first=1_000_000)


async def test_root_inside_is_not_root_outside(node: Node, tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "given").write_text("by the node")
    script = "cat /proc/self/uid_map; id -u; ls -ln / /dev /v | tail -n +2; touch /made /v/made; sleep 1000"
    sandbox = await node.sandbox(user_namespace=USERS)
    started = await node.start("/bin/sh", "-c", script, sandbox=sandbox, mounts=[Mount(str(volume), "/v")])
    await node.log_has(started, "given")
    output = await node.log(started)
    assert output.split()[:4] == ["0", "1000000", "65536", "0"]
    foreign = {line.split()[-1] for line in output.splitlines() if " 65534 " in line}
    assert foreign <= {"proc", "sys", "pts", "mqueue"}, output  # the kernel's own: nobody's, as under any runtime
    pid = (await node.runtime.container_status(started)).pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"1000000"} and set(status["Gid"].split()) == {"1000000"}
    await node.until(lambda s: (volume / "made").exists(), started)
    assert (volume / "made").stat().st_uid == 0  # root's on the volume, for whoever has it next
    written = Path(node.runtime._compiler.written(node.runtime._find(started)))
    assert (written / "made").stat().st_uid == 1_000_000
    for kind in ("user", "net", "ipc", "uts", "mnt", "pid"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


async def test_another_user_and_an_exec(node: Node) -> None:
    sandbox = await node.sandbox(user_namespace=USERS)
    security = SecurityContext(run_as_user=101, run_as_group=102, supplemental_groups=(300,))
    started = await node.start(
        "/bin/sh", "-c", "id; echo out > /dev/stdout; sleep 1000", sandbox=sandbox, security=security
    )
    await node.log_has(started, "out")
    assert "uid=101(web) gid=102(web) groups=102(web),300(logs)" in await node.log(started)
    for tty in (False, True):
        command = ["/bin/sh", "-c", "id -u; cat /proc/self/uid_map; tty; test -w /dev/stdout && echo writable"]
        session = await node.runtime.exec(started, command, tty=tty, stdin=False)
        output = b""
        while (chunk := await session.read()) is not None:
            output += chunk[1]
        assert await session.wait() == 0
        words = output.split()
        assert words[:4] == [b"101", b"0", b"1000000", b"65536"] and words[-1] == b"writable", output
        await session.close()


async def test_a_terminal(node: Node) -> None:
    output = await node.shell("tty; ls -ln /dev/console /dev/pts/0", pod={"user_namespace": USERS}, tty=True)
    assert "/dev/pts/0" in output and "65534" not in output, output


async def test_its_own_power_reaches_its_own_namespaces_only(node: Node) -> None:
    everything = SecurityContext(add_capabilities=("ALL",), seccomp="Unconfined", masked_paths=(), readonly_paths=())
    script = """
        hostname mine && echo own name
        mount -t tmpfs x /tmp && echo own mount
        umount /proc/sys 2>/dev/null && echo ESCAPED
        (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo ESCAPED
        (echo b > /proc/sysrq-trigger) 2>/dev/null && echo ESCAPED
        mknod /tmp/disk b 254 0 2>/dev/null && echo ESCAPED
        mount -t sysfs x /opt 2>/dev/null; (echo x > /opt/kernel/uevent_helper) 2>/dev/null && echo ESCAPED
        echo done
    """
    output = await node.shell(script, pod={"user_namespace": USERS}, security=everything)
    assert "own name" in output and "own mount" in output and "ESCAPED" not in output and "done" in output, output


async def test_privileged_is_so_among_its_own_users_only(node: Node) -> None:
    security = SecurityContext(privileged=True)
    output = await node.shell("ls /dev; touch /sys/x; echo done", pod={"user_namespace": USERS}, security=security)
    assert "vda" not in output and "kmsg" not in output and "done" in output


async def test_a_low_port_and_a_sysctl_are_its_own(node: Node) -> None:
    sandbox = await node.sandbox(user_namespace=USERS, sysctls={"net.ipv4.ip_local_port_range": "1024 2000"})
    output = await node.shell("cat /proc/sys/net/ipv4/ip_local_port_range; id -u", sandbox=sandbox)
    assert output.split() == ["1024", "2000", "0"]


async def test_shared_memory_and_process_ids_of_the_pod(node: Node) -> None:
    sandbox = await node.sandbox(user_namespace=USERS, share_process_namespace=True)
    first = await node.start("/bin/sh", "-c", "echo hi > /dev/shm/x; sleep 1000", sandbox=sandbox)
    assert first
    output = await node.shell("while ! grep -q hi /dev/shm/x; do sleep 0.01; done; ps", sandbox=sandbox)
    assert "sleep 1000" in output


async def test_a_file_system_without_id_mapped_mounts_says_so(node: Node) -> None:
    with pytest.raises(RuntimeFailure, match="ID-mapped mounts"):
        await node.start("/bin/true", pod={"user_namespace": USERS}, mounts=[Mount("/proc/sys", "/v")])


async def test_ids_that_do_not_exist(node: Node) -> None:
    with pytest.raises(RuntimeFailure, match=r"write /proc/.*uid_map .*Invalid argument"):
        await node.sandbox(user_namespace=UserNamespace(first=4294967290, length=65536))
    assert not [s for s in await node.runtime.sandboxes() if s.state == "SANDBOX_READY"]
