"""What the agent gets from Debian's containerd beyond the contract suite: network, streams, logs, limits, restarts."""

import asyncio
import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from nodeagent.cri.podgroups import hierarchies
from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.runtime.interface import (
    ContainerState,
    ExecSession,
    LinuxResources,
    Mount,
    PortMapping,
    RuntimeFailure,
    SandboxState,
    SecurityContext,
)
from tests.linux.cri.conftest import GROUP, SUBNET, Foreign

pytestmark = pytest.mark.root


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def output(foreign: Foreign, container_id: str, *command: str) -> str:
    session = await foreign.runtime.exec(container_id, command, tty=False, stdin=False)
    try:
        text = bytearray()
        async with asyncio.timeout(10):
            while (chunk := await session.read()) is not None:
                text += chunk[1]
            assert await session.wait() == 0, text
        return text.decode()
    finally:
        await session.close()


async def test_pods_have_addresses_of_the_nodes_range_and_reach_each_other(foreign: Foreign) -> None:
    one, two = await foreign.sandbox("one"), await foreign.sandbox("two")
    for sandbox in (one, two):
        assert ipaddress.ip_address(sandbox.ips[0]) in ipaddress.ip_network(SUBNET)
    assert one.ips != two.ips
    server = await foreign.container(two, "nc", "-l", "-p", "80", "-e", "echo", "hello")
    client = await foreign.container(one, "sleep", "1000")
    assert await output(foreign, client, "nc", "-w", "5", two.ips[0], "80") == "hello\n"
    assert server != client


async def test_port_forward_reaches_localhost_and_tells_of_refusals(foreign: Foreign) -> None:
    sandbox = await foreign.sandbox("web")
    await foreign.container(sandbox, "nc", "-ll", "-p", "8080", "-e", "cat")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while True:
            try:
                sock = await foreign.runtime.dial(sandbox.id, 8080)
                break
            except RuntimeFailure:
                await asyncio.sleep(0.05)
        await loop.sock_sendall(sock, b"there and back")
        answer = b""
        while len(answer) < 14:
            data = await loop.sock_recv(sock, 1000)
            assert data, answer
            answer += data
    sock.close()
    assert answer == b"there and back"
    with pytest.raises(RuntimeFailure, match="refused"):
        await foreign.runtime.dial(sandbox.id, 9)


