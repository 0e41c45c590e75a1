"""The agent is killed at any line of its code, while pods come and go; the next one leaves nothing behind."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from nodeagent.linux.cgroups import Cgroups, Limits, detect

TRIES = 40
SEED = 20261121


async def test_whatever_the_agent_was_doing_nothing_leaks(node: Any, tmp_path: Path) -> None:
    base = tmp_path / "killed"
    base.mkdir()
    program = str(Path(__file__).with_name("killed_agent.py"))
    cgroup = f"/wherry-killed-{os.getpid()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, str(base), node.layer, cgroup, str(SEED), str(TRIES),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(180):
        said, errors = await process.communicate()
    *left, last = said.decode().splitlines() or [""]
    assert left == [], errors.decode()[-3000:]
    assert last.startswith("done places="), errors.decode()[-3000:]
    kills = errors.decode().count("killed at ")
    assert kills > TRIES * 0.8  # what a line's turn is, timing decides: some tries live to the end


async def test_cgroups_whose_files_are_gone_are_swept(node: Any) -> None:
    """The agent was killed after it had removed a sandbox's files, and before its cgroup."""
    cgroups = Cgroups(detect())
    groups = [f"{group}/pod-robust-{os.getpid()}" for group in ("kubepods/burstable", "kubepods")]
    for group in groups:
        cgroups.create(f"{group}/container", Limits())
    sandbox = await node.sandbox(cgroup_parent=groups[1])
    container_id = await node.start("/bin/sleep", "1000", sandbox=sandbox)
    await node.runtime.close()
    node.runtime = node.new_runtime()
    await node.runtime.start()
    assert f"pod-robust-{os.getpid()}" not in cgroups.children("kubepods/burstable")
    assert cgroups.children(groups[1]) == {container_id}
    await node.runtime.remove_sandbox(sandbox.id)
    async with asyncio.timeout(10):
        while f"pod-robust-{os.getpid()}" in cgroups.children("kubepods"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for group in ("kubepods/burstable", "kubepods"):
        cgroups.remove(group)
