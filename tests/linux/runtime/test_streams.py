"""Logs, exec and attach with real pipes and terminals."""

import asyncio
import fcntl
import os
import re
import termios
from pathlib import Path
from typing import Any

import pytest

from nodeagent.pods.logrotate import LogRotation
from nodeagent.runtime.interface import ContainerState, ExecSession, NotFound, RuntimeFailure
from nodeagent.server.loglines import LogOptions
from nodeagent.server.logs import read

Node = Any


async def output_of(session: ExecSession, until: bytes = b"") -> bytes:
    """What the session prints: to its end, or until it has printed `until`."""
    found = b""
    async with asyncio.timeout(15):
        while not (until and until in found):
            chunk = await session.read()
            if chunk is None:
                return found
            found += chunk[1]
    return found


async def test_log_format_and_streams(node: Node) -> None:
    container_id = await node.start(
        "/bin/sh", "-c", "echo out; sleep 0.05; echo err >&2; sleep 0.05; printf unfinished"
    )
    await node.ended(container_id)
    text = Path((await node.runtime.container_status(container_id)).log_path).read_text()
    lines = text.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] ", line) for line in lines)
    texts = [line.split(" ", 1)[1] for line in lines]
    assert [t for t in texts if t.startswith("stdout")] == ["stdout F out", "stdout P unfinished"]
    assert [t for t in texts if t.startswith("stderr")] == ["stderr F err"]


async def test_long_lines_and_megabytes_arrive_whole(node: Node) -> None:
    container_id = await node.start("/bin/sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; seq 1 200000")
    assert (await node.ended(container_id)).exit_code == 0
    log = await node.log(container_id)
    assert log.startswith("x" * 50000 + "\n1\n")
    numbers = [int(line) for line in log.splitlines() if line.isdigit()]
    assert numbers == list(range(1, 200001))


async def test_log_rotation_loses_nothing(node: Node) -> None:
    container_id = await node.start(
        "/bin/sh", "-c", "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.002; done"
    )
    path = Path((await node.runtime.container_status(container_id)).log_path)
    await node.log_has(container_id, "50\n")
    rotated = path.with_suffix(".1")
    path.rename(rotated)
    await node.runtime.reopen_log(container_id)
    await node.ended(container_id)
    text = rotated.read_text() + path.read_text()
    assert [int(line.split()[3]) for line in text.splitlines()] == list(range(400))


async def test_exec_joins_the_container_wholly(node: Node) -> None:
    from nodeagent.runtime.interface import SecurityContext

    security = SecurityContext(run_as_user=1000, drop_capabilities=("ALL",), no_new_privs=True)
    container_id = await node.start(
        "/bin/sleep", "1000", security=security, envs=(("COLOUR", "blue"),), working_dir="/tmp"
    )
    script = (
        "for n in mnt pid net ipc uts cgroup; do "
        "test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) && echo same; done; id -u; pwd; "
        "echo $COLOUR; grep -E 'CapBnd|NoNew|Seccomp:' /proc/self/status; "
        "cat /proc/self/cgroup /proc/1/cgroup | sort -u | wc -l; cat /proc/1/cgroup | wc -l"
    )
    session = await node.runtime.exec(container_id, ["/bin/busybox", "sh", "-c", script], tty=False, stdin=False)
    output = (await output_of(session)).decode()
    assert await session.wait() == 0
    await session.close()
    words = output.split()
    assert words.count("same") == 6, output
    assert "1000\n/tmp\nblue\n" in output
    assert "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2" in output
    assert words[-1] == words[-2], "an exec'd process is in the container's cgroups"