async def test_log_in_cris_format_and_reopened(foreign: Foreign) -> None:
    sandbox = await foreign.sandbox("log")
    container_id = await foreign.container(sandbox, "sh", "-c", "echo first; cat", stdin=True)
    path = foreign.logs / "log" / "app.log"
    assert (await foreign.runtime.container_status(container_id)).log_path == str(path)
    await until(lambda: path.exists() and path.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z stdout F first\n", path.read_text().replace("+00:00", "Z"))
    os.rename(path, f"{path}.1")
    await foreign.runtime.reopen_log(container_id)
    session = await foreign.runtime.attach(container_id)
    await session.write(b"second\n")
    assert await session.read() == (1, b"second\n")
    await until(lambda: path.exists() and path.read_text().endswith("stdout F second\n"))
    await session.close()


async def test_terminal_with_its_size(foreign: Foreign) -> None:
    sandbox = await foreign.sandbox("tty")
    container_id = await foreign.container(sandbox, "sleep", "1000")
    script = 'until [ "$(stty size)" = "37 101" ]; do sleep 0.05; done; read x; echo "<$x>"'
    session = await foreign.runtime.exec(container_id, ["sh", "-c", script], tty=True, stdin=True)
    await session.write(b"typed\n")
    reading = asyncio.ensure_future(_all(session))
    async with asyncio.timeout(10):
        while not reading.done():  # containerd 1.6 loses a size that comes before the process
            await session.resize(101, 37)
            await asyncio.wait([reading], timeout=0.1)
        assert b"<typed>" in await reading and await session.wait() == 0
    await session.close()


async def _all(session: ExecSession) -> bytes:
    text = b""
    while (chunk := await session.read()) is not None:
        text += chunk[1]
    return text


async def test_limits_in_the_pods_own_cgroup(foreign: Foreign) -> None:
    groups = Cgroups(detect("/"))
    limits = LinuxResources(memory_limit_bytes=1 << 28)
    sandbox = await foreign.sandbox("limited", resources=limits)
    container_id = await foreign.container(
        sandbox, "sleep", "1000", resources=LinuxResources(memory_limit_bytes=1 << 26)
    )
    path = f"{GROUP}/pod-limited"
    pod, inner = groups.usage(path), groups.usage(f"{path}/{container_id}")
    assert pod is not None and inner is not None and (pod.limit_bytes, inner.limit_bytes) == (1 << 28, 1 << 26)
    await foreign.runtime.update_resources(container_id, LinuxResources(memory_limit_bytes=1 << 25))
    await foreign.runtime.update_sandbox_resources(sandbox.id, LinuxResources(memory_limit_bytes=1 << 27))
    pod, inner = groups.usage(path), groups.usage(f"{path}/{container_id}")
    assert pod is not None and inner is not None and (pod.limit_bytes, inner.limit_bytes) == (1 << 27, 1 << 25)
    await foreign.runtime.remove_sandbox(sandbox.id)
    assert groups.usage(path) is None and not [top for top in hierarchies() if os.path.exists(f"{top}/{path}")]


async def test_configuration_arrives(foreign: Foreign) -> None:
    (foreign.logs.parent / "data").mkdir()
    (foreign.logs.parent / "data" / "file").write_text("mounted")
    sandbox = await foreign.sandbox(
        "config", port_mappings=(PortMapping(80, 18080),), sysctls={"net.ipv4.ip_forward": "1"}
    )
    container_id = await foreign.container(
        sandbox, "sleep", "1000", envs=(("GREETING", "hello"),), working_dir="/tmp",
        mounts=(Mount(str(foreign.logs.parent / "data"), "/data", readonly=True),),
        security=SecurityContext(run_as_user=1000, run_as_group=100, supplemental_groups=(7,), readonly_rootfs=True),
    )  # fmt: skip
    script = "echo $GREETING; pwd; id -u; id -G; cat /data/file; touch /x 2>&1 || true"
    lines = (await output(foreign, container_id, "sh", "-c", script)).splitlines()
    assert lines[:3] == ["hello", "/tmp", "1000"] and set(lines[3].split()) == {"100", "7"}
    assert lines[4].startswith("mounted") and "Read-only file system" in "".join(lines[4:])


async def test_a_restarted_agent_knows_and_goes_on(foreign: Foreign) -> None:
    sandbox = await foreign.sandbox("kept", labels={"app": "kept"}, annotations={"mine": "1"})
    container_id = await foreign.container(sandbox, "sleep", "1000", annotations={"hash": "x"})
    await foreign.again()
    [found] = await foreign.runtime.sandboxes()
    assert found == dataclasses.replace(sandbox) and found.annotations == {"mine": "1"}
    [container] = await foreign.runtime.containers()
    assert container.id == container_id and container.annotations == {"hash": "x"}
    second = await foreign.container(found, "true", name="second")
    assert (await foreign.runtime.container_status(second)).log_path == str(foreign.logs / "kept" / "second.log")
    await foreign.runtime.remove_sandbox(sandbox.id)
    assert Cgroups(detect("/")).usage(f"{GROUP}/pod-kept") is None


async def test_what_happens_behind_our_back_is_heard(foreign: Foreign) -> None:
    sandbox = await foreign.sandbox("heard")
    container_id = await foreign.container(sandbox, "sleep", "1000")
    events: Any = foreign.runtime.events()
    listening = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    foreign.daemon.ctr("task", "kill", "-s", "SIGKILL", container_id)
    async with asyncio.timeout(10):
        event = await listening
    assert (event.container_id, event.type, event.pod_uid) == (container_id, "STOPPED", "uid-heard")
    status = await foreign.runtime.container_status(container_id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
    await events.aclose()
    await foreign.runtime.stop_sandbox(sandbox.id)
    assert [s.state for s in await foreign.runtime.sandboxes()] == [SandboxState.NOTREADY]


async def test_images(foreign: Foreign) -> None:
    names = {tag for image in await foreign.images.images() for tag in image.tags}
    assert "docker.io/library/busybox:latest" in names
    image = await foreign.images.status("busybox")
    assert image is not None and image.config.cmd == ("/bin/sh",) and "PATH=/bin" in image.config.env
    assert await foreign.images.status("docker.io/library/nothing:1") is None
    with pytest.raises(RuntimeFailure) as caught:
        await foreign.images.pull("127.0.0.1:1/nothing:1")
    assert caught.value.reason == "ErrImagePull" and "refused" in str(caught.value)
    assert await foreign.images.mountpoint()
    with pytest.raises(RuntimeFailure, match="cannot load"):
        await foreign.images.load("/nowhere")
