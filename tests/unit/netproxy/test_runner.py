import asyncio

import pytest

from netproxy.backend import BackendError
from netproxy.healthcheck import Health, ServiceHealth, serve
from netproxy.model import ServiceName
from netproxy.runner import BoundedFrequencyRunner


class Work:
    """Counts its runs and when they were; fails as often as told."""

    def __init__(self, failures=0):
        self.at, self.failures, self.idles = [], failures, 0
        self.ran = asyncio.Event()

    async def __call__(self):
        self.at.append(asyncio.get_running_loop().time())
        if self.failures:
            self.failures -= 1
            raise BackendError("refused")
        self.ran.set()

    async def idle(self):
        self.idles += 1

    async def next_run(self):
        async with asyncio.timeout(5):
            await self.ran.wait()
        self.ran.clear()


@pytest.fixture
async def running():
    tasks = []

    def start(work, **bounds):
        bounds = {"min_interval_s": 0.0, "idle_interval_s": 60.0, "first_retry_s": 0.01, **bounds}
        runner = BoundedFrequencyRunner(work, work.idle, **bounds)
        tasks.append(asyncio.ensure_future(runner.run()))
        return runner

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_burst_is_one_run_and_the_first_is_at_once(running):
    work = Work()
    runner = running(work)
    for _ in range(100):
        runner.request()
    await work.next_run()
    assert len(work.at) == 1


async def test_runs_keep_their_distance(running):
    work = Work()
    runner = running(work, min_interval_s=0.05)
    for _ in range(3):
        runner.request()
        await work.next_run()
    assert min(b - a for a, b in zip(work.at, work.at[1:], strict=False)) >= 0.045


async def test_a_request_during_a_run_runs_again(running):
    work = Work()
    runner = running(work)
    original = work.__class__.__call__

    async def once(self):
        await original(self)
        if len(self.at) == 1:
            runner.request()

    runner._work = lambda: once(work)
    runner.request()
    async with asyncio.timeout(5):
        while len(work.at) < 2:
            await work.next_run()


async def test_failures_are_tried_again_without_a_request(running, caplog):
    work = Work(failures=3)
    running(work).request()
    await work.next_run()
    assert len(work.at) == 4
    assert caplog.text.count("refused") == 3


async def test_silence_is_used_to_look_after_the_rules(running):
    work = Work()
    running(work, idle_interval_s=0.01)
    async with asyncio.timeout(5):
        while work.idles < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert work.at == []


async def get(port, path="/"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def test_healthz_tells_whether_rules_keep_up():
    health = Health(limit_s=0.02)
    port = free_port()
    server = await serve("127.0.0.1", port, health.answer)
    assert (await get(port, "/healthz"))[0] == 503  # nothing written yet
    health.updated()
    assert (await get(port, "/healthz?x"))[0] == 200
    health.node_eligible = False
    assert (await get(port, "/healthz"))[0] == 503
    assert (await get(port, "/livez"))[0] == 200
    health.queued()
    async with asyncio.timeout(5):
        while (await get(port, "/livez"))[0] == 200:
            pass
    assert (await get(port, "/nothing"))[0] == 404
    server.close()


async def test_health_check_ports_count_local_endpoints():
    health = Health(limit_s=60)
    health.updated()
    ports = ServiceHealth(health, "127.0.0.1")
    name, port = ServiceName("default", "web"), free_port()
    await ports.sync({name: (port, 2)})
    code, answer = await get(port)
    assert code == 200 and "X-Load-Balancing-Endpoint-Weight: 2" in answer
    await ports.sync({name: (port, 0)})
    assert (await get(port))[0] == 503
    await ports.close()
    with pytest.raises(OSError):
        await get(port)
