"""A cluster of two nodes with pods, and a proxy on each, fed by hand: what every mode of the proxy is tried on.

A mode that this machine's kernel cannot do is skipped with the kernel's reason; tests/e2e/kernel boots one that can.
"""

import asyncio
import contextlib
import functools
import os

import pytest

from netproxy.backend import BackendError
from netproxy.iptables import rules as iptables
from netproxy.iptables.apply import IptablesBackend
from netproxy.ipvs import plan as ipvs
from netproxy.ipvs import requirements
from netproxy.ipvs.apply import IpvsBackend
from netproxy.proxy import Proxy
from nodeagent.network.network import LinuxPodNetwork, NetworkConfig
from tests.linux import network_lab

CLUSTER_CIDR = "10.244.0.0/16"


def make_iptables(thread, node_ip):
    return IptablesBackend(iptables.Settings(CLUSTER_CIDR, node_ips=(node_ip,)), thread)


def make_ipvs(thread, node_ip):
    return IpvsBackend(ipvs.Settings(CLUSTER_CIDR, node_ips=(node_ip,)), thread)


BACKENDS = {"iptables": make_iptables, "ipvs": make_ipvs}
# On a machine that was made for it (tests/e2e/behaviour) only these modes, and they must work.
REQUIRED = [mode for mode in os.environ.get("WHERRY_PROXY_MODES", "").split(",") if mode]


@functools.cache
def why_not(mode):
    """Why this kernel cannot do `mode`; empty if it can."""
    if mode == "iptables":
        return ""
    with network_lab.wire() as wire:
        try:
            wire.corner.call(requirements.check, "rr")
        except BackendError as error:
            return str(error).partition(" (")[0]
    return ""


def service(name="web", ip="10.96.0.20", port=80, protocol="TCP", **spec):
    ports = [{"name": "", "port": port, "protocol": protocol, "targetPort": 8080}]
    if "node_port" in spec:
        ports[0]["nodePort"] = spec.pop("node_port")
        spec.setdefault("type", "NodePort")
    status = spec.pop("status", {})
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": ports, **spec},
        "status": status,
    }


def endpoint_slice(pods, name="web", port=8080, protocol="TCP", suffix="1"):
    """`pods`: (ip, node name, conditions)."""
    return {
        "metadata": {
            "namespace": "default",
            "name": f"{name}-{suffix}",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": protocol}],
        "endpoints": [{"addresses": [ip], "nodeName": node, "conditions": c} for ip, node, c in pods],
    }


class Node:
    def __init__(self, wire, directory, number):
        self.name, self.ip, self.cidr = f"node-{number}", f"10.77.0.{10 + number}", f"10.244.{number}.0/24"
        self.corner = wire.machine(self.ip)
        self.network = LinuxPodNetwork(NetworkConfig(str(directory / self.name)), self.corner.thread)
        self.object = {
            "metadata": {"name": self.name},
            "spec": {"podCIDR": self.cidr},
            "status": {"addresses": [{"type": "InternalIP", "address": self.ip}]},
        }
        self.proxy = self.backend = self.task = None


class Cluster:
    """`nodes`, pods by `pod()`, and `apply()` for Services and slices, which returns when all rules are written."""

    def __init__(self, wire, directory, mode):
        self.wire = wire
        self.use(mode)
        self.nodes = [Node(wire, directory, n) for n in (1, 2)]
        self.objects = {}
        self._pods = 0
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        for node in self.nodes:
            self._stack.push_async_callback(node.network.close)
            await node.network.setup(node.cidr, node.ip)
            await node.network.update_nodes([n.object for n in self.nodes])
            await self.start_proxy(node)
        return self

    async def __aexit__(self, *_):
        for node in self.nodes:
            await self.kill_proxy(node)
        await self._stack.aclose()

    def use(self, mode):
        """Proxies started from now on are of this mode."""
        self.mode, self.make_backend = mode, BACKENDS[mode]

    async def start_proxy(self, node):
        node.backend = self.make_backend(node.corner.thread, node.ip)
        node.proxy = Proxy(node.backend, node.name, sync_period_s=0.2, thread=node.corner.thread)
        for obj in self.objects.values():
            self._feed(node, obj)
        node.proxy.start()
        node.task = asyncio.ensure_future(node.proxy.run())
        await node.proxy.ready.wait()

    async def kill_proxy(self, node):
        """Nothing is tidied up, as with kill -9: only the process's memory is gone."""
        node.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await node.task
        await node.backend.close()

    async def pod(self, node, name, port=8080):
        corner = self.wire.new_corner()
        self._pods += 1
        (corner.ip,) = await node.network.attach(f"{self._pods:064x}"[::-1], corner.path)
        corner.node = node.name
        self.wire.listen(corner, port, name)
        return corner

    async def apply(self, *objects):
        for obj in objects:
            self.objects[self._key(obj)] = obj
            for node in self.nodes:
                self._feed(node, obj)
        await self.settled()

    async def delete(self, obj):
        del self.objects[self._key(obj)]
        for node in self.nodes:
            gone = node.proxy.slice_deleted if "endpoints" in obj else node.proxy.service_deleted
            gone(obj)
        await self.settled()

    async def settled(self):
        await network_lab.until(lambda: not any(node.proxy.health.waiting for node in self.nodes))

    async def serve(self, obj, *pods, conditions=None, protocol="TCP"):
        """Apply a Service and one slice with `pods`."""
        name = obj["metadata"]["name"]
        entries = [(pod.ip, pod.node, conditions or {"ready": True}) for pod in pods]
        await self.apply(obj, endpoint_slice(entries, name, protocol=protocol))

    def _feed(self, node, obj):
        if "endpoints" in obj:
            node.proxy.slice_changed(obj)
        else:
            node.proxy.service_changed(obj)

    @staticmethod
    def _key(obj):
        return ("slice" if "endpoints" in obj else "service", obj["metadata"]["name"])


@pytest.fixture(params=REQUIRED or list(BACKENDS))
async def cluster(request, tmp_path):
    if reason := why_not(request.param):
        (pytest.fail if REQUIRED else pytest.skip)(reason)
    with network_lab.wire() as wire:
        async with Cluster(wire, tmp_path, request.param) as made:
            yield made


@pytest.fixture
def other_mode(cluster):
    mode = next(mode for mode in BACKENDS if mode != cluster.mode)
    if reason := why_not(mode):
        pytest.skip(reason)
    return mode


@pytest.fixture
def objects():
    """Makers of API objects: `objects.service(...)`, `objects.endpoint_slice(...)`."""

    class Makers:
        pass

    Makers.service, Makers.endpoint_slice = staticmethod(service), staticmethod(endpoint_slice)
    return Makers