async def test_exec_with_a_terminal(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    session = await node.runtime.exec(container_id, ["/bin/sh"], tty=True, stdin=True)
    await session.resize(132, 43)
    await session.write(b"tty; stty size; echo $TERM\n")
    output = await output_of(session, b"xterm\r\n")
    assert b"/dev/pts/0" in output and b"43 132" in output
    await session.write(b"exit 9\n")
    await output_of(session)
    assert await session.wait() == 9
    await session.close()


async def test_exec_big_output_with_a_slow_reader(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    session = await node.runtime.exec(
        container_id, ["/bin/sh", "-c", "head -c 3000000 /dev/zero"], tty=False, stdin=False
    )
    total = 0
    async with asyncio.timeout(15):
        while (chunk := await session.read()) is not None:
            total += len(chunk[1])
            await asyncio.sleep(0)
    assert total == 3_000_000 and await session.wait() == 0
    await session.close()


async def test_exec_dies_with_the_agents_connection(node: Node) -> None:
    container_id = await node.start("/bin/sleep", "1000")
    session = await node.runtime.exec(container_id, ["/bin/sleep", "2000"], tty=False, stdin=False)
    await session.close()
    check = ["/bin/sh", "-c", "while ps | grep -q '[s]leep 2000'; do sleep 0.01; done; echo gone"]
    session = await node.runtime.exec(container_id, check, tty=False, stdin=False)
    assert await output_of(session) == b"gone\n"
    await session.close()


async def test_container_with_a_terminal_and_attach(node: Node) -> None:
    container_id = await node.start("/bin/sh", tty=True, stdin=True)
    session = await node.runtime.attach(container_id)
    await session.resize(100, 30)
    await session.write(b"tty; stty size; ls /dev/console; echo end$((1+1))\n")
    output = await output_of(session, b"end2")
    assert b"/dev/pts/0" in output and b"30 100" in output
    await session.write(b"exit 4\n")
    async with asyncio.timeout(10):
        assert await session.wait() == 4
    await session.close()
    assert "30 100" in await node.log(container_id)


async def test_attach_with_pipes_and_stdin_once(node: Node) -> None:
    container_id = await node.start("/bin/sh", "-c", "cat; echo end >&2", stdin=True, stdin_once=True)
    session = await node.runtime.attach(container_id)
    await session.write(b"hello\n")
    assert await output_of(session, b"hello\n") == b"hello\n"
    await session.close_stdin()
    assert b"end\n" in await output_of(session)
    assert await session.wait() == 0
    await session.close()
    assert await node.log(container_id) == "hello\nend\n"


async def test_dialling_reaches_the_pods_own_localhost(node: Node) -> None:
    sandbox = await node.sandbox()
    up = await asyncio.create_subprocess_exec("nsenter", f"--net={sandbox.netns_path}", "ip", "link", "set", "lo", "up")
    assert await up.wait() == 0
    with pytest.raises(RuntimeFailure, match=r"IPv4: dial tcp4 127.0.0.1:8080: connect: connection refused IPv6: dial"):
        await node.runtime.dial(sandbox.id, 8080)
    await node.start("/bin/busybox", "nc", "-l", "-p", "8080", "-e", "/bin/echo", "hello", sandbox=sandbox)
    async with asyncio.timeout(10):
        while True:
            try:
                sock = await node.runtime.dial(sandbox.id, 8080)
                break
            except RuntimeFailure:  # it does not listen yet
                await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(sock=sock)
        assert await reader.read() == b"hello\n"
    writer.close()
    await writer.wait_closed()
    await node.runtime.stop_sandbox(sandbox.id)
    with pytest.raises(NotFound, match="is not running"):
        await node.runtime.dial(sandbox.id, 8080)


async def test_a_follower_loses_nothing_through_rotations(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As fast as it goes, rotated and compressed again and again, to a client that pauses now and then."""
    seconds = iter(range(1_800_000_000, 1_900_000_000))
    monkeypatch.setattr("controlplane.clock.wall_time", lambda: float(next(seconds)))  # a name for each rotation
    monkeypatch.setattr("nodeagent.server.logs._WATCH_S", 0.005)
    container_id = await node.start("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do seq 1 100000; sleep 0.03; done")
    status = await node.runtime.container_status(container_id)
    rotations = 0

    async def rotate() -> None:
        nonlocal rotations
        rotation = LogRotation(node.runtime, 1_000_000, 3)
        while True:
            before = os.stat(status.log_path).st_ino
            await rotation.round()
            rotations += os.stat(status.log_path).st_ino != before
            await asyncio.sleep(0.02)

    async def ended() -> bool:
        return (await node.runtime.container_status(container_id)).state is ContainerState.EXITED

    rotating = asyncio.create_task(rotate())
    seen = b""
    try:
        async with asyncio.timeout(30):
            async for chunk in read(status.log_path, LogOptions(follow=True), ended):
                seen += chunk
                if len(seen) % 7 == 0:
                    await asyncio.sleep(0.01)
    finally:
        rotating.cancel()
    assert seen == b"".join(b"%d\n" % n for n in range(1, 100_001)) * 8
    assert rotations >= 2


async def test_neither_output_starves_the_other(node: Node) -> None:
    """Both are always full, and take turns."""
    container_id = await node.start("/bin/sleep", "1000")
    session = await node.runtime.exec(
        container_id, ["/bin/sh", "-c", "cat /dev/zero & cat /dev/zero >&2"], tty=False, stdin=False
    )

    def waiting(fd: int) -> int:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")

    seen = []
    async with asyncio.timeout(15):
        for _ in range(6):
            while any(waiting(fd) < 65536 for fd in session._outputs.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            seen.append((await session.read())[0])
    assert seen in ([1, 2, 1, 2, 1, 2], [2, 1, 2, 1, 2, 1])
    await session.close()


async def test_the_end_of_a_visitors_input_is_not_the_shells(node: Node) -> None:
    """With a terminal and without stdinOnce; with it, it is. A container without stdin hears nothing at all."""
    visited = await node.start("/bin/sh", tty=True, stdin=True)
    session = await node.runtime.attach(visited)
    await session.close_stdin()
    await session.write(b"echo still-$((40+2))\n")
    await output_of(session, b"still-42")
    await session.close()
    once = await node.start("/bin/sh", tty=True, stdin=True, stdin_once=True)
    session = await node.runtime.attach(once)
    await session.write(b"echo up-$((40+2))\n")
    await output_of(session, b"up-42")
    await session.close_stdin()
    await node.ended(once)
    await session.close()
    deaf = await node.start("/bin/sh", tty=True)
    session = await node.runtime.attach(deaf)
    with pytest.raises(RuntimeFailure, match="standard input is closed"):
        await session.write(b"exit\n")
    await session.resize(100, 30)
    await session.close()
