"""Probes and hooks, against the fake runtime and a real socket."""

from __future__ import annotations

import asyncio

from nodeagent.pods import handlers
from nodeagent.runtime.fake import FakeRuntime, Outcome

EXEC = {"exec": {"command": ["check"]}, "periodSeconds": 1}


def answer(world, ok: bool) -> None:
    world.runtime.programs["check"] = lambda argv, stdin: Outcome(0 if ok else 1, b"" if ok else b"not yet")


async def test_readiness_follows_the_probe(world) -> None:
    answer(world, False)
    world.pod(containers=[{"name": "app", "image": "busybox:1", "readinessProbe": {**EXEC, "failureThreshold": 1}}])
    await world.until(lambda: world.status().get("phase") == "Running")
    assert not world.container()["ready"] and world.container()["started"]
    answer(world, True)
    await world.until(lambda: world.container()["ready"] and world.condition("Ready")["status"] == "True")
    answer(world, False)
    await world.until(lambda: not world.container()["ready"])
    assert ("web", "Unhealthy", "Readiness probe failed: not yet") in world.events
    assert world.container()["restartCount"] == 0


async def test_a_failed_liveness_probe_restarts_the_container(world) -> None:
    answer(world, False)
    probe = {**EXEC, "failureThreshold": 1, "terminationGracePeriodSeconds": 3}
    world.pod(containers=[{"name": "app", "image": "busybox:1", "livenessProbe": probe}])
    await world.until(lambda: world.container().get("restartCount") == 1)
    answer(world, True)
    assert ("web", "Killing", "Container app failed liveness probe, will be restarted") in world.events
    assert world.container()["lastState"]["terminated"]["exitCode"] == 143


async def test_a_startup_probe_holds_the_others_back(world) -> None:
    answer(world, False)
    probe = {**EXEC, "failureThreshold": 30}
    world.pod(containers=[{"name": "app", "image": "busybox:1", "startupProbe": probe}])
    await world.until(lambda: world.status().get("phase") == "Running")
    assert not world.container()["started"] and not world.container()["ready"]
    answer(world, True)
    await world.until(lambda: world.container()["started"] and world.container()["ready"])


async def test_a_failed_post_start_hook_restarts_the_container(world) -> None:
    world.runtime.programs["hook"] = lambda argv, stdin: Outcome(1, b"broken")
    hook = {"postStart": {"exec": {"command": ["hook"]}}}
    world.pod(containers=[{"name": "app", "image": "busybox:1", "lifecycle": hook}])
    await world.until(lambda: world.container().get("restartCount") == 1)
    assert ("web", "FailedPostStartHook", "PostStartHook failed: broken") in world.events


async def test_http_and_tcp() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(4096)
        asked.append(head)
        code = 200 if b"/good" in head else 302 if b"/moved" in head else 503
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code if b"/junk" not in head else b"SSH-2.0\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    container = {"name": "app", "ports": [{"name": "web", "containerPort": port}]}
    target = handlers.Target(FakeRuntime(), "", container, "127.0.0.1")

    async def get(path: str) -> handlers.Result:
        headers = [{"name": "X-Test", "value": "1"}]
        return await handlers.run({"httpGet": {"path": path, "port": "web", "httpHeaders": headers}}, target, 2)

    assert (await get("/good")).ok and (await get("/moved")).ok
    assert (await get("/bad")).output == "HTTP probe failed with statuscode: 503"
    assert "malformed" in (await get("/junk")).output
    assert b"X-Test: 1\r\n" in asked[0] and f"Host: 127.0.0.1:{port}\r\n".encode() in asked[0]
    assert (await handlers.run({"tcpSocket": {"port": port}}, target, 2)).ok
    server.close()
    await server.wait_closed()
    refused = await get("/good")
    assert refused.output.startswith(f'Get "http://127.0.0.1:{port}/good": dial tcp') and not refused.ok
    assert (await get("/good")).output.endswith("connection refused")
    assert "couldn't find port" in (await handlers.run({"tcpSocket": {"port": "none"}}, target, 2)).output


async def test_a_handler_that_hangs_is_a_failure(world) -> None:
    world.pod()
    await world.until(lambda: world.container().get("ready"))
    target = handlers.Target(world.runtime, world.find().status.id, {}, "")
    result = await handlers.run({"exec": {"command": ["for-ever"]}}, target, 0.02)
    assert not result.ok and result.output == "command timed out after 0.02s"
