"""Start and finish of /bin/true: ours against crun and runc, interleaved, one at a time and 30 at once.

Both sides make everything new each time: all namespaces, cgroups, an overlay root with `volatile`, the default
capabilities and seccomp filter, and remove it all. Ours is a pod (sandbox, container, events, state on disk) driven
through the same interface that the agent uses; crun and runc get a bundle and `run`. `pod` counts the sandbox, too,
`container` only create, start, exit and remove in a sandbox that is there.

    python tests/benchmarks/bench_containers.py [--rounds N] [--dir DIR] [--json FILE]

Files are on a tmpfs unless --dir says otherwise: ext4 looks at every inode deleted within the last minute before it
makes a directory, and a benchmark that deletes thousands would measure nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from figures import Figure, skipped

from nodeagent.linux import capabilities
from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.linux.mounts import MS_BIND, MS_PRIVATE, MS_REC
from nodeagent.linux.seccomp import default, numbers
from nodeagent.linux.syscalls import call
from nodeagent.runtime import launch
from nodeagent.runtime.fake import FakeImages, FakeNetwork
from nodeagent.runtime.interface import ContainerConfig, ContainerEvent, PodIdentity, SandboxConfig
from nodeagent.runtime.rootfs import MASKED_PATHS, READONLY_PATHS
from nodeagent.runtime.service import LinuxRuntime

AT_ONCE = 30


class Ours:
    """The runtime with an image of busybox, and a listener that turns STOPPED events into futures."""

    def __init__(self, base: Path, layer: str) -> None:
        images = FakeImages()
        image = images.add("busybox")
        images.local["busybox"] = dataclasses.replace(image, layers=(layer,))
        self.image = image.id
        self.logs = str(base / "logs")
        paths = (str(base / "root"), str(base / "state"), str(base / "zygote.sock"))
        self.zygote = subprocess.Popen(launch.command(*paths), stderr=subprocess.DEVNULL)
        self.runtime = LinuxRuntime(*paths, images, FakeNetwork())
        self._stopped: dict[str, asyncio.Future[None]] = {}
        self._count = 0

    async def listen(self) -> None:
        async for event in self.runtime.events():
            self._done(event)

    def _done(self, event: ContainerEvent) -> None:
        if event.type == "STOPPED" and event.container_id in self._stopped:
            self._stopped.pop(event.container_id).set_result(None)

    def sandbox(self) -> SandboxConfig:
        self._count += 1
        uid = f"bench-{self._count}"
        return SandboxConfig(PodIdentity("bench", uid, uid), uid, f"{self.logs}/{uid}")

    async def container(self, sandbox_id: str) -> None:
        self._count += 1
        config = ContainerConfig("main", self._count, self.image, command=("/bin/true",), log_path="main/0.log")
        container_id = await self.runtime.create_container(sandbox_id, config)
        stopped = self._stopped[container_id] = asyncio.get_running_loop().create_future()
        await self.runtime.start_container(container_id)
        await stopped
        await self.runtime.remove_container(container_id)

    async def pod(self) -> None:
        sandbox = await self.runtime.run_sandbox(self.sandbox())
        await self.container(sandbox.id)
        await self.runtime.remove_sandbox(sandbox.id)


class Oci:
    """crun or runc with a bundle a container; its overlay is mounted and unmounted as an engine would do it."""

    def __init__(self, program: str, base: Path, layer: str) -> None:
        """`program`: crun or runc."""
        self._base = base / program
        self._command = ["crun", "--cgroup-manager=cgroupfs"] if program == "crun" else [program]
        self._program = program
        self._layer = layer
        self._count = 0

    def bundle(self) -> tuple[str, str]:
        self._count += 1
        name = f"wherry-bench-{self._program}-{os.getpid()}-{self._count}"
        directory = self._base / name
        for part in ("upper", "work", "rootfs"):
            (directory / part).mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(self._spec(name)))
        return name, str(directory)

    async def run(self) -> None:
        name, directory = self.bundle()
        overlay = f"lowerdir={self._layer},upperdir={directory}/upper,workdir={directory}/work,volatile"
        root = f"{directory}/rootfs".encode() + b"\0"
        call("mount", b"overlay\0", root, b"overlay\0", 0, overlay.encode() + b"\0", path=overlay)
        process = await asyncio.create_subprocess_exec(
            *self._command, "run", "--bundle", directory, name,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{self._program}: {errors.decode()}")
        call("umount2", root, 0, path=directory)
        shutil.rmtree(directory)

    def _spec(self, name: str) -> dict[str, Any]:
        caps = [f"CAP_{c}" for c in capabilities.DEFAULT]
        rules = default.rules(numbers.X86_64, capabilities.mask(capabilities.DEFAULT))
        names = [n for n, number in numbers.X86_64.items() if number in rules]
        mounts = [
            ("/proc", "proc", "proc", []),
            ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
            ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
            ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "ro"]),
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/",
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
            },
            "root": {"path": "rootfs"}, "hostname": name,
            "mounts": [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in mounts],
            "linux": {
                "cgroupsPath": f"/{name}",
                "resources": {"pids": {"limit": 1000}},
                "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
                "maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS),
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
                },
            },
        }  # fmt: skip


def please_crun() -> None:
    """crun refuses a machine whose cgroup2 has a controller beside v1: in a mount namespace of our own it has none."""
    file = "/sys/fs/cgroup/unified/cgroup.controllers"
    if os.path.exists(file) and Path(file).read_text().strip():
        call("unshare", 0x20000)
        call("mount", b"none\0", b"/\0", 0, MS_REC | MS_PRIVATE, 0)
        call("mount", b"/dev/null\0", file.encode() + b"\0", 0, MS_BIND, 0)


def machine_cpu_ms() -> float:
    """CPU time that the whole machine has spent so far, in ms: includes what kernel threads do for us."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _, _, irq, softirq, *_ = (int(x) for x in stat.readline().split()[1:])
    return (user + nice + system + irq + softirq) * 1000 / os.sysconf("SC_CLK_TCK")


