"""The runtime alone (`python -m nodeagent.cri`), used by a stranger: Google's gRPC, as crictl and kubelets have it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from nodeagent.cri import streams
from nodeagent.cri.podgroups import PodGroups
from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.runtime import launch
from tests.integration.cri import wire
from tests.integration.cri.conftest import Foreigner
from tests.linux import containerd

pytestmark = pytest.mark.root
GROUP = f"wherry-cri-alone-{os.getpid()}"


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    if os.geteuid() != 0 or not os.path.exists("/bin/busybox"):
        pytest.skip("needs root and /bin/busybox (Debian's busybox-static)")
    paths = (str(tmp_path / "root"), str(tmp_path / "state"), str(tmp_path / "zygote.sock"))
    process = subprocess.Popen(launch.command(*paths), stderr=subprocess.DEVNULL)
    yield paths
    process.kill()
    process.wait()
    for entry in filter(str.isdigit, os.listdir("/proc")):  # shims of a test that failed half-way
        with contextlib.suppress(OSError):
            if os.fsencode(paths[0]) in Path(f"/proc/{entry}/cmdline").read_bytes():
                os.kill(int(entry), signal.SIGKILL)
    PodGroups("").remove(GROUP)
    Cgroups(detect("/")).remove_shared()


class Alone:
    """The daemon as a process, and a foreigner's view of it."""

    def __init__(self, paths: tuple[str, str, str], directory: Path) -> None:
        self.socket, self._log = directory / "cri.sock", directory / "log"
        preload = directory / "preload"
        preload.mkdir()
        containerd.write_image(preload / "busybox.tar", containerd.BUSYBOX, ["sh"])
        root, state, zygote = paths
        self._command = [
            sys.executable, "-m", "nodeagent.cri", "--cri-socket", str(self.socket), "--root-dir", root,
            "--state-dir", state, "--runtime-socket", zygote, "--image-preload-dir", str(preload),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = directory

    @contextlib.asynccontextmanager
    async def running(self, *, end: signal.Signals = signal.SIGTERM) -> AsyncIterator[Foreigner]:
        with open(self._log, "ab") as log:  # noqa: ASYNC230
            process = subprocess.Popen(self._command, stdout=log, stderr=log)  # noqa: ASYNC220
        try:
            async with grpc.aio.insecure_channel(f"unix:{self.socket}") as channel:
                found: Any = Foreigner(channel, None, None, self.socket, self._directory, wire.messages())  # type: ignore[arg-type]
                async with asyncio.timeout(20):
                    while True:
                        try:
                            await found.call("Version", timeout=1)
                            break
                        except grpc.aio.AioRpcError:
                            assert process.poll() is None, self._log.read_text()[-2000:]
                            await asyncio.sleep(0.05)
                yield found
        finally:
            process.send_signal(end)
            process.wait(10)


def config(name: str) -> dict[str, Any]:
    options = {"security_context": {"namespace_options": {"network": "NODE"}}}
    return {"linux": {"cgroup_parent": f"/{GROUP}/{name}", **options}, "labels": {"app": name}}


async def test_a_pod_from_start_to_end_over_a_kill_of_the_runtime(zygote: tuple[str, str, str], tmp_path: Path) -> None:
    alone = Alone(zygote, tmp_path)
    async with alone.running(end=signal.SIGKILL) as crictl:
        sandbox_id = await crictl.sandbox("web", **config("web"))
        container_id = await crictl.container(
            sandbox_id, "sh", args=["-c", "echo $GREETING; exec sleep 1000"], annotations={"mine": "yes"},
            envs=[{"key": "GREETING", "value": b"hello"}],
        )  # fmt: skip
        log = tmp_path / "logs" / "app" / "0.log"
        async with asyncio.timeout(10):
            while not log.exists() or b"hello" not in log.read_bytes():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        answer = await crictl.call("ExecSync", container_id=container_id, cmd=["cat", "/etc/hostname"], timeout=5)
        assert answer.stdout.decode().strip() == os.uname().nodename and answer.exit_code == 0
        url = (await crictl.call("Exec", container_id=container_id, cmd=["cat"], stdin=True, stdout=True)).url
        session = await streams.session(url, stdin=True, tty=False, stderr=False)
        await session.write(b"over the wire")
        await session.close_stdin()
        assert await session.read() == (1, b"over the wire") and await session.wait() == 0
        await session.close()
        with pytest.raises(Exception, match="404"):
            await streams.session(url, stdin=True, tty=False)
    async with alone.running() as crictl:
        status = (await crictl.call("ContainerStatus", container_id=container_id)).status
        assert status.state == 1 and dict(status.annotations) == {"mine": "yes"} and status.image.image == "busybox"
        usage = (await crictl.call("ContainerStats", container_id=container_id)).stats
        assert usage.memory.working_set_bytes.value > 0
        await crictl.call("StopPodSandbox", pod_sandbox_id=sandbox_id)
        assert (await crictl.call("ContainerStatus", container_id=container_id)).status.state == 2
        await crictl.call("RemovePodSandbox", pod_sandbox_id=sandbox_id)
        assert not (await crictl.call("ListContainers")).containers
