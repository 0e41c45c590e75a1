"""Starts, ends and deaths: of containers, and of everybody who looks after them."""

# ruff: noqa: ASYNC110 -- what the kernel does can only be looked at, again and again, up to a deadline

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime.interface import (
    ContainerState,
    LinuxResources,
    RuntimeFailure,
    SandboxState,
)

Node = Any

AGENT = """
import asyncio, sys
sys.path[:0] = sys.argv[4:6]
import importlib.util
spec = importlib.util.spec_from_file_location("kit", sys.argv[6])
kit = importlib.util.module_from_spec(spec); spec.loader.exec_module(kit)
from nodeagent.runtime.fake import FakeImages, FakeNetwork
from nodeagent.runtime.service import LinuxRuntime
from nodeagent.runtime.interface import *
import dataclasses

async def main():
    images = FakeImages()
    image = images.add("busybox")
    images.local["busybox"] = dataclasses.replace(image, layers=(sys.argv[7],))
    runtime = LinuxRuntime(*sys.argv[1:4], images, FakeNetwork())
    await runtime.start()
    sandbox = await runtime.run_sandbox(SandboxConfig(PodIdentity("d", "p", "agent-pod"), "h", sys.argv[8]))
    ids = []
    for name, command in (("long", ["/bin/sleep", "1000"]), ("talk", ["/bin/sh", "-c",
            "i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done"]),
            ("short", ["/bin/sh", "-c", "sleep 0.5; exit 5"])):
        container = ContainerConfig(name, 0, image.id, command=command, log_path=name + ".log")
        ids.append(await runtime.create_container(sandbox.id, container))
        await runtime.start_container(ids[-1])
    print(*ids, flush=True)
    await asyncio.sleep(100)

asyncio.run(main())
"""


async def test_exit_codes_and_signals(node: Node) -> None:
    sandbox = await node.sandbox()
    status = await node.ended(await node.start("/bin/sh", "-c", "exit 42", sandbox=sandbox))
    assert (status.exit_code, status.signal, status.reason) == (42, 0, "Error")
    status = await node.ended(
        await node.start("/bin/sh", "-c", "(sleep 0; kill -9 1) & wait; exec false", sandbox=sandbox)
    )
    assert status.exit_code == 1  # a namespace's first process cannot be killed from within it


async def test_stop_sends_the_stop_signal_and_waits(node: Node) -> None:
    script = "trap 'echo got it; exit 7' USR1; echo ready; while true; do sleep 0.01; done"
    container_id = await node.start("/bin/sh", "-c", script, stop_signal="SIGUSR1")
    await node.log_has(container_id, "ready")
    await node.runtime.stop_container(container_id, 10)
    status = await node.runtime.container_status(container_id)
    assert status.exit_code == 7 and "got it" in await node.log(container_id)


async def test_stop_kills_what_ignores_its_signal(node: Node) -> None:
    container_id = await node.start("/bin/sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.05; done")
    await node.log_has(container_id, "ready")
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await node.runtime.stop_container(container_id, 0.2)
    assert 0.2 <= loop.time() - begin < 5
    status = await node.runtime.container_status(container_id)
    assert (status.exit_code, status.signal) == (137, 9)


async def test_out_of_memory(node: Node) -> None:
    script = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    container_id = await node.start("/bin/sh", "-c", script, resources=LinuxResources(memory_limit_bytes=16 << 20))
    status = await node.ended(container_id)
    assert status.oom_killed and status.reason == "OOMKilled" and status.exit_code == 137


async def test_fork_bomb_stays_inside_its_limit_and_dies(node: Node) -> None:
    container_id = await node.start(
        "/bin/sh", "-c", "f() { f | f & }; f; echo ready; sleep 1000", resources=LinuxResources(pids_limit=30)
    )
    await node.log_has(container_id, "ready")
    await node.runtime.stop_container(container_id, 0)
    assert (await node.runtime.container_status(container_id)).state is ContainerState.EXITED


async def test_leftovers_in_a_shared_pid_namespace_die_with_their_container(node: Node) -> None:
    for pod in ({"host_pid": True}, {"share_process_namespace": True}):
        container_id = await node.start("/bin/sh", "-c", "sleep 98765 & echo $!; sleep 0.1", pod=pod)
        await node.ended(container_id)
        async with asyncio.timeout(10):
            while any(b"98765" in command for command in _commands()):
                await asyncio.sleep(0.01)


async def test_exit_is_told_as_an_event_promptly(node: Node) -> None:
    events = node.runtime.events()
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    container_id = await node.start("/bin/true")
    async with asyncio.timeout(10):
        event = await first
        while (event.type, event.container_id) != ("STOPPED", container_id):
            event = await anext(events)
    await events.aclose()


async def test_thirty_pods_at_once(node: Node) -> None:
    async def pod(number: int) -> str:
        return await node.shell(f"echo {number}")

    assert await asyncio.gather(*(pod(n) for n in range(30))) == [f"{n}\n" for n in range(30)]


