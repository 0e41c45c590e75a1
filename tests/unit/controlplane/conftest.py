"""Fixtures for API clients: virtual time, an API server in a dict."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from controlplane import clock
from controlplane.client.fake import FakeAPI


class _JumpingSelector(selectors.SelectSelector):
    """Where the loop would sleep, its clock jumps instead."""

    loop: "_VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for ever")
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


@pytest.fixture
def virtual() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on virtual time: hours of back-off take no time, and the wall clock follows."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
            loop = runner.get_loop()
            clock.install(wall=lambda: 1_800_000_000 + loop.time(), seed=1)
            try:
                return runner.run(main)
            finally:
                import time

                clock.install(wall=time.time)

    return run


@pytest.fixture
def api() -> FakeAPI:
    return FakeAPI()


@pytest.fixture
def eventually() -> Callable[..., Coroutine[Any, Any, None]]:
    """`await eventually(lambda: condition)`: return once it holds, fail after a deadline of the loop's time."""

    async def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not condition():
            assert loop.time() < deadline, "it never came true"
            await asyncio.sleep(0.005)

    return wait