async def one(action: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await action()
    return (time.perf_counter() - start) * 1000


async def burst(action: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """(wall, CPU) in ms for each of AT_ONCE concurrent actions."""
    start, cpu = time.perf_counter(), machine_cpu_ms()
    await asyncio.gather(*(action() for _ in range(AT_ONCE)))
    return (time.perf_counter() - start) * 1000 / AT_ONCE, (machine_cpu_ms() - cpu) / AT_ONCE


def private_kb(pid: int) -> tuple[int, int]:
    """(private dirty, resident) of a process in kB."""
    fields = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.endswith("kB\n"):
                name, value, _ = line.split()
                fields[name] = int(value)
    return fields["Private_Dirty:"], fields["Rss:"]


async def measure(rounds: int, directory: str) -> dict[str, float]:
    base = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir=directory))
    layer = base / "layer"
    for part in ("bin", "proc", "dev", "sys"):
        (layer / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", layer / "bin/busybox")
    (layer / "bin/true").symlink_to("busybox")
    ours = Ours(base, str(layer))
    peers = {name: Oci(name, base, str(layer)) for name in ("crun", "runc") if shutil.which(name)}
    listener = None
    try:
        await ours.runtime.start()
        listener = asyncio.ensure_future(ours.listen())
        standing = await ours.runtime.run_sandbox(ours.sandbox())

        async def container() -> None:
            await ours.container(standing.id)

        for _ in range(3):
            for action in (ours.pod, container, *(peer.run for peer in peers.values())):
                await one(action)
        single: dict[str, list[float]] = {"pod": [], "container": [], **{name: [] for name in peers}}
        bursts: dict[str, list[tuple[float, float]]] = {"pod": [], **{name: [] for name in peers}}
        for _ in range(rounds):
            single["pod"].append(await one(ours.pod))
            for name, peer in peers.items():
                single[name].append(await one(peer.run))
            single["container"].append(await one(container))
        for _ in range(max(3, rounds // 10)):
            bursts["pod"].append(await burst(ours.pod))
            for name, peer in peers.items():
                bursts[name].append(await burst(peer.run))
        shim_dirty, _ = private_kb(ours.runtime._pods.all[standing.id].pid)
        _, zygote_rss = private_kb(ours.zygote.pid)
        result = {f"{name}_ms": statistics.median(values) for name, values in single.items()}
        for name, values in bursts.items():
            result[f"{name}_burst_ms"] = statistics.median(v[0] for v in values)
            result[f"{name}_burst_cpu_ms"] = statistics.median(v[1] for v in values)
        for name in peers:
            result[f"pod_to_{name}"] = result["pod_ms"] / result[f"{name}_ms"]
            result[f"container_to_{name}"] = result["container_ms"] / result[f"{name}_ms"]
            result[f"burst_to_{name}"] = result["pod_burst_ms"] / result[f"{name}_burst_ms"]
            result[f"burst_cpu_to_{name}"] = result["pod_burst_cpu_ms"] / result[f"{name}_burst_cpu_ms"]
        result["shim_private_dirty_kb"] = shim_dirty
        result["zygote_rss_kb"] = zygote_rss
        result["agent_peak_rss_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return result
    finally:
        for sandbox in await ours.runtime.sandboxes():
            await ours.runtime.remove_sandbox(sandbox.id)
        await asyncio.sleep(0.2)
        if listener:
            listener.cancel()
        await ours.runtime.close()
        ours.zygote.kill()
        ours.zygote.wait()
        Cgroups(detect()).remove_shared()
        shutil.rmtree(base, ignore_errors=True)


def missing() -> str:
    """What keeps this bench from running, or ""."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if shutil.which("crun") and os.path.exists("/bin/busybox") else "needs crun and /bin/busybox"


def figures() -> Iterator[Figure]:
    if why := missing():
        yield skipped("container start and finish against crun", why)
        return
    please_crun()
    r = asyncio.run(measure(30, "/dev/shm"))
    for name, what in (("pod_ms", "pod (sandbox and container)"), ("container_ms", "container in its pod")):
        aim = 0.4 * r["crun_ms"]
        yield Figure(f"{what}: start, finish", r[name], "ms", aim, r["crun_ms"], "crun, interleaved", "median of 30")
    if "runc_ms" in r:
        note = "median of 30; no aim of its own: crun is the faster one"
        yield Figure("pod, beside runc", r["pod_ms"], "ms", None, r["runc_ms"], "runc, interleaved", note)
        cpu, peer = r["pod_burst_cpu_ms"], r["runc_burst_cpu_ms"]
        yield Figure("pod of a burst, CPU, beside runc", cpu, "ms", None, peer, "runc, interleaved", "whole machine")
    note = f"{AT_ONCE} at once, each"
    yield Figure("pod of a burst", r["pod_burst_ms"], "ms", None, r["crun_burst_ms"], "crun, interleaved", note)
    cpu, peer = r["pod_burst_cpu_ms"], r["crun_burst_cpu_ms"]
    yield Figure("pod of a burst, CPU", cpu, "ms", None, peer, "crun, interleaved", "whole machine")
    yield Figure("shim, private dirty memory", r["shim_private_dirty_kb"] / 1024, "MB", None, 0.33, "conmon, constant")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dir", default="/dev/shm", help="where containers' files are, for both sides")
    parser.add_argument("--json")
    options = parser.parse_args()
    if why := missing():
        print(f"skipped: {why}", file=sys.stderr)
        return 0
    please_crun()
    result = asyncio.run(measure(options.rounds, options.dir))
    for name, value in result.items():
        print(f"{name:24} {value:10.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