async def test_agent_killed_and_everything_found_again(node: Node, tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[3])
    conftest = str(Path(__file__).with_name("conftest.py"))
    arguments = [*node.paths, root, root, conftest, node.layer, str(tmp_path / "agent-logs")]
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout
    async with asyncio.timeout(20):
        long, talk, short = (await agent.stdout.readline()).decode().split()
    agent.kill()
    await agent.wait()
    log = tmp_path / "agent-logs/talk.log"
    before = log.read_text().count("\n")
    async with asyncio.timeout(10):  # containers and their logs go on with nobody there
        while log.read_text().count("\n") < before + 20:
            await asyncio.sleep(0.01)
    exit_file = next(Path(node.paths[1]).glob(f"*/c/{short}")) / "exit.json"
    async with asyncio.timeout(10):
        while not exit_file.exists():
            await asyncio.sleep(0.01)
    await node.runtime.close()
    node.runtime = node.new_runtime()
    await node.runtime.start()
    (sandbox,) = await node.runtime.sandboxes()
    assert sandbox.state is SandboxState.READY and sandbox.identity.uid == "agent-pod" and sandbox.ips
    states = {c.id: (c.state, c.exit_code) for c in await node.runtime.containers()}
    assert states[long][0] is ContainerState.RUNNING and states[talk][0] is ContainerState.RUNNING
    assert states[short] == (ContainerState.EXITED, 5)
    lines = [int(line.split(" ", 3)[3]) for line in log.read_text().splitlines()]
    assert lines == list(range(len(lines)))  # nothing lost, nothing twice
    session = await node.runtime.exec(long, ["/bin/echo", "still here"], tty=False, stdin=False)
    assert await session.read() == (1, b"still here\n")
    await session.close()
    await node.runtime.stop_container(talk, 0)
    assert (await node.runtime.container_status(talk)).exit_code == 137


async def test_zygote_killed_pods_run_on_and_a_new_one_serves(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    assert await node.runtime.status() == ""
    node.zygote.kill()
    node.zygote.wait()
    assert "zygote.sock" in await node.runtime.status()
    assert (await node.runtime.container_status(container_id)).state is ContainerState.RUNNING
    session = await node.runtime.exec(container_id, ["/bin/true"], tty=False, stdin=False)
    assert await session.wait() == 0
    await session.close()
    node.zygote = node.start_zygote()
    assert await node.shell("echo again") == "again\n"
    await node.runtime.stop_container(container_id, 0)


async def test_shim_killed_is_noticed_and_cleaned(node: Node) -> None:
    sandbox = await node.sandbox()
    container_id = await node.start("/bin/sleep", "1000", sandbox=sandbox)
    pid = (await node.runtime.container_status(container_id)).pid
    shim = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    os.kill(shim, signal.SIGKILL)
    status = await node.ended(container_id)
    assert (status.exit_code, status.reason) == (137, "ContainerStatusUnknown")
    assert [s.state for s in await node.runtime.sandboxes()] == [SandboxState.NOTREADY]
    async with asyncio.timeout(10):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)
    with pytest.raises(RuntimeFailure):
        await node.runtime.exec(container_id, ["/bin/true"], tty=False, stdin=False)


async def test_shim_killed_while_no_agent_was_there(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    pid = (await node.runtime.container_status(container_id)).pid
    shim = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    await node.runtime.close()
    os.kill(shim, signal.SIGKILL)
    node.runtime = node.new_runtime()
    await node.runtime.start()
    status = await node.runtime.container_status(container_id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
    assert [s.state for s in await node.runtime.sandboxes()] == [SandboxState.NOTREADY]


async def test_half_made_leftovers_are_swept(node: Node) -> None:
    state = Path(node.paths[1])
    (state / "a-directory-without-a-config").mkdir()
    (Path(node.paths[0]) / "containers/unknown/upper").mkdir(parents=True)
    await node.runtime.close()
    node.runtime = node.new_runtime()
    await node.runtime.start()
    assert list(state.iterdir()) == [] and os.listdir(Path(node.paths[0]) / "containers") == []


async def test_a_cancelled_start_is_finished_and_known(node: Node) -> None:
    sandbox = await node.sandbox()
    starting = asyncio.ensure_future(node.start("/bin/sleep", "1000", sandbox=sandbox))
    while not await node.runtime.containers(sandbox.id):
        await asyncio.sleep(0)
    starting.cancel()
    (status,) = await node.runtime.containers(sandbox.id)
    await node.until(lambda s: s.state is not ContainerState.CREATED, status.id)
    assert (await node.runtime.container_status(status.id)).pid > 0


async def test_network_failure_leaves_no_sandbox(node: Node) -> None:
    node.network.failure = RuntimeFailure("no address left")
    with pytest.raises(RuntimeFailure, match="no address left"):
        await node.sandbox()
    assert list(await node.runtime.sandboxes()) == []
    node.network.failure = None


async def test_shim_and_zygote_are_small(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    pid = (await node.runtime.container_status(container_id)).pid
    shim = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    assert _rollup(node.zygote.pid, "Rss") < 15_000
    assert _rollup(shim, "Private_Dirty") < 2_000


def _rollup(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)


def _commands() -> list[bytes]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append(Path(f"/proc/{entry}/cmdline").read_bytes())
            except OSError:
                continue
    return found
