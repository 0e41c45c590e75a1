"""What every `Runtime` promises, run over the fake here and over the real one when root and a kernel are there."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nodeagent.cri import cni
from nodeagent.cri.client import Client
from nodeagent.cri.grpc.client import Channel
from nodeagent.cri.images import CriImages
from nodeagent.cri.podgroups import PodGroups
from nodeagent.cri.runtime import CriRuntime
from nodeagent.cri.server.service import CriServer
from nodeagent.runtime import launch
from nodeagent.runtime.fake import FakeRuntime
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    ImageService,
    NotFound,
    PodIdentity,
    Runtime,
    RuntimeFailure,
    SandboxConfig,
    SandboxState,
)
from nodeagent.runtime.service import LinuxRuntime
from tests.linux import containerd


@dataclass
class Kit:
    """A started runtime, an image in it, and where logs go."""

    runtime: Runtime
    image: str
    logs: Path
    cgroup_parent: str = ""
    signals: bool = True
    """Whether a status tells which signal ended a container. The CRI has no word for it."""
    failed_start: tuple[int, str] = (127, "ContainerCannotRun")
    """Exit code and reason of a container that could not be started."""
    exec_fails_late: bool = False
    """Whether a command that is not there is an error of `wait` and not yet of `exec`, as over the CRI's streams."""

    def sandbox(self, uid: str = "pod", attempt: int = 0, **rest: Any) -> SandboxConfig:
        rest = {"cgroup_parent": self.cgroup_parent and f"{self.cgroup_parent}/{uid}", **rest}
        return SandboxConfig(PodIdentity("default", uid, uid, attempt), uid, str(self.logs / uid), **rest)


@pytest.fixture(scope="module")
def foreign_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[containerd.Containerd]:
    with containerd.running(tmp_path_factory.mktemp("containerd")) as daemon:
        name = f"wcri{os.getpid()}"
        text = cni.conflist(f"10.212.{os.getpid() % 250}.0/24", name, 1400, str(daemon.directory / "addresses"))
        cni.ensure(str(daemon.cni), text)
        try:
            yield daemon
        finally:
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


