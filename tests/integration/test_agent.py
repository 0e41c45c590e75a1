"""The whole agent over its own TLS server, with a fake runtime below and a fake API server above."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controlplane.client.fake import FakeAPI
from controlplane.client.transport import Answer
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.linux.cgroups.usage import Usage
from nodeagent.runtime.fake import FakeRuntime
from nodeagent.runtime.interface import DiskUsage
from pki import provision
from pki.layout import Layout

Obj = dict[str, Any]


@dataclass
class Net:
    cidr: str = ""
    retained: list[str] = field(default_factory=list)

    async def setup(self, pod_cidr: str, node_ip: str) -> None:
        self.cidr = pod_cidr

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        self.retained = list(sandbox_ids)

    def follow(self, informer: Any) -> None:
        pass

    def trouble(self) -> str:
        return ""

    async def close(self) -> None:
        pass


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is another's, without an event
            await asyncio.sleep(0.005)


class Api(FakeAPI):
    """The fake, which also judges who may use a node's agent: as in a real cluster, the API server's own identity."""

    async def request(self, method: str, target: str, body: bytes = b"", **rest: Any) -> Answer:
        if not target.endswith("/subjectaccessreviews"):
            return await super().request(method, target, body, **rest)
        review = json.loads(body)
        allowed = review["spec"]["user"] == "kube-apiserver-kubelet-client"
        return Answer(201, {}, json.dumps({**review, "status": {"allowed": allowed}}).encode())


@dataclass
class Rig:
    layout: Layout
    config: Config
    api: Api = field(default_factory=Api)
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    net: Net = field(default_factory=Net)
    agent: Agent | None = None
    task: asyncio.Task[None] | None = None

    async def start(self) -> Agent:
        ready = asyncio.Event()
        self.agent = Agent(self.config, self.api.client(), self.runtime, self.runtime.images, self.net)
        self.task = asyncio.create_task(self.agent.run(ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
        return self.agent

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

    def give_cidr(self) -> None:
        node = self.api.get("nodes", "node-1")
        assert node is not None
        self.api.put({**node, "spec": {**node.get("spec", {}), "podCIDR": "10.244.1.0/24"}})

    def pod(self, name: str = "web", **spec: Any) -> None:
        self.runtime.images.add("busybox:1")
        self.api.put(
            {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
                "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "busybox:1", **spec}]},
            }
        )  # fmt: skip

    def running(self, name: str = "web") -> bool:
        return ((self.api.get("pods", name, "default") or {}).get("status") or {}).get("phase") == "Running"

    def condition(self, kind: str = "Ready") -> Obj:
        node = self.api.get("nodes", "node-1") or {}
        return next((c for c in node.get("status", {}).get("conditions", ()) if c["type"] == kind), {})

    def session(self, who: str = "apiserver-kubelet-client") -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.layout.ca_cert))
        if who:
            context.load_cert_chain(self.layout.identity(who), self.layout.identity(who))
        assert self.agent is not None
        connector = aiohttp.TCPConnector(ssl=context)
        return aiohttp.ClientSession(f"https://127.0.0.1:{self.agent.port}", connector=connector)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    layout = Layout.under(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    ca = provision.authority(layout, now)
    provision.control_plane(layout, ca, "https://127.0.0.1:6443", ["127.0.0.1"], now)
    provision.node(layout, ca, "https://127.0.0.1:6443", "node-1", ["127.0.0.1"], now)
    config = Config(
        kubeconfig=str(layout.kubeconfig("nodeagent")), node_name="node-1", node_ip="127.0.0.1",
        root_dir=str(layout.agent_root), log_dir=str(tmp_path / "logs"), address="127.0.0.1", port=0,
        tls_cert_file=str(layout.identity("nodeagent-server")),
        tls_private_key_file=str(layout.identity("nodeagent-server")),
        client_ca_file=str(layout.ca_cert), image_preload_dir="", static_pod_path="",
    )  # fmt: skip
    rig = Rig(layout, config)
    yield rig
    await rig.stop()
    from nodeagent.pods.volumes import places

    places.unmount(str(layout.agent_root / "memory"))


async def test_the_node_registers_and_is_ready_once_it_has_a_network(rig: Rig) -> None:
    await rig.start()
    await until(lambda: rig.condition().get("status") == "False")
    assert "NetworkPluginNotReady" in rig.condition()["message"]
    await until(lambda: rig.api.get("leases", "node-1", "kube-node-lease", "coordination.k8s.io"))
    rig.give_cidr()
    await until(lambda: rig.condition().get("status") == "True")
    assert rig.net.cidr == "10.244.1.0/24"
    node = rig.api.get("nodes", "node-1")
    assert node is not None
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    assert {"type": "InternalIP", "address": "127.0.0.1"} in node["status"]["addresses"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.37.0+wherry"
    assert node["status"]["capacity"]["pods"] == "110"
    assert rig.condition("MemoryPressure")["reason"] == "KubeletHasSufficientMemory"


async def test_the_node_says_when_the_runtime_is_unwell(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.agent.RUNTIME_CHECK_S", 0.005)
    monkeypatch.setattr("nodeagent.agent.RUNTIME_PATIENCE_S", 0.01)
    await rig.start()
    await until(lambda: rig.condition())
    rig.give_cidr()
    rig.pod()
    await until(lambda: rig.condition().get("status") == "True" and rig.running())
    rig.runtime.trouble = "the runtime's zygote does not answer"
    await until(lambda: rig.condition().get("status") == "False")
    assert rig.condition()["message"] == "container runtime is down: the runtime's zygote does not answer"
    assert rig.running()
    rig.runtime.trouble = ""
    await until(lambda: rig.condition().get("status") == "True")


async def test_pods_wait_for_the_network_and_then_start_at_once(rig: Rig) -> None:
    await rig.start()
    await until(lambda: rig.condition())
    rig.pod()
    await until(lambda: rig.agent and rig.agent.manager.count == 1)
    assert not rig.runtime.pods
    rig.give_cidr()
    await until(rig.running)


async def test_the_agent_starts_and_goes_on_without_an_api_server(rig: Rig) -> None:
    rig.api.offline = True
    await rig.start()
    rig.api.offline = False
    await until(lambda: rig.condition())
    rig.give_cidr()
    rig.pod()
    await until(rig.running)
    rig.api.offline = True
    rig.runtime.finish(rig.runtime.find("app").status.id, 1)
    await until(lambda: rig.runtime.find("app").config.attempt == 1)


async def test_a_deleted_node_is_registered_again(rig: Rig) -> None:
    from controlplane.client.resources import NODES

    await rig.start()
    rig_client = rig.api.client()
    await until(lambda: rig.condition())
    await rig_client.delete(NODES, "node-1")
    await until(lambda: rig.condition())


async def test_who_may_ask_what(rig: Rig) -> None:
    await rig.start()
    async with rig.session("") as anybody:
        async with anybody.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        async with anybody.get("/pods") as answer:
            assert (answer.status, await answer.text()) == (401, "Unauthorized")
    async with rig.session() as server, server.get("/pods") as answer:
        assert answer.status == 200 and (await answer.json())["items"] == []
    async with rig.session("nodeagent") as another, another.get("/pods") as answer:
        assert answer.status == 403
    async with rig.session() as server, server.get("/nothing") as answer:
        assert answer.status == 404
    async with rig.session() as server, server.get("/metrics") as answer:
        assert "kubelet_running_pods 0" in await answer.text()


async def test_what_is_used_for_prometheus_and_autoscalers(rig: Rig) -> None:
    await rig.start()
    await until(lambda: rig.condition())
    rig.give_cidr()
    rig.runtime.usage = {"app": Usage(cpu_ns=1_500_000_000, working_set_bytes=7 << 20, memory_bytes=9 << 20, pids=3)}
    rig.runtime.disk = {"app": DiskUsage(4096, 2)}
    rig.pod()
    await until(rig.running)
    names = {"container": "app", "namespace": "default", "pod": "web"}

    async def scrape(path: str) -> dict[str, Any]:
        async with rig.session() as server, server.get(path) as answer:
            assert answer.status == 200
            return {f.name: f.samples for f in text_string_to_metric_families(await answer.text())}

    own = await scrape("/metrics")
    assert own["kubelet_running_pods"][0].value == 1
    assert own["kubelet_running_containers"][0].labels == {"container_state": "running"}
    found = await scrape("/metrics/resource")
    assert found["container_cpu_usage_seconds"][0].labels == names
    assert found["container_cpu_usage_seconds"][0].value == 1.5
    assert found["pod_memory_working_set_bytes"][0].value == 7 << 20
    assert found["node_cpu_usage_seconds"][0].value > 1 and found["node_memory_working_set_bytes"][0].value > 1 << 20
    found = await scrape("/metrics/cadvisor")
    assert names.items() <= found["container_memory_rss"][0].labels.items()
    assert found["container_fs_usage_bytes"][0].value >= 4096 and found["machine_cpu_cores"][0].value >= 1
    async with rig.session() as server, server.get("/metrics/nonsense") as answer:
        assert answer.status == 404


async def test_summary(rig: Rig) -> None:
    await rig.start()
    await until(lambda: rig.condition())
    rig.give_cidr()
    rig.runtime.usage = {"app": Usage(cpu_ns=1_500_000_000, working_set_bytes=7 << 20, memory_bytes=9 << 20, pids=3)}
    rig.pod()
    await until(rig.running)
    async with rig.session() as server, server.get("/stats/summary") as answer:
        whole = await answer.json()
    node, pod = whole["node"], whole["pods"][0]
    assert node["nodeName"] == "node-1" and node["memory"]["workingSetBytes"] < node["memory"]["usageBytes"]
    assert node["fs"]["capacityBytes"] > node["fs"]["availableBytes"] > 0 and node["rlimit"]["curproc"] > 1
    assert pod["podRef"]["name"] == "web" and pod["process_stats"] == {"process_count": 3}
    container = pod["containers"][0]
    assert container["cpu"]["usageCoreNanoSeconds"] == 1_500_000_000 and "usageNanoCores" not in container["cpu"]
    assert container["memory"]["workingSetBytes"] == 7 << 20 and "usedBytes" in container["logs"]
    async with rig.session() as server, server.get("/stats/summary?only_cpu_and_memory=true") as answer:
        assert "logs" not in (await answer.json())["pods"][0]["containers"][0]


async def test_logs(rig: Rig) -> None:
    await rig.start()
    await until(lambda: rig.condition())
    rig.give_cidr()
    rig.pod()
    await until(rig.running)
    container = rig.runtime.find("app")
    rig.runtime.say(container.status.id, b"one\ntwo\nthree\n")
    rig.runtime.say(container.status.id, b"oops\n", "stderr")
    async with rig.session() as server:

        async def get(query: str = "") -> str:
            async with server.get(f"/containerLogs/default/web/app{query}") as answer:
                assert answer.status == 200, await answer.text()
                return await answer.text()

        assert await get() == "one\ntwo\nthree\noops\n"
        assert await get("?tailLines=2") == "three\noops\n"
        assert await get("?tailLines=0") == ""
        assert await get("?limitBytes=5") == "one\nt"
        assert await get("?stream=Stderr") == "oops\n"
        assert (await get("?timestamps=true&tailLines=1")).split(" ", 1)[1] == "oops\n"
        assert await get("?sinceTime=2100-01-01T00:00:00Z") == ""
        async with server.get("/containerLogs/default/web/app?previous=true") as answer:
            assert answer.status == 400
        async with server.get("/containerLogs/default/web/other") as answer:
            assert answer.status == 404
        async with server.get("/containerLogs/default/web/app?follow=true&tailLines=1") as answer:
            assert await answer.content.readline() == b"oops\n"
            rig.runtime.say(container.status.id, b"more\n")
            assert await answer.content.readline() == b"more\n"
            rig.runtime.finish(container.status.id, 1)
            assert await answer.content.read() == b""
        await until(lambda: rig.runtime.find("app").config.attempt == 1)
        assert (await get("?previous=true")).endswith("more\n")


async def test_exec_over_websocket(rig: Rig) -> None:
    await rig.start()
    await until(lambda: rig.condition())
    rig.give_cidr()
    rig.pod()
    await until(rig.running)
    async with rig.session() as server:

        async def run(query: str, protocol: str = "v5.channel.k8s.io", stdin: bytes = b"") -> tuple[bytes, Obj]:
            path = f"/exec/default/web/app?{query}&output=1&error=1"
            output, end = b"", {}
            async with server.ws_connect(path, protocols=[protocol]) as socket:
                assert socket.protocol == protocol
                if stdin:
                    await socket.send_bytes(b"\0" + stdin)
                    await socket.send_bytes(b"\4" + json.dumps({"Width": 80, "Height": 25}).encode())
                    await socket.send_bytes(b"\xff\0")
                async for message in socket:
                    if message.data[0] == 3:
                        end = json.loads(message.data[1:])
                    elif message.data[0] == 1:
                        output += message.data[1:]
            return output, end

        assert await run("command=echo&command=hello") == (b"hello\n", {"metadata": {}, "status": "Success"})
        _, end = await run("command=sh&command=-c&command=exit+7", "v4.channel.k8s.io")
        assert end["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
        output, end = await run("command=cat&input=1", stdin=b"x" * 300_000)
        assert output == b"x" * 300_000 and end["status"] == "Success"
        _, end = await run("command=missing")
        assert end["status"] == "Failure" and "no such file" in end["message"]
        async with server.get("/exec/default/web/app?command=true&output=1") as answer:
            assert answer.status == 400
