"""What containers use, as the runtime tells it, against what they do."""

from typing import Any

import pytest

pytestmark = pytest.mark.root

MIB = 1 << 20


async def stats(node: Any, container_id: str) -> Any:
    return next(s.usage for s in await node.runtime.stats() if s.container_id == container_id)


async def test_memory_cpu_and_processes_are_what_the_container_uses(node: Any) -> None:
    sandbox = await node.sandbox()
    script = """x=$(head -c 20000000 /dev/zero | tr "\\0" x); i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done
        sleep 1000 & sleep 1000 & echo on; wait"""
    busy = await node.start("/bin/sh", "-c", script, sandbox=sandbox)
    idle = await node.start("/bin/sleep", "1000", sandbox=sandbox)
    await node.log_has(busy, "on")
    used, other = await stats(node, busy), await stats(node, idle)
    assert 20 * 10**6 < used.rss_bytes < 60 * MIB and used.working_set_bytes <= used.memory_bytes
    assert other.rss_bytes < 5 * MIB and other.pids == 1
    assert used.cpu_ns > 20e6 > other.cpu_ns
    whole = next(s.usage for s in await node.runtime.stats() if s.sandbox_id == sandbox.id and not s.container_id)
    assert whole.rss_bytes >= used.rss_bytes and whole.pids >= 4


async def test_disk_usage_counts_the_containers_own_layer(node: Any) -> None:
    script = "mkdir /new; head -c 3000000 /dev/urandom > /new/a; ln /new/a /new/b; sync; echo on; sleep 1000"
    container = await node.start("/bin/sh", "-c", script)
    await node.log_has(container, "on")
    usage = await node.runtime.disk_usage(container)
    assert 3_000_000 <= usage.bytes < 3_200_000
    assert 3 <= usage.inodes <= 8
