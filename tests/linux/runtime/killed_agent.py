"""A program for test_killed_agent.py: one node whose agent is killed again and again, at a line of its code each time.

    killed_agent.py DIRECTORY LAYER CGROUP SEED TRIES

Every try is two processes. The first lives: it starts pods and ends them, and is killed (SIGKILL, by itself, from a
trace function) when it comes to some line of nodeagent/, every line being as likely. The second is the agent that comes
after it: it starts, removes what it finds, as the pods are no longer wanted, and then nothing may be left. The zygote
is the same all along.
Prints a line for every try that leaves something, and at the end how many tries there were.
"""

# ruff: noqa: ASYNC110, E402 -- what the kernel does can only be looked at; the project is found by path

import asyncio
import ctypes
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from nodeagent.linux.cgroups import Cgroups, detect
from nodeagent.network.network import LinuxPodNetwork, NetworkConfig
from nodeagent.runtime import launch
from nodeagent.runtime.fake import FakeImages
from nodeagent.runtime.interface import ContainerConfig, PodIdentity, PortMapping, SandboxConfig
from nodeagent.runtime.service import LinuxRuntime
from nodeagent.runtime.zygote import POOL

CLONE_NEWNET = 0x40000000
CIDR, ADDRESS = "10.244.9.0/24", "10.99.0.1"
SETTLE_S = 5.0
PURE = ("/program.py", "/bpf.py", "/plan.py", "/rootfs.py", "/mounts.py")  # builders of values: many lines, no effects


class Node:
    def __init__(self, base: str, layer: str, cgroup: str) -> None:
        self.base, self.cgroup = base, cgroup
        self.images = FakeImages()
        image = self.images.add("busybox")
        self.images.local["busybox"] = dataclasses.replace(image, layers=(layer,))
        self.image = image.id
        self.paths = (f"{base}/root", f"{base}/state", f"{base}/zygote.sock")
        self.zygote = subprocess.Popen(launch.command(*self.paths), stdin=subprocess.DEVNULL)

    async def agent(self) -> tuple[LinuxRuntime, LinuxPodNetwork]:
        network = LinuxPodNetwork(NetworkConfig(f"{self.base}/network"))
        runtime = LinuxRuntime(*self.paths, self.images, network, cgroup_root=self.cgroup)
        await runtime.start()
        await network.setup(CIDR, ADDRESS)
        await network.retain([s.id for s in await runtime.sandboxes()])
        return runtime, network

    async def live(self) -> None:
        """What a node does all day, in short."""
        runtime, network = await self.agent()
        await asyncio.gather(self.pod(runtime, "a", PortMapping(80, 8080)), self.pod(runtime, "b"))
        await runtime.close()
        await network.close()

    async def pod(self, runtime: LinuxRuntime, name: str, *ports: PortMapping) -> None:
        config = SandboxConfig(
            PodIdentity("default", name, f"uid-{name}"), name, f"{self.base}/logs/{name}",
            cgroup_parent=f"kubepods/burstable/poduid-{name}", port_mappings=ports,
            share_process_namespace=name == "b",
        )  # fmt: skip
        sandbox = await runtime.run_sandbox(config)
        made = []
        for number, script in enumerate(("sleep 1000", "sleep 1000 & sleep 1000", "exit 3")):
            command = ("/bin/sh", "-c", script)
            container = ContainerConfig(f"c{number}", 0, self.image, command=command, log_path=f"c{number}.log")
            made.append(await runtime.create_container(sandbox.id, container))
            await runtime.start_container(made[-1])
        session = await runtime.exec(made[0], ["/bin/true"], tty=False, stdin=False)
        await session.close()
        await runtime.stop_container(made[1], 0)
        await runtime.remove_container(made[1])
        await runtime.stop_sandbox(sandbox.id)
        await runtime.remove_sandbox(sandbox.id)

    async def clean(self) -> None:
        """The next agent, which wants none of the pods that it finds."""
        runtime, network = await self.agent()
        for sandbox in await runtime.sandboxes():
            await runtime.stop_sandbox(sandbox.id)
            await runtime.remove_sandbox(sandbox.id)
        deadline = time.monotonic() + SETTLE_S
        while (left := self.left()) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await runtime.close()
        await network.close()
        if left:
            print(" ".join(left), flush=True)

    def left(self) -> list[str]:
        """Names of what should not be there."""
        found = [f"state:{name}" for name in os.listdir(self.paths[1])]
        found += [f"layer:{name}" for name in os.listdir(f"{self.paths[0]}/containers")]
        found += [f"mount:{m.split()[4]}" for m in lines("/proc/self/mountinfo") if self.base in m and "layer" not in m]
        shims = lines(f"/proc/{self.zygote.pid}/task/{self.zygote.pid}/children")[0].split()
        if len(shims) > POOL:
            found.append(f"processes:{len(shims) - POOL}")
        if (fds := len(os.listdir(f"/proc/{self.zygote.pid}/fd"))) > 16 + POOL:
            found.append(f"descriptors of the zygote:{fds}")
        cgroups = Cgroups(detect(self.cgroup))
        found += [f"cgroup:{name}" for name in cgroups.children("kubepods/burstable")]
        found += [f"device:{name}" for _, name in socket.if_nameindex() if name.startswith("veth")]
        addresses = Path(f"{self.base}/network/addresses")
        found += [f"address:{link.name}" for link in addresses.glob("*/*") if link.is_symlink()]
        rules = subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=True).stdout
        found += [f"rule:{rule}" for rule in rules.splitlines() if "--to-destination" in rule]
        found += [f"hostport:{name}" for name in os.listdir(f"{self.base}/network/hostports")]
        return found


def lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() or [""]


Place = tuple[str, int]  # a file below nodeagent/, a line


class Fuse:
    """Counts how often each line of nodeagent/ is executed, in all threads; kills the process when `at` is, for the
    `turn`th time."""

    def __init__(self, at: Place = ("", 0), turn: int = 0) -> None:
        self._at, self._turn = at, turn
        self.counts: Counter[Place] = Counter()

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        _, found, name = frame.f_code.co_filename.rpartition("/nodeagent/")
        if not found or name.endswith(PURE):
            return None
        if event == "line":
            place = (name, frame.f_lineno)
            self.counts[place] += 1
            if place == self._at and self.counts[place] == self._turn:
                os.write(2, f"killed at {name}:{frame.f_lineno}, turn {self._turn}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def child(work: Callable[[], Coroutine[Any, Any, None]], fuse: Fuse | None = None) -> tuple[int, dict[str, int]]:
    """Run `work` in a forked process; its wait status, and what the fuse has counted by `file:line`."""
    count, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if fuse is not None:
                threading.settrace(fuse.trace)
                sys.settrace(fuse.trace)
            asyncio.run(work())
            sys.settrace(None)
            counts = {f"{name}:{line}": n for (name, line), n in fuse.counts.items()} if fuse else {}
            with os.fdopen(into, "w") as file:
                json.dump(counts, file)
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)
    os.close(into)
    with os.fdopen(count) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    return status, json.loads(said or "{}")


def main(base: str, layer: str, cgroup: str, seed: str, tries: str) -> int:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in ("link set lo up", "link add up0 type veth peer name up1", "link set up0 up", "link set up1 up"):
        subprocess.run(["ip", *command.split()], check=True)
    subprocess.run(["ip", "addr", "add", f"{ADDRESS}/24", "dev", "up0"], check=True)
    node = Node(base, layer, cgroup)
    try:
        status, counts = child(node.live, Fuse())
        if status:
            return 1
        chance = random.Random(int(seed))
        places = sorted(counts)
        for place in chance.sample(places, min(int(tries), len(places))):
            name, line = place.split(":")
            child(node.live, Fuse((name, int(line)), chance.randint(1, counts[place])))
            status, _ = child(node.clean)
            if status:
                print(f"{place}: the next agent failed, status {status}", flush=True)
        print(f"done places={len(places)}", flush=True)
    finally:
        node.zygote.kill()
        node.zygote.wait()
        for name in ("kubepods/burstable", "kubepods", "wherry-devices"):
            layout = detect(cgroup)
            for top in {*layout.v1.values(), layout.v2} - {""}:
                if os.path.isdir(f"{top}/{name}"):
                    os.rmdir(f"{top}/{name}")
        for top in {*detect(cgroup).v1.values(), detect(cgroup).v2} - {""}:
            if os.path.isdir(top):
                os.rmdir(top)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
