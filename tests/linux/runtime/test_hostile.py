"""What a pod, a disk or a signal may do to a node: neighbours run on, the node serves on, and it is well afterwards."""

# ruff: noqa: ASYNC110, ASYNC221 -- what the kernel does can only be looked at, again and again, up to a deadline

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.runtime.interface import ContainerState, LinuxResources, RuntimeFailure, SandboxState
from nodeagent.runtime.service import LinuxRuntime

Node = Any
PATIENCE_S = 5.0  # how long a neighbour's exec may take while others storm, on two shared cores


@pytest.fixture
async def small(node: Node, tmp_path: Path) -> AsyncIterator[Node]:
    """A second node, whose whole disk is 8 MB and 300 inodes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=300", "small", str(disk)], check=True)
    try:
        (disk / "node").mkdir()
        other = type(node)(disk / "node")
        try:
            await other.runtime.start()
            yield other
        finally:
            await other.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_bytes(directory: Path) -> None:
    fd = os.open(directory / "filler", os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 4096, 1):
        with contextlib.suppress(OSError):
            while os.write(fd, bytes(size)):
                pass
    os.close(fd)


def fill_inodes(directory: Path) -> None:
    (directory / "fillers").mkdir()
    with pytest.raises(OSError) as full:
        for number in range(1000):
            (directory / f"fillers/{number}").touch()
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("fill", [fill_bytes, fill_inodes])
async def test_full_disk(small: Node, fill: Callable[[Path], None]) -> None:
    talk = "while true; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; sleep 0.01; done"
    sandbox = await small.sandbox()
    talker = await small.start("/bin/sh", "-c", talk, sandbox=sandbox)
    leaver = await small.start("/bin/sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.01; done", sandbox=sandbox)
    other = await small.sandbox()
    await small.log_has(talker, "a")
    fill(small.base)
    with pytest.raises(RuntimeFailure, match="No space left on device"):
        await small.start("/bin/true", sandbox=sandbox)
    with pytest.raises(RuntimeFailure, match="No space left on device"):
        await small.sandbox()
    assert await run(small, talker, "/bin/true") == 0
    await small.runtime.stop_container(leaver, 10)  # its end cannot be written down
    assert (await small.runtime.container_status(leaver)).exit_code == 7
    await small.runtime.remove_sandbox(other.id)
    await small.runtime.close()
    small.runtime = small.new_runtime()  # and an agent that starts on it finds everything
    await small.runtime.start()
    states = {c.id: c.state for c in await small.runtime.containers()}
    assert states == {talker: ContainerState.RUNNING, leaver: ContainerState.EXITED}
    subprocess.run(["rm", "-rf", small.base / "filler", small.base / "fillers"], check=True)
    assert await small.shell("echo well again") == "well again\n"


async def run(node: Node, container_id: str, *command: str) -> int:
    session = await node.runtime.exec(container_id, list(command), tty=False, stdin=False)
    try:
        return int(await session.wait())
    finally:
        await session.close()


async def neighbour_is_well(node: Node, neighbour: str, times: int = 20) -> None:
    for _ in range(times):
        async with asyncio.timeout(PATIENCE_S):
            assert await run(node, neighbour, "/bin/true") == 0


async def test_fork_bomb_meets_the_node_s_limit(node: Node) -> None:
    """A pod without a limit of its own is held by the one on all pods; the node can still make processes."""
    group = f"robust-{os.getpid()}"
    await node.runtime.set_group(group, LinuxResources(pids_limit=300))
    neighbour = await node.start("/bin/sleep", "1000")
    bomb_pod = await node.sandbox(cgroup_parent=f"{group}/bomb")
    bomb = await node.start("/bin/sh", "-c", "f() { f & f & sleep 1; }; f & exec sleep 1000", sandbox=bomb_pod)
    cgroups = Cgroups(detect())
    async with asyncio.timeout(30):
        while len(cgroups.processes(f"{group}/bomb")) < 200:
            await asyncio.sleep(0.01)
    await neighbour_is_well(node, neighbour)
    assert await node.shell("echo new pods, too") == "new pods, too\n"
    await node.runtime.stop_container(bomb, 0)
    await node.runtime.remove_sandbox(bomb_pod.id)
    async with asyncio.timeout(10):
        while cgroups.processes(group) or not cgroups.remove(group):
            await asyncio.sleep(0.01)


async def test_storm_of_processes_that_run_out_of_memory(node: Node) -> None:
    neighbour = await node.start("/bin/sleep", "1000", resources=LinuxResources(memory_limit_bytes=16 << 20))
    hog = 'while true; do (x=aaaaaaaaaaaaaaaa; while true; do x="$x$x"; done) & sleep 0.05; done'
    limits = LinuxResources(memory_limit_bytes=24 << 20, pids_limit=100, oom_score_adj=1000)
    storm = await node.start("/bin/sh", "-c", hog, resources=limits)
    await neighbour_is_well(node, neighbour)
    assert (await node.runtime.container_status(neighbour)).state is ContainerState.RUNNING
    await node.runtime.stop_container(storm, 0)
    assert (await node.runtime.container_status(storm)).state is ContainerState.EXITED


async def test_stopped_shim_and_zygote_are_continued(node: Node) -> None:
    await node.runtime.close()
    node.runtime = LinuxRuntime(*node.paths, node.images, node.network, watch_period_s=0.1)
    await node.runtime.start()
    container_id = await node.start("/bin/sleep", "1000")
    shim = node.runtime._pods.pids()[1]
    os.kill(shim, signal.SIGSTOP)
    async with asyncio.timeout(10):
        assert await run(node, container_id, "/bin/true") == 0
    os.kill(node.zygote.pid, signal.SIGSTOP)
    async with asyncio.timeout(10):
        assert await node.shell("echo again") == "again\n"
    assert all(s.state is SandboxState.READY for s in await node.runtime.sandboxes())
