"""Ways out of a container that must be shut. Each test tries with what an ordinary container has: uid 0 inside."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

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
    from nodeagent.runtime.interface import ImageConfig, RuntimeFailure

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
