"""A node with the real runtime, an image of busybox, and a check that a test leaves nothing behind."""

# ruff: noqa: ASYNC110 -- what the kernel does can only be looked at, again and again, up to a deadline

import asyncio
import dataclasses
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.runtime import launch
from nodeagent.runtime.fake import FakeImages, FakeNetwork
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ImageConfig,
    PodIdentity,
    SandboxConfig,
    SandboxStatus,
)
from nodeagent.runtime.service import LinuxRuntime

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:102:\nlogs:x:300:web\n"
APPLETS = """
sh true false sleep echo cat ls id mount umount ps env tty hostname grep mkdir touch dd mknod chmod kill head wc seq
sort tr unshare nsenter readlink rm stty tail printf cp
"""


def make_layer(directory: Path) -> str:
    for part in ("bin", "etc", "proc", "sys", "dev", "tmp", "srv", "opt"):
        (directory / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for name in APPLETS.split():
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    (directory / "opt/noexec").write_text("not for execution\n")
    (directory / "opt/garbage").write_bytes(b"\x00\x01garbage")
    (directory / "opt/garbage").chmod(0o755)
    (directory / "tmp").chmod(0o1777)
    return str(directory)


class Node:
    """The runtime and everything under it, in one temporary directory."""

    def __init__(self, base: Path, native: bool = True) -> None:
        self.base = base
        self.images = FakeImages()
        self.layer = make_layer(base / "layer")
        self.image = self.add_image("busybox", ImageConfig())
        self.network = FakeNetwork()
        self.native = native
        self.paths = (str(base / "root"), str(base / "state"), str(base / "zygote.sock"))
        self.zygote = self.start_zygote()
        self.runtime = self.new_runtime()
        self.count = 0

    def add_image(self, name: str, config: ImageConfig, *more_layers: str) -> str:
        image = self.images.add(name)
        self.images.local[name] = dataclasses.replace(image, layers=(*more_layers, self.layer), config=config)
        return image.id

    def start_zygote(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(launch.command(*self.paths))

    def new_runtime(self) -> LinuxRuntime:
        return LinuxRuntime(*self.paths, self.images, self.network, native=self.native)

    async def sandbox(self, **config: Any) -> SandboxStatus:
        self.count += 1
        uid = f"pod-{self.count}"
        config.setdefault("hostname", uid)
        return await self.runtime.run_sandbox(
            SandboxConfig(PodIdentity("default", uid, uid), log_directory=str(self.base / "logs" / uid), **config)
        )

    async def start(self, *command: str, sandbox: SandboxStatus | None = None, **config: Any) -> str:
        """A started container's id."""
        pod = config.pop("pod", {})
        sandbox = sandbox or await self.sandbox(**pod)
        self.count += 1
        config.setdefault("image", self.image)
        config.setdefault("name", f"c{self.count}")
        container = ContainerConfig(attempt=0, command=command, log_path=f"{config['name']}.log", **config)
        container_id = await self.runtime.create_container(sandbox.id, container)
        await self.runtime.start_container(container_id)
        return container_id

    async def shell(self, script: str, **config: Any) -> str:
        """What a shell script in a container of its own prints. On one stream: between two there is no order."""
        container_id = await self.start("/bin/sh", "-c", "exec 2>&1\n" + script, **config)
        await self.ended(container_id)
        return await self.log(container_id)

    async def ended(self, container_id: str) -> ContainerStatus:
        await self.until(lambda s: s.state is ContainerState.EXITED, container_id)
        return await self.runtime.container_status(container_id)

    async def until(self, test: Callable[[ContainerStatus], bool], container_id: str) -> None:
        async with asyncio.timeout(15):
            while not test(await self.runtime.container_status(container_id)):
                await asyncio.sleep(0.005)

    async def log(self, container_id: str) -> str:
        """The log's text without times and tags."""
        path = Path((await self.runtime.container_status(container_id)).log_path)
        text = ""
        for line in path.read_text(errors="replace").splitlines():
            _, _, tag, rest = line.split(" ", 3)
            text += rest + ("\n" if tag == "F" else "")
        return text

    async def log_has(self, container_id: str, text: str) -> None:
        async with asyncio.timeout(15):
            while text not in await self.log(container_id):
                await asyncio.sleep(0.005)

    def pids(self) -> set[int]:
        """Processes of this node: those that name its directory, and what is in its cgroups."""
        found = set()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    command = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.base).encode() in command and b"pytest" not in command:
                    found.add(int(entry))
        return found - {self.zygote.pid}

    async def close(self) -> None:
        for sandbox in await self.runtime.sandboxes():
            await self.runtime.remove_sandbox(sandbox.id)
        await self.runtime.close()
        self.zygote.kill()
        self.zygote.wait()
        async with asyncio.timeout(15):
            while self.pids() or cgroups_of(self.base):
                await asyncio.sleep(0.01)
        Cgroups(detect()).remove_shared()
        assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.base) in line]
        assert os.listdir(self.base / "state") == []
        assert os.listdir(self.base / "root/containers") == []


def cgroups_of(base: Path) -> list[str]:
    """Directories of pods that the runtime has made and not removed."""
    layout = detect()
    tops = {*layout.v1.values(), layout.v2} - {""}
    return [f"{top}/{name}" for top in tops for name in os.listdir(top) if name in _names(base)]


def _names(base: Path) -> set[str]:
    file = base / "cgroups-seen"
    seen = set(file.read_text().split()) if file.exists() else set()
    seen |= {f"wherry-{name}" for name in os.listdir(base / "state")} if (base / "state").exists() else set()
    file.write_text(" ".join(seen))
    return seen


@pytest.fixture(params=[True], ids=["native"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    if os.geteuid() != 0 or not os.path.exists("/bin/busybox"):
        pytest.skip("needs root and /bin/busybox (Debian's busybox-static)")
    node = Node(tmp_path, native=request.param)
    try:
        await node.runtime.start()
        yield node
    finally:
        await node.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/linux/runtime" in str(item.path):
            item.add_marker(pytest.mark.root)
