"""Objects and a running manager for the controllers' tests."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from controlplane.client.fake import FakeAPI
from controlplane.client.transport import Answer
from controlplane.controllers import manager
from controlplane.controllers.config import Config
from controlplane.controllers.reconcile import Controller

Obj = dict[str, Any]

SERVED = {
    "": ["Pod", "Node", "Namespace", "Service", "Secret", "ConfigMap", "ServiceAccount", "ReplicationController"],
    "apps": ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"],
    "discovery.k8s.io": ["EndpointSlice"],
    "batch": ["Job", "CronJob"],
}


class DiscoveringAPI(FakeAPI):
    """FakeAPI with the discovery documents that the garbage collector and the namespace controller read."""

    lag_seconds = 0.0
    """By how much watches run behind."""

    async def stream(self, target: str, **rest: Any) -> Any:
        return Lagging(await super().stream(target, **rest), self)

    async def request(self, method: str, target: str, body: bytes = b"", **rest: Any) -> Answer:
        found = self._discovery(target)
        if found is None:
            return await super().request(method, target, body, **rest)
        await asyncio.sleep(0)
        return Answer(200, {}, msgspec.json.encode(found))

    def _discovery(self, target: str) -> Obj | None:
        if target == "/apis":
            groups = [
                {"name": g, "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}} for g in SERVED if g
            ]
            return {"kind": "APIGroupList", "groups": groups}
        group = "" if target == "/api/v1" else target.removeprefix("/apis/").removesuffix("/v1")
        if group not in SERVED or target.count("/") != (3 if group else 2):
            return None
        verbs = ["get", "list", "watch", "delete", "deletecollection", "create", "update", "patch"]
        return {
            "kind": "APIResourceList",
            "resources": [
                {"name": k.lower() + "s", "kind": k, "namespaced": k not in ("Node", "Namespace"), "verbs": verbs}
                for k in SERVED[group]
            ],
        }


class Lagging:
    """A watch whose events come late."""

    def __init__(self, stream: Any, api: DiscoveringAPI) -> None:
        self._stream, self._api = stream, api
        self.status, self.headers = stream.status, stream.headers

    async def read(self) -> bytes:
        data: bytes = await self._stream.read()
        await asyncio.sleep(self._api.lag_seconds)
        return data

    def close(self) -> None:
        self._stream.close()


class Cluster:
    """A fake API, the manager over it, and a hand that plays the node agents."""

    def __init__(self) -> None:
        self.api = DiscoveringAPI()
        self.client = self.api.client()
        self.controllers: dict[str, Controller] = {}

    def controller(self, name: str) -> Any:
        """A running controller."""
        return self.controllers[name]

    async def until(self, condition: Callable[[], Any], what: str = "", seconds: float = 5.0) -> Any:
        """Wait until `condition()` is true and return what it returned."""
        try:
            async with asyncio.timeout(seconds):
                while not (result := condition()):  # noqa: ASYNC110 - any condition, not one event
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {what or condition}") from None
        return result

    async def settle(self, rounds: int = 60) -> None:
        """Let everything that is ready to run do so."""
        before = -1
        for _ in range(rounds):
            await asyncio.sleep(0.005)
            if before == len(self.api.requests):
                return
            before = len(self.api.requests)

    def pods(self, namespace: str = "default") -> list[Obj]:
        return [p for p in self.api.all("pods", namespace) if "deletionTimestamp" not in p["metadata"]]

    def run_pods(self, node: str = "node-1") -> int:
        """Play the scheduler and the agents: every pending pod runs and is ready; returns how many changed."""
        changed = 0
        for i, pod in enumerate(self.api.all("pods")):
            if pod["status"].get("phase") == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                changed += 1
                self.api.put(running(pod, node, f"10.244.0.{i + 2}"))
        return changed

    async def finish_deletions(self) -> None:
        """Play the agents: pods that are being deleted end."""
        for pod in self.api.all("pods"):
            if "deletionTimestamp" in pod["metadata"]:
                from controlplane.client.resources import PODS

                await self.client.delete(
                    PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_seconds=0
                )


def running(pod: Obj, node: str = "node-1", ip: str = "10.244.0.2", since: str = "2026-01-01T00:00:00Z") -> Obj:
    """`pod` as an agent reports it when it runs and is ready."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": since}
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}
    return {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status}


@pytest.fixture
def make_running() -> Callable[..., Obj]:
    return running


@pytest.fixture
def namespaced() -> Callable[..., Obj]:
    """An object with metadata as the server would give it."""
    numbers: Iterator[int] = iter(range(1, 10_000))

    def make(kind: str, name: str, api_version: str = "v1", **fields: Any) -> Obj:
        n = next(numbers)
        metadata = {
            "name": name, "namespace": "default", "uid": f"uid-{n}", "resourceVersion": str(n), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z", **fields.pop("metadata", {}),
        }  # fmt: skip
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}

    return make


@pytest.fixture
def deployment(namespaced: Callable[..., Obj]) -> Callable[..., Obj]:
    def make(name: str = "web", replicas: int = 3, image: str = "web:1", **spec: Any) -> Obj:
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}
        fields = {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, **spec,
        }  # fmt: skip
        return namespaced("Deployment", name, "apps/v1", spec=fields)

    return make


@pytest.fixture
async def cluster(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Cluster]:
    """A fake cluster whose controllers run."""
    made = Cluster()
    ca = tmp_path / "ca.crt"
    ca.write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    made.api.put(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}, "status": {"phase": "Active"}}
    )
    config = Config(root_ca_file=str(ca), node_monitor_grace_period_seconds=50, pod_gc_quarantine_seconds=0.0)
    started = asyncio.Event()

    def on_start(controllers: list[Controller]) -> None:
        made.controllers = {c.name: c for c in controllers}
        started.set()

    task = asyncio.ensure_future(manager.run(made.client, config, on_start))
    waiting = asyncio.ensure_future(started.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert started.is_set(), task
    yield made
    task.cancel()
    waiting.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert not errors, errors
