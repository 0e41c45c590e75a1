"""The agent may be killed between any two steps: the next one finishes the work, and nothing is left over."""

from __future__ import annotations

from typing import Any

import pytest

SIDE = [
    {"name": "one", "image": "busybox:1", "command": ["true"]},
    {"name": "side", "image": "busybox:1", "restartPolicy": "Always"},
]


class Killed(BaseException):
    """Raised by the runtime in place of an answer: the agent is no more."""


def kill_at(world, call: int) -> list[str]:
    """Let the runtime's `call`-th changing call from now on be the last that this agent makes."""
    begun: list[str] = []
    original = type(world.runtime)._begin

    def begin(method: str, subject: str) -> None:
        if method not in ("exec", "start"):
            begun.append(method)
            if len(begun) > call:
                raise Killed
        original(world.runtime, method, subject)

    world.runtime._begin = begin
    return begun


async def restart(world) -> None:
    await world.kill()
    del world.runtime._begin
    await world.start()


@pytest.mark.parametrize("call", range(9))
async def test_killed_while_starting(world, call: int) -> None:
    begun = kill_at(world, call)
    world.pod(initContainers=SIDE)
    await world.until(lambda: len(begun) > call or world.container().get("ready"))
    await restart(world)
    await world.until(lambda: world.container().get("ready"))
    assert len(world.runtime.pods) == 1 and len(world.runtime.network.attached) == 1
    running = [c.config.name for c in world.runtime.made.values() if c.status.state == "CONTAINER_RUNNING"]
    assert sorted(running) == ["app", "side"]
    assert all(world.container(n)["restartCount"] == 0 for n in ("one", "side", "app"))


@pytest.mark.parametrize("call", range(6))
async def test_killed_while_stopping(world, call: int) -> None:
    world.pod(initContainers=SIDE)
    await world.until(lambda: world.container().get("ready"))
    begun = kill_at(world, call)
    await world.delete(grace=2)
    await world.until(lambda: len(begun) > call or world.api.get("pods", "web", "default") is None)
    await restart(world)
    await world.until(lambda: world.api.get("pods", "web", "default") is None)
    await world.until(lambda: world.manager.count == 0)
    left: dict[str, Any] = {
        "pods": world.runtime.pods,
        "made": world.runtime.made,
        "net": world.runtime.network.attached,
    }
    assert left == {"pods": {}, "made": {}, "net": {}}
    await world.until(lambda: not [*(world.root / "node").glob("*/*"), *(world.root / "logs").glob("*")])