@pytest.fixture(
    params=[
        "fake",
        "fake-served",
        pytest.param("linux", marks=pytest.mark.root),
        pytest.param("linux-served", marks=pytest.mark.root),
        pytest.param("containerd", marks=pytest.mark.root),
    ]
)
async def runtime_kit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kit]:
    if request.param == "containerd":
        async with over_containerd(request.getfixturevalue("foreign_runtime"), tmp_path) as kit:
            yield kit
        return
    fake = FakeRuntime()
    image = fake.images.add("docker.io/library/busybox:latest")
    kit = Kit(fake, image.id, tmp_path / "logs")
    if request.param == "fake":
        yield kit
        return
    if request.param == "fake-served":
        async with served(kit, fake.images, tmp_path) as over:
            yield over
        return
    fake.images.local[image.tags[0]] = dataclasses.replace(image, layers=(busybox_layer(tmp_path / "layer"),))
    paths = (str(tmp_path / "root"), str(tmp_path / "state"), str(tmp_path / "zygote.sock"))
    zygote = subprocess.Popen(launch.command(*paths), stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    runtime = LinuxRuntime(*paths, fake.images, fake.network)
    try:
        await runtime.start()
        kit = Kit(runtime, image.id, tmp_path / "logs")
        if request.param == "linux-served":
            async with served(kit, fake.images, tmp_path) as over:
                yield over
        else:
            yield kit
    finally:
        for sandbox in await runtime.sandboxes():
            await runtime.remove_sandbox(sandbox.id)
        await runtime.close()
        zygote.kill()
        zygote.wait()
        # The shared devices cgroup stays: another process of this run may be about to enter it. tests/linux removes it.


@contextlib.asynccontextmanager
async def served(kit: Kit, images: ImageService, tmp_path: Path) -> AsyncIterator[Kit]:
    """The same runtime as a client of our own CRI server sees it: both sides of the seam in one."""
    server, parent = CriServer(kit.runtime, images, str(tmp_path / "root")), f"wherry-cri-{os.getpid()}"
    await server.listen(str(tmp_path / "cri.sock"))
    runtime = CriRuntime(Client(Channel(str(tmp_path / "cri.sock"))), cgroup_root=parent)
    await runtime.start()
    try:
        yield dataclasses.replace(kit, runtime=runtime, signals=False, exec_fails_late=True)
    finally:
        await runtime.close()
        await server.close()
        PodGroups("").remove(parent)


@contextlib.asynccontextmanager
async def over_containerd(daemon: containerd.Containerd, tmp_path: Path) -> AsyncIterator[Kit]:
    client = Client(Channel(str(daemon.socket)))
    runtime, parent = CriRuntime(client), f"wherry-cri-{os.getpid()}"
    async with asyncio.timeout(20):
        while await runtime.condition("NetworkReady"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await runtime.start()
    try:
        image = await CriImages(client).status(containerd.BUSYBOX)
        assert image is not None
        yield Kit(runtime, image.id, tmp_path / "logs", parent, False, (128, "StartError"), True)
    finally:
        for sandbox in await runtime.sandboxes():
            await runtime.remove_sandbox(sandbox.id)
        await runtime.close()
        PodGroups("").remove(parent)


def busybox_layer(directory: Path) -> str:
    if not os.path.exists("/bin/busybox") or os.geteuid() != 0:
        pytest.skip("needs root and /bin/busybox (Debian's busybox-static)")
    (directory / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for name in ("sh", "true", "false", "sleep", "echo", "cat"):
        (directory / "bin" / name).symlink_to("busybox")
    return str(directory)


def container(kit: Kit, *command: str, name: str = "main", attempt: int = 0, **rest: Any) -> ContainerConfig:
    return ContainerConfig(name, attempt, kit.image, command=command, log_path=f"{name}/{attempt}.log", **rest)


async def until(runtime: Runtime, container_id: str, test: Callable[[ContainerStatus], bool]) -> ContainerStatus:
    async with asyncio.timeout(10):
        while True:
            status = await runtime.container_status(container_id)
            if test(status):
                return status
            await asyncio.sleep(0.005)


def exited(status: ContainerStatus) -> bool:
    return status.state is ContainerState.EXITED


async def run(kit: Kit, *command: str, **rest: Any) -> tuple[str, str]:
    sandbox = await kit.runtime.run_sandbox(kit.sandbox())
    container_id = await kit.runtime.create_container(sandbox.id, container(kit, *command, **rest))
    await kit.runtime.start_container(container_id)
    return sandbox.id, container_id


async def test_sandbox_life(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    sandbox = await runtime.run_sandbox(runtime_kit.sandbox("a", labels={"app": "a"}))
    assert sandbox.state is SandboxState.READY and sandbox.identity.uid == "a" and sandbox.netns_path
    assert [s.id for s in await runtime.sandboxes()] == [sandbox.id]
    await runtime.stop_sandbox(sandbox.id)
    await runtime.stop_sandbox(sandbox.id)
    assert [(s.state, s.labels) for s in await runtime.sandboxes()] == [(SandboxState.NOTREADY, {"app": "a"})]
    await runtime.remove_sandbox(sandbox.id)
    await runtime.remove_sandbox(sandbox.id)
    assert list(await runtime.sandboxes()) == []


async def test_same_attempt_twice_is_refused_next_attempt_is_not(runtime_kit: Kit) -> None:
    first = await runtime_kit.runtime.run_sandbox(runtime_kit.sandbox("a"))
    with pytest.raises(RuntimeFailure, match="exists"):
        await runtime_kit.runtime.run_sandbox(runtime_kit.sandbox("a"))
    second = await runtime_kit.runtime.run_sandbox(runtime_kit.sandbox("a", attempt=1))
    assert first.id != second.id


async def test_container_created_started_exited(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    sandbox = await runtime.run_sandbox(runtime_kit.sandbox())
    container_id = await runtime.create_container(sandbox.id, container(runtime_kit, "/bin/sh", "-c", "exit 3"))
    assert len(container_id) == 64 and int(container_id, 16) >= 0
    status = await runtime.container_status(container_id)
    assert status.state is ContainerState.CREATED and status.started_at == 0 and status.log_path.endswith("main/0.log")
    await runtime.start_container(container_id)
    status = await until(runtime, container_id, exited)
    assert (status.exit_code, status.signal, status.reason) == (3, 0, "Error")
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    with pytest.raises(RuntimeFailure):
        await runtime.start_container(container_id)


async def test_success_is_completed(runtime_kit: Kit) -> None:
    _, container_id = await run(runtime_kit, "/bin/true")
    status = await until(runtime_kit.runtime, container_id, exited)
    assert (status.exit_code, status.reason, status.oom_killed) == (0, "Completed", False)


async def test_missing_program_fails_the_start_and_says_so(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    sandbox = await runtime.run_sandbox(runtime_kit.sandbox())
    container_id = await runtime.create_container(sandbox.id, container(runtime_kit, "/bin/missing"))
    with pytest.raises(RuntimeFailure, match=r'exec: "/bin/missing": stat /bin/missing: no such file or directory'):
        await runtime.start_container(container_id)
    status = await runtime.container_status(container_id)
    assert status.state is ContainerState.EXITED and (status.exit_code, status.reason) == runtime_kit.failed_start
    assert "no such file" in status.message


async def test_stop_is_idempotent(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    _, container_id = await run(runtime_kit, "/bin/sleep", "1000")
    assert (await runtime.container_status(container_id)).state is ContainerState.RUNNING
    await runtime.stop_container(container_id, 0)
    status = await runtime.container_status(container_id)
    assert status.state is ContainerState.EXITED and status.exit_code == 137
    assert status.signal == (9 if runtime_kit.signals else 0)
    await runtime.stop_container(container_id, 10)
    await runtime.stop_container("0" * 64, 10)


async def test_remove_kills_and_forgets(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    sandbox_id, container_id = await run(runtime_kit, "/bin/sleep", "1000")
    assert [c.id for c in await runtime.containers(sandbox_id)] == [container_id]
    assert list(await runtime.containers("0" * 64)) == []
    await runtime.remove_container(container_id)
    await runtime.remove_container(container_id)
    assert list(await runtime.containers()) == []
    with pytest.raises(NotFound):
        await runtime.container_status(container_id)


async def test_sandbox_takes_its_containers_along(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    sandbox_id, container_id = await run(runtime_kit, "/bin/sleep", "1000")
    await runtime.stop_sandbox(sandbox_id)
    assert (await runtime.container_status(container_id)).exit_code == 137
    with pytest.raises(NotFound):
        await runtime.create_container(sandbox_id, container(runtime_kit, "/bin/true", attempt=1))
    await runtime.remove_sandbox(sandbox_id)
    assert list(await runtime.containers()) == []


async def test_unknown_sandbox_and_image(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    with pytest.raises(NotFound):
        await runtime.create_container("0" * 64, container(runtime_kit, "/bin/true"))
    sandbox = await runtime.run_sandbox(runtime_kit.sandbox())
    with pytest.raises(NotFound, match="image"):
        await runtime.create_container(sandbox.id, ContainerConfig("main", 0, "sha256:" + "0" * 64))


async def test_exec_output_code_and_stdin(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    _, container_id = await run(runtime_kit, "/bin/sleep", "1000")
    session = await runtime.exec(container_id, ["/bin/echo", "hello"], tty=False, stdin=False)
    assert await read_all(session) == (b"hello\n", b"") and await session.wait() == 0
    await session.close()
    session = await runtime.exec(container_id, ["/bin/cat"], tty=False, stdin=True)
    await session.write(b"ab")
    await session.write(b"cd")
    await session.close_stdin()
    assert await read_all(session) == (b"abcd", b"") and await session.wait() == 0
    await session.close()
    session = await runtime.exec(container_id, ["/bin/sh", "-c", "exit 7"], tty=False, stdin=False)
    assert await session.wait() == 7
    await session.close()
    with pytest.raises(RuntimeFailure, match="no such file"):
        session = await runtime.exec(container_id, ["/bin/missing"], tty=False, stdin=False)
        try:
            assert runtime_kit.exec_fails_late
            await session.wait()
        finally:
            await session.close()


async def test_exec_needs_a_running_container(runtime_kit: Kit) -> None:
    _, container_id = await run(runtime_kit, "/bin/true")
    await until(runtime_kit.runtime, container_id, exited)
    with pytest.raises(RuntimeFailure, match="not running"):
        await runtime_kit.runtime.exec(container_id, ["/bin/true"], tty=False, stdin=False)


async def test_stats_of_what_runs(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    sandbox_id, container_id = await run(runtime_kit, "sleep", "1000")
    found = {s.container_id: s for s in await runtime.stats()}
    assert found.keys() == {"", container_id} and {s.sandbox_id for s in found.values()} == {sandbox_id}
    assert found[""].usage.working_set_bytes >= found[container_id].usage.working_set_bytes
    assert (await runtime.disk_usage(container_id)).bytes >= 0
    await runtime.stop_container(container_id, 0)
    assert container_id not in {s.container_id for s in await runtime.stats()}
    await runtime.remove_sandbox(sandbox_id)
    assert await runtime.stats() == []
    with pytest.raises(NotFound):
        await runtime.disk_usage(container_id)


async def test_closing_a_session_ends_its_process(runtime_kit: Kit) -> None:
    _, container_id = await run(runtime_kit, "/bin/sleep", "1000")
    session = await runtime_kit.runtime.exec(container_id, ["/bin/sleep", "1000"], tty=False, stdin=True)
    await session.close()
    async with asyncio.timeout(10):
        assert await session.wait() == 137


async def test_events_tell_of_starts_and_ends(runtime_kit: Kit) -> None:
    runtime: Runtime = runtime_kit.runtime
    seen: list[ContainerEvent] = []
    stream = runtime.events()
    listener = asyncio.ensure_future(_collect(stream, seen))
    await asyncio.sleep(0)
    sandbox_id, container_id = await run(runtime_kit, "/bin/true")
    await until(runtime, container_id, exited)
    await runtime.remove_sandbox(sandbox_id)
    async with asyncio.timeout(10):
        await listener
    types = [e.type for e in seen if e.container_id == container_id]
    assert types == ["CREATED", "STARTED", "STOPPED", "DELETED"]
    assert {e.pod_uid for e in seen} == {"pod"}


async def _collect(stream: AsyncIterator[ContainerEvent], into: list[ContainerEvent]) -> None:
    """Until a sandbox is deleted."""
    async for event in stream:
        into.append(event)
        if event.type == "DELETED" and not event.container_id:
            return


async def read_all(session: Any) -> tuple[bytes, bytes]:
    chunks: dict[int, bytes] = {1: b"", 2: b""}
    async with asyncio.timeout(10):
        while (chunk := await session.read()) is not None:
            chunks[chunk[0]] += chunk[1]
    return chunks[1], chunks[2]
