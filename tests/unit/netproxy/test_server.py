"""The daemon over a fake API server and a fake backend: what it watches, when it is ready, how it recovers."""

import asyncio

import pytest

from controlplane.client.fake import FakeAPI
from controlplane.client.resources import ENDPOINTSLICES, SERVICES
from controlplane.daemon import ConfigError
from netproxy.backend import BackendError
from netproxy.fake import FakeBackend
from netproxy.server import Config, follow, make_backend, serve


def service(name, number):
    spec = {"clusterIP": f"10.96.0.{number}", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def endpoint_slice(name, *ips, hints=None):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "hints": {"forZones": [{"name": (hints or {}).get(ip, "z")}]}} for ip in ips],
    }


def node(zone):
    labels = {"topology.kubernetes.io/zone": zone}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}, "spec": {}, "status": {}}


class Daemon:
    """A running `follow`; `targets()` is where each Service leads."""

    def __init__(self, **settings):
        self.api, self.backend, self.ready = FakeAPI(), FakeBackend(), asyncio.Event()
        self.config = Config(node_name="n1", healthz_bind_address="", **settings)

    async def start(self):
        running = follow(self.config, self.api.client(), self.backend, self.ready.set)
        self.task = asyncio.ensure_future(running)

    def targets(self):
        return {str(name): [e.ip for e in plan.cluster] for name, plan in self.backend.plans.items()}

    async def until(self, targets):
        async with asyncio.timeout(5):
            while self.targets() != targets:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
async def daemon():
    made = Daemon(sync_period_seconds=0.02)
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_ready_means_that_all_that_was_there_is_programmed(daemon):
    for i in range(50):
        daemon.api.put(service(f"s{i}", i + 1))
        daemon.api.put(endpoint_slice(f"s{i}", f"10.244.0.{i + 1}"))
    await daemon.start()
    async with asyncio.timeout(5):
        await daemon.ready.wait()
    assert daemon.targets() == {f"default/s{i}:http": [f"10.244.0.{i + 1}"] for i in range(50)}
    assert daemon.backend.calls == ["replace"]


async def test_changes_are_followed_one_by_one(daemon):
    client = daemon.api.client()
    await daemon.start()
    await daemon.ready.wait()
    await client.create(SERVICES, service("web", 1), "default")
    await daemon.until({"default/web:http": []})
    await client.create(ENDPOINTSLICES, endpoint_slice("web", "10.244.0.1"), "default")
    await daemon.until({"default/web:http": ["10.244.0.1"]})
    await client.delete(ENDPOINTSLICES, "web-1", "default")
    await daemon.until({"default/web:http": []})
    await client.delete(SERVICES, "web", "default")
    await daemon.until({})
    assert daemon.backend.calls.count("replace") == 1


async def test_a_failed_write_is_repeated_in_full(daemon):
    client = daemon.api.client()
    await daemon.start()
    await daemon.ready.wait()
    daemon.backend.fail = 2
    await client.create(SERVICES, service("web", 1), "default")
    await daemon.until({"default/web:http": []})
    assert daemon.backend.calls == ["replace", "update", "replace", "replace"]


async def test_lost_rules_are_written_again(daemon):
    daemon.api.put(service("web", 1))
    await daemon.start()
    await daemon.ready.wait()
    daemon.backend.plans, daemon.backend.lost = {}, True
    await daemon.until({"default/web:http": []})


async def test_the_nodes_zone_chooses_endpoints(daemon):
    daemon.api.put(node("east"))
    daemon.api.put(service("web", 1))
    daemon.api.put(
        endpoint_slice("web", "10.244.0.1", "10.244.0.2", hints={"10.244.0.1": "east", "10.244.0.2": "west"})
    )
    await daemon.start()
    await daemon.ready.wait()
    assert daemon.targets() == {"default/web:http": ["10.244.0.1"]}
    daemon.api.put(node("west"))
    await daemon.until({"default/web:http": ["10.244.0.2"]})


async def test_an_api_server_that_is_away_changes_nothing(daemon):
    daemon.api.put(service("web", 1))
    daemon.api.put(endpoint_slice("web", "10.244.0.1"))
    await daemon.start()
    await daemon.ready.wait()
    daemon.api.offline = True
    daemon.api.break_watches()
    daemon.api.put(endpoint_slice("web", "10.244.0.2"))
    await asyncio.sleep(0)
    assert daemon.targets() == {"default/web:http": ["10.244.0.1"]}
    daemon.api.offline = False
    await daemon.until({"default/web:http": ["10.244.0.2"]})


def test_settings_that_cannot_be_used_are_named():
    with pytest.raises(ConfigError, match=r"ipvs-scheduler.*rr, wrr"):
        make_backend(Config(proxy_mode="ipvs", ipvs_scheduler="magic"))
    with pytest.raises(ConfigError, match="CIDR"):
        make_backend(Config(proxy_mode="ipvs", ipvs_exclude_cidrs=["magic"]))
    with pytest.raises(ConfigError, match="mode"):
        make_backend(Config(proxy_mode="magic"))
    with pytest.raises(ConfigError, match="CIDR"):
        make_backend(Config(cluster_cidr="10.244.0.0/33"))


async def test_a_kernel_that_cannot_do_the_mode_is_an_error_at_start(monkeypatch):
    """No silent fallback: the message says what is missing."""

    class Incapable(FakeBackend):
        async def check(self):
            raise BackendError("IPVS mode needs the kernel module ip_vs")

    monkeypatch.setattr("netproxy.server.make_backend", lambda config, thread: Incapable())
    with pytest.raises(ConfigError, match="ip_vs"):
        await serve(Config(node_name="n1", proxy_mode="ipvs"), lambda: None)
