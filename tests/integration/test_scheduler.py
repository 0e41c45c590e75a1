"""The scheduler against the real API server: with a scheduler's rights only, and through the server's sudden death."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.status import StatusError
from controlplane.client import Client, LeaderElector, Unreachable, from_kubeconfig
from controlplane.client.resources import EVENTS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS
from controlplane.scheduler.loop import Scheduler
from pki import provision
from pki.layout import Layout

NS = "test"


class Cluster:
    """An API server as a process of its own, over SQLite, and clients of it."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.layout, now = Layout.under(directory), datetime.now(UTC)
        self.directory = directory
        ca = provision.authority(self.layout, now)
        provision.control_plane(self.layout, ca, f"https://127.0.0.1:{self.port}", ("127.0.0.1",), now)
        self.process: subprocess.Popen[bytes] | None = None
        self.admin = self.client("admin")

    def client(self, name: str) -> Client:
        return from_kubeconfig(str(self.layout.kubeconfig(name)))

    async def start(self) -> None:
        layout = self.layout
        flags = {
            "advertise-address": "127.0.0.1",
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            "store": f"sqlite://{self.directory}/wherry.db",
            "tls-cert-file": layout.identity("apiserver"),
            "tls-private-key-file": layout.identity("apiserver"),
            "client-ca-file": layout.ca_cert,
            "service-account-signing-key-file": layout.service_account_key,
            "kubelet-client-certificate": layout.identity("apiserver-kubelet-client"),
            "kubelet-client-key": layout.identity("apiserver-kubelet-client"),
            "kubelet-certificate-authority": layout.ca_cert,
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        self.process = self._spawn(arguments)
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Unreachable, StatusError):
                    await self.admin.raw("GET", "/readyz")
                    return
                assert self.process.poll() is None, (self.directory / "apiserver.log").read_text()
                await asyncio.sleep(0.02)

    def _spawn(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        with open(self.directory / "apiserver.log", "ab") as log:
            return subprocess.Popen([sys.executable, "-m", "controlplane.apiserver", *arguments], stderr=log)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)

    async def pods(self) -> list[dict[str, Any]]:
        return list((await self.admin.list(PODS, NS))["items"])

    async def placement(self) -> dict[str, str]:
        return {p["metadata"]["name"]: p["spec"].get("nodeName", "") for p in await self.pods()}


def node(name: str, cpu: str) -> dict[str, Any]:
    capacity = {"cpu": cpu, "memory": "64Gi", "pods": "110"}
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    status = {"capacity": capacity, "allocatable": capacity}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}


def pod(name: str, cpu: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "example", "resources": {"requests": {"cpu": cpu}}}
    metadata = {"name": name, "namespace": NS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        await cluster.start()
        await cluster.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NS}}
        await cluster.admin.create(SERVICEACCOUNTS, account)
        yield cluster
    finally:
        await cluster.admin.close()
        cluster.kill()


@contextlib.asynccontextmanager
async def scheduling(cluster: Cluster) -> AsyncIterator[None]:
    client = cluster.client("scheduler")
    ready = asyncio.Event()
    elector = LeaderElector(client, "kube-scheduler", identity="test")
    task = asyncio.create_task(Scheduler(client).run(elector, ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 20)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def until(what: Callable[[], Coroutine[Any, Any, Any]], seconds: float = 30.0) -> Any:
    """The first true result of `what()`."""
    async with asyncio.timeout(seconds):
        while True:
            if value := await what():
                return value
            await asyncio.sleep(0.02)


async def test_binding_refusing_and_preempting_with_a_schedulers_rights(cluster: Cluster, caplog: Any) -> None:
    await cluster.admin.create(NODES, node("a", "1"))
    async with scheduling(cluster):
        # At least as important as what is there may not push anything out: it waits, and says why.
        await cluster.admin.create(PODS, pod("first", "600m"))
        await cluster.admin.create(PODS, pod("second", "600m"))

        async def refused() -> str:
            for each in await cluster.pods():
                for condition in each["status"].get("conditions", []):
                    if condition.get("reason") == "Unschedulable":
                        return str(condition["message"])
            return ""

        assert (await until(refused)).startswith("0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes")

        async def reasons() -> Counter[str]:
            events = (await cluster.admin.list(EVENTS, NS))["items"]
            found = Counter(e["reason"] for e in events)
            return found if {"Scheduled", "FailedScheduling"} <= set(found) else Counter()

        assert (await until(reasons))["Scheduled"] == 1
        await cluster.admin.create(PODS, pod("urgent", "1", priorityClassName="system-cluster-critical"))

        async def victim() -> str:
            return next(
                (p["metadata"]["name"] for p in await cluster.pods() if "deletionTimestamp" in p["metadata"]), ""
            )

        name = await until(victim)
        await cluster.admin.delete(PODS, name, NS, grace_period_seconds=0)

        async def placed() -> bool:
            return (await cluster.placement()).get("urgent") == "a"

        await until(placed)
    assert "orbidden" not in caplog.text


async def test_every_pod_is_bound_once_though_the_server_dies_meanwhile(cluster: Cluster) -> None:
    await asyncio.gather(*(cluster.admin.create(NODES, node(n, "100")) for n in "abc"))
    async with scheduling(cluster):
        names = [f"p{i}" for i in range(150)]

        async def insist(name: str) -> None:
            while True:
                try:
                    await cluster.admin.create(PODS, pod(name, "2"))
                    return
                except Unreachable:
                    await asyncio.sleep(0.05)
                except Exception as error:
                    if "already exists" in str(error):  # the answer was lost, the write was not
                        return
                    raise

        creating = asyncio.gather(*(insist(n) for n in names))
        await asyncio.sleep(0.1)
        cluster.kill()
        await cluster.start()
        await creating

        async def all_placed() -> dict[str, str]:
            placement = await cluster.placement()
            return placement if len(placement) == len(names) and all(placement.values()) else {}

        placement = await until(all_placed)
        assert set(placement) == set(names)
        assert set(Counter(placement.values()).values()) == {50}  # 100 CPUs a node and 2 a pod: exactly full
