"""When the agent says that only a restart would mend its network."""

import asyncio
import threading
from pathlib import Path

import pytest

from nodeagent.network import network as module
from nodeagent.network.network import LinuxPodNetwork, NetworkConfig


async def test_a_network_thread_that_does_not_answer_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = LinuxPodNetwork(NetworkConfig(str(tmp_path)))
    working, may_end = threading.Event(), threading.Event()

    def block(sandbox_id: str) -> None:
        working.set()
        assert may_end.wait(10)

    monkeypatch.setattr(network, "_detach", block)
    task = asyncio.create_task(network.detach("a"))
    assert await asyncio.to_thread(working.wait, 10)
    assert network.trouble() == ""  # not for long
    monkeypatch.setattr(module, "_STUCK_S", -1.0)
    assert network.trouble() == "the network thread does not answer"
    may_end.set()
    await task
    monkeypatch.setattr(module, "_STUCK_S", 180.0)
    assert network.trouble() == ""
    await network.close()
