"""CPUs of one's own, on the real kernel: a container runs where it may, and moves when the set changes."""

import os
from typing import Any

import pytest

from nodeagent.runtime.interface import LinuxResources

Node = Any
CPUS = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
async def test_container_is_where_its_cpuset_says(node: Node) -> None:
    sandbox = await node.sandbox(cgroup_parent=f"kubepods/pod-cpusets-{os.getpid()}")
    script = "while true; do grep Cpus_allowed_list /proc/self/status; sleep 0.05; done"
    alone = LinuxResources(cpuset_cpus=str(CPUS[1]))
    container_id = await node.start("/bin/sh", "-c", script, sandbox=sandbox, resources=alone)
    await node.log_has(container_id, f"Cpus_allowed_list:\t{CPUS[1]}\n")
    session = await node.runtime.exec(
        container_id, ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"], tty=False, stdin=False
    )
    assert await session.read() == (1, f"Cpus_allowed_list:\t{CPUS[1]}\n".encode())
    await session.close()
    await node.runtime.update_resources(container_id, LinuxResources(cpuset_cpus=str(CPUS[0])))
    await node.log_has(container_id, f"Cpus_allowed_list:\t{CPUS[0]}\n")
    free = await node.shell("grep Cpus_allowed_list /proc/self/status", sandbox=sandbox)
    assert free != f"Cpus_allowed_list:\t{CPUS[1]}\n"
