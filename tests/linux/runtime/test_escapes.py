"""Ways out of a container that must be shut. Each test tries with what an ordinary container has: uid 0 inside."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime.interface import ImageConfig, RuntimeFailure

Node = Any

REFUSED = ("Operation not permitted", "Permission denied", "Read-only file system", "not permitted", "can't")


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /proc/sys",
        "umount /proc/sys",
        "unshare -m true",
        "unshare -U true",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/uevent_helper",
        "echo x > /sys/fs/cgroup/memory/release_agent",
        "mkdir /sys/fs/cgroup/memory/sub",
        "mknod /tmp/disk b 254 0 && dd if=/tmp/disk of=/dev/null bs=512 count=1",
        "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg",
        "nsenter -t 1 -m -- true",
        "hostname broken-out",
    ],
)
async def test_refused(node: Node, attempt: str) -> None:
    output = await node.shell(f"({attempt}) 2>&1 && echo ESCAPED; echo done")
    assert "ESCAPED" not in output and output.endswith("done\n"), output
    assert any(text in output for text in (*REFUSED, "permission denied", "nonexistent", "No such file")), output


async def test_the_nodes_processes_are_out_of_sight_and_reach(node: Node) -> None:
    output = await node.shell(f"ps | grep -c pytest; kill -9 {os.getpid()}; ls /proc | grep -c '^[0-9]'")
    assert int(output.split()[-1]) < 10
    assert "No such process" in output or "can't kill" in output


async def test_the_shim_is_not_in_the_containers_namespace_and_not_dumpable(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    pid = (await node.runtime.container_status(container_id)).pid
    shim = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    assert os.readlink(f"/proc/{shim}/ns/pid") != os.readlink(f"/proc/{pid}/ns/pid")
    assert Path(f"/proc/{shim}/exe").readlink() == Path("/")  # a detached mount: no path leads there
    with pytest.raises(OSError, match=r"Read-only file system|Text file busy"):
        os.close(os.open(f"/proc/{shim}/exe", os.O_RDWR))
    with pytest.raises(OSError, match="Read-only file system"):
        # what CVE-2019-5736 does once nobody executes the file any more: reopen by descriptor, with write access
        fd = os.open(f"/proc/{shim}/exe", os.O_PATH)
        try:
            os.truncate(f"/proc/self/fd/{fd}", os.path.getsize(os.path.realpath(sys.executable)))
        finally:
            os.close(fd)


async def test_entry_point_proc_self_exe_is_harmless(node: Node, tmp_path: Path) -> None:
    layer = tmp_path / "evil"
    (layer / "bin").mkdir(parents=True)
    (layer / "bin/entry").write_text("#!/proc/self/exe\n")
    (layer / "bin/entry").chmod(0o755)
    image = node.add_image("evil", ImageConfig(), str(layer))
    try:
        container_id = await node.start("/bin/entry", image=image)
        status = await node.ended(container_id)
        assert status.exit_code != 0
    except RuntimeFailure:
        pass


async def test_no_descriptor_of_the_node_leaks_in(node: Node) -> None:
    output = await node.shell("ls -l /proc/self/fd")
    numbers = {line.split()[8] for line in output.splitlines() if "->" in line}
    assert numbers <= {"0", "1", "2", "3"}  # 3 is ls's own


async def test_no_working_directory_leads_to_the_node(node: Node, tmp_path: Path) -> None:
    """CVE-2024-21626: a descriptor of the node's that is still open when the working directory is entered."""
    layer = tmp_path / "evil"
    layer.mkdir()
    for number in range(3, 40):
        (layer / f"to{number}").symlink_to(f"/proc/self/fd/{number}")
    image = node.add_image("evil", ImageConfig(), str(layer))
    sandbox = await node.sandbox()
    for directory in (f"{prefix}{n}" for n in range(3, 40) for prefix in ("/proc/self/fd/", "/to")):
        script = "cd ../../../../../../../..; test -e /bin/busybox && test -e var -o -e home && echo ESCAPED"
        try:
            container_id = await node.start(
                "/bin/sh", "-c", script, image=image, working_dir=directory, sandbox=sandbox
            )
        except RuntimeFailure as failure:
            assert "No such file" in str(failure) or "File exists" in str(failure), failure
            continue
        await node.ended(container_id)
        assert "ESCAPED" not in await node.log(container_id), directory


async def test_an_exec_gets_no_descriptor_and_no_working_directory_of_the_node(node: Node) -> None:
    sandbox = await node.sandbox()
    started = await node.start("/bin/sh", "-c", "sleep 1000", working_dir="/work", sandbox=sandbox)
    for number in range(3, 30):
        pid = (await node.runtime.container_status(started)).pid
        work = Path(f"/proc/{pid}/root/work")
        work.unlink() if work.is_symlink() else work.rmdir()
        work.symlink_to(f"/proc/self/fd/{number}")
        output = b""
        with contextlib.suppress(RuntimeFailure):
            session = await node.runtime.exec(started, ["/bin/ls", "../../../../.."], tty=False, stdin=False)
            while (chunk := await session.read()) is not None:
                output += chunk[1]
            await session.close()
        assert b"home" not in output.split() and b"var" not in output.split(), number


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
async def test_the_kernels_file_systems_follow_no_link_of_the_image(node: Node, tmp_path: Path, name: str) -> None:
    layer = tmp_path / "evil"
    layer.mkdir()
    (layer / name).symlink_to("tmp")
    image = node.add_image("evil", ImageConfig(), str(layer))
    with pytest.raises(RuntimeFailure, match=f"/{name} must be a directory"):
        await node.start("/bin/true", image=image)
