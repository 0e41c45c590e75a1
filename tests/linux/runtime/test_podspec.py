"""What single fields of a pod's spec come to in the kernel."""

import os
from pathlib import Path
from typing import Any

import pytest

from nodeagent.linux import syscalls
from nodeagent.runtime.interface import ContainerUser, Mount, RuntimeFailure, SecurityContext

Node = Any


def bind(source: Path, target: Path) -> None:
    syscalls.call("mount", bytes(source) + b"\0", bytes(target) + b"\0", None, 4096, None, path=str(target))


def unmount(path: Path) -> None:
    syscalls.call("umount2", bytes(path) + b"\0", 2, path=str(path))


async def test_read_only_with_and_without_what_is_mounted_below(node: Node, tmp_path: Path) -> None:
    volume, other = tmp_path / "v", tmp_path / "other"
    (volume / "below").mkdir(parents=True)
    other.mkdir()
    bind(other, volume / "below")
    try:
        for recursive, expected in ((False, "wrote below"), (True, "")):
            mount = Mount(str(volume), "/v", readonly=True, recursive=recursive)
            script = "touch /v/x 2>/dev/null && echo wrote; touch /v/below/x 2>/dev/null && echo wrote below; true"
            assert (await node.shell(script, mounts=[mount])).strip() == expected
    finally:
        unmount(volume / "below")


async def test_groups_of_the_image_and_strictly_not(node: Node) -> None:
    for strict, expected in ((False, {7, 102, 300}), (True, {7, 102})):
        security = SecurityContext(run_as_user=101, supplemental_groups=(7,), strict_groups=strict)
        container_id = await node.start("/bin/sh", "-c", "id -G", security=security)
        status = await node.ended(container_id)
        assert {int(g) for g in (await node.log(container_id)).split()} == expected
        assert status.user == ContainerUser(101, 102, tuple(sorted(expected)))


async def test_an_unknown_runtime_handler(node: Node) -> None:
    with pytest.raises(RuntimeFailure, match='no runtime for "kata" is configured'):
        await node.sandbox(runtime_handler="kata")
    assert (await node.sandbox(runtime_handler="runc")).id


async def test_a_profile_that_the_kernel_does_not_have(node: Node) -> None:
    """The container must not run without the profile that was promised."""
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        pytest.skip("this kernel has AppArmor")
    with pytest.raises(RuntimeFailure, match="AppArmor profile mine"):
        await node.start("/bin/true", security=SecurityContext(apparmor="mine"))


async def test_sysctls_by_either_spelling(node: Node) -> None:
    values = {"net.ipv4.ip_unprivileged_port_start": "99", "net/ipv4/conf/lo/rp_filter": "2", "kernel.msgmax": "4096"}
    sandbox = await node.sandbox(sysctls=values)
    paths = "net/ipv4/ip_unprivileged_port_start net/ipv4/conf/lo/rp_filter kernel/msgmax"
    output = await node.shell(f"cd /proc/sys; cat {paths}", sandbox=sandbox)
    assert output.split() == ["99", "2", "4096"]
    assert Path("/proc/sys/kernel/msgmax").read_text().strip() != "4096"
    with pytest.raises(RuntimeFailure, match="not allowed"):
        await node.sandbox(sysctls={"net.../../kernel/panic": "1"})


async def test_mount_propagation(node: Node, tmp_path: Path) -> None:
    volume, other = tmp_path / "v", tmp_path / "other"
    (volume / "sub").mkdir(parents=True)
    other.mkdir()
    (other / "seen").touch()
    bind(volume, volume)
    syscalls.call("mount", None, bytes(volume) + b"\0", None, 1 << 20, None)  # MS_SHARED
    try:
        script = "echo up; while [ ! -e /tmp/go ]; do sleep 0.01; done; ls /v/sub"
        started = {
            kind: await node.start("/bin/sh", "-c", script, mounts=[Mount(str(volume), "/v", propagation=kind)])
            for kind in ("private", "rslave", "rshared")
        }
        for container_id in started.values():
            await node.log_has(container_id, "up")
        bind(other, volume / "sub")
        try:
            for kind, container_id in started.items():
                session = await node.runtime.exec(container_id, ["/bin/touch", "/tmp/go"], tty=False, stdin=False)
                assert await session.wait() == 0
                await session.close()
                await node.ended(container_id)
                assert ("seen" in await node.log(container_id)) == (kind != "private"), kind
        finally:
            unmount(volume / "sub")
        mounting = SecurityContext(privileged=True)
        mount = [Mount(str(volume), "/v", propagation="rshared")]
        await node.shell("mount -t tmpfs x /v/sub", mounts=mount, security=mounting)
        assert os.path.ismount(volume / "sub")
        unmount(volume / "sub")
        syscalls.call("mount", None, bytes(volume) + b"\0", None, 1 << 18, None)  # MS_PRIVATE
        with pytest.raises(RuntimeFailure, match="is not a shared mount"):
            await node.start("/bin/true", mounts=mount)
    finally:
        unmount(volume)


async def test_a_container_among_the_processes_of_its_target(node: Node) -> None:
    """What `kubectl debug --target` does: the debugger sees the target's processes, and its files through /proc."""
    sandbox = await node.sandbox()
    target = await node.start("/bin/sh", "-c", "echo mine > /tmp/own; echo up; sleep 1234", sandbox=sandbox)
    other = await node.start("/bin/sleep", "4321", sandbox=sandbox)
    await node.log_has(target, "up")
    output = await node.shell("ps; cat /proc/1/root/tmp/own", sandbox=sandbox, target_id=target)
    assert "sleep 1234" in output and "4321" not in output and output.endswith("mine\n")
    assert (await node.runtime.container_status(target)).state == "CONTAINER_RUNNING"
    left = await node.start("/bin/sh", "-c", "(sleep 9999 &) ; exit 0", sandbox=sandbox, target_id=target)
    await node.ended(left)
    assert "9999" not in await node.shell("ps", sandbox=sandbox, target_id=target)  # nothing of it stays behind
    await node.runtime.stop_container(other, 0)
    with pytest.raises(RuntimeFailure, match="is not running"):
        await node.start("/bin/true", sandbox=sandbox, target_id=other)
