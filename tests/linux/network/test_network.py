"""Two nodes, their pods and the outside world, in namespaces: who reaches whom, and as whom."""

import asyncio

import pytest

from nodeagent.network.network import LinuxPodNetwork, NetworkConfig, NetworkFailure
from nodeagent.runtime.interface import PortMapping
from tests.linux.network_lab import until

pytestmark = pytest.mark.root

A, B = "a" * 64, "b" * 64


def node_object(name, ip, cidr):
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}]},
    }


class Node:
    """A machine on the wire with a pod network of its own."""

    def __init__(self, wire, directory, number, **settings):
        self.ip, self.cidr = f"10.77.0.{10 + number}", f"10.244.{number}.0/24"
        self.wire, self.name = wire, f"node-{number}"
        self.corner = wire.machine(self.ip)
        self.config = NetworkConfig(str(directory / self.name), **settings)
        self.network = self.restarted()
        self.object = node_object(self.name, self.ip, self.cidr)

    def restarted(self):
        """A new agent's network on the same machine and disk."""
        network = LinuxPodNetwork(self.config, self.corner.thread)
        self.wire.stack.callback(lambda: asyncio.run(network.close()))
        return network

    async def pod(self, sandbox_id, ports=()):
        corner = self.wire.new_corner()
        (corner.ip,) = await self.network.attach(sandbox_id, corner.path, ports)
        return corner


@pytest.fixture
async def nodes(wire, tmp_path):
    pair = [Node(wire, tmp_path, 1), Node(wire, tmp_path, 2)]
    for node in pair:
        await node.network.setup(node.cidr, node.ip)
        await node.network.update_nodes([n.object for n in pair])
    return pair


async def test_pods_of_two_nodes_see_each_others_own_address(wire, nodes):
    one, two = nodes
    client, server = await one.pod(A), await two.pod(B)
    wire.listen(server, 80, "server")
    assert client.connect(server.ip, 80) == f"server {client.ip}"
    assert client.ask(server.ip, 80) == f"server {client.ip}"


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
async def test_pods_of_one_node_see_each_others_own_address(wire, nodes, bridge_filter):
    one = nodes[0]
    one.corner.sysctl("net.bridge.bridge-nf-call-iptables", bridge_filter)
    client, server = await one.pod(A), await one.pod(B)
    wire.listen(server, 80, "server")
    assert client.connect(server.ip, 80) == f"server {client.ip}"


async def test_a_pod_reaches_every_node_as_itself_and_nodes_reach_it(wire, nodes):
    one, two = nodes
    pod = await one.pod(A)
    wire.listen(pod, 80, "pod")
    for node in nodes:
        wire.listen(node.corner, 81, node.name)
        assert pod.connect(node.ip, 81) == f"{node.name} {pod.ip}"
    assert one.corner.connect(pod.ip, 80) == "pod 10.244.1.1"
    assert two.corner.connect(pod.ip, 80) == f"pod {two.ip}"


async def test_a_pod_reaches_the_outside_as_its_node(wire, nodes):
    wire.listen(wire.corner, 82, "outside")
    pod = await nodes[0].pod(A)
    assert pod.connect("203.0.113.1", 82) == f"outside {nodes[0].ip}"
    assert pod.connect("10.77.0.1", 82) == f"outside {nodes[0].ip}"


async def test_forwarding_works_where_the_policy_is_drop(wire, nodes):
    one, two = nodes
    for node in nodes:
        node.corner.run("iptables -P FORWARD DROP")
    client, server = await one.pod(A), await two.pod(B)
    wire.listen(server, 80, "server")
    assert client.connect(server.ip, 80) == f"server {client.ip}"


async def test_attach_is_idempotent_and_a_restarted_agent_knows_its_pods(wire, nodes):
    one = nodes[0]
    pod = await one.pod(A)
    assert await one.network.attach(A, pod.path) == (pod.ip,)
    again = one.restarted()
    await again.setup(one.cidr, one.ip)
    assert await again.attach(A, pod.path) == (pod.ip,)
    other = wire.new_corner()
    (address,) = await again.attach(B, other.path)
    assert address != pod.ip
    wire.listen(pod, 80, "pod")
    assert other.connect(pod.ip, 80) == f"pod {address}"


async def test_an_attach_that_was_cut_short_is_completed(wire, nodes):
    """The wire is there, but for another, dead namespace: the name is taken."""
    one = nodes[0]
    lost = wire.new_corner()
    await one.network.attach(A, lost.path)
    pod = await one.pod(A)
    wire.listen(pod, 80, "pod")
    assert one.corner.connect(pod.ip, 80).startswith("pod")


async def test_a_namespace_takes_its_wire_along(wire, nodes):
    one = nodes[0]
    pod = await one.pod(A)
    assert "veth" + "a" * 11 in one.corner.run("ip link")
    await one.network.detach(A)
    pod.close()
    await until(lambda: "veth" not in one.corner.run("ip link"))


async def test_host_ports_lead_to_the_pod_from_everywhere(wire, nodes):
    one, two = nodes
    pod = await one.pod(A, [PortMapping(80, 8080), PortMapping(80, 8081, "UDP")])
    wire.listen(pod, 80, "pod")
    assert two.corner.connect(one.ip, 8080) == f"pod {two.ip}"
    assert one.corner.connect(one.ip, 8080).startswith("pod")
    assert pod.connect(one.ip, 8080).startswith("pod")
    assert two.corner.ask(one.ip, 8081) == f"pod {two.ip}"
    with pytest.raises(NetworkFailure, match="8080"):
        await one.pod(B, [PortMapping(81, 8080)])
    again = one.restarted()
    await again.setup(one.cidr, one.ip)
    assert two.corner.connect(one.ip, 8080) == f"pod {two.ip}"
    await again.detach(A)
    with pytest.raises(ConnectionRefusedError):
        two.corner.connect(one.ip, 8080)


async def test_routes_follow_the_nodes(nodes):
    one = nodes[0]
    assert "10.244.2.0/24 via 10.77.0.12" in one.corner.run("ip route")
    moved = node_object("node-2", "10.77.0.13", "10.244.2.0/24")
    await one.network.update_nodes([one.object, moved])
    assert "10.244.2.0/24 via 10.77.0.13" in one.corner.run("ip route")
    await one.network.update_nodes([one.object])
    assert "10.244.2.0" not in one.corner.run("ip route")


async def test_nodes_behind_a_router_are_reached_by_tunnel(wire, nodes, tmp_path):
    one = nodes[0]
    far = Node(wire, tmp_path, 3)
    # node-3's wire is another link: 10.78.0.0/24 behind the outside machine, which routes but knows no pod CIDR.
    wire.corner.sysctl("net.ipv4.ip_forward", "1")
    wire.corner.run("ip link set p1077013 nomaster\nip addr add 10.78.0.1/24 dev p1077013")
    far.corner.run("ip addr flush dev eth0\nip addr add 10.78.0.13/24 dev eth0\nip route add default via 10.78.0.1")
    far.object = node_object("node-3", "10.78.0.13", far.cidr)
    await far.network.setup(far.cidr, "10.78.0.13")
    for node in (one, far):
        await node.network.update_nodes([one.object, nodes[1].object, far.object])
    client, server = await one.pod(A), await far.pod(B)
    wire.listen(server, 80, "server")
    assert client.connect(server.ip, 80) == f"server {client.ip}"
    await one.network.update_nodes([one.object])
    assert "wherry-vxlan" not in one.corner.run("ip link")


async def test_cleanup_leaves_nothing(wire, tmp_path):
    node = Node(wire, tmp_path, 1)

    def everything():
        rules = node.corner.run("iptables-save")
        return [
            [line for line in rules.splitlines() if line.startswith(("-A", ":WHERRY"))],
            node.corner.run("ip -br link"),
            node.corner.run("ip route"),
            [p for p in (tmp_path / node.name).glob("**/*") if p.is_file() or p.is_symlink()],
        ]

    before = everything()
    await node.network.setup(node.cidr, node.ip)
    await node.network.setup(node.cidr, node.ip)
    await node.network.update_nodes([node.object, node_object("node-2", "10.77.0.12", "10.244.2.0/24")])
    pod = await node.pod(A, [PortMapping(80, 8080)])
    assert everything() != before
    await node.network.cleanup()
    await node.network.cleanup()
    pod.close()
    await until(lambda: "veth" not in node.corner.run("ip link"))
    assert everything() == before
    with pytest.raises(NetworkFailure):
        await node.pod(B)


async def test_the_failure_says_what_failed(wire, tmp_path):
    node = Node(wire, tmp_path, 1)
    with pytest.raises(NetworkFailure, match="not set up"):
        await node.pod(A)
    with pytest.raises(NetworkFailure, match="InternalIP"):
        await node.network.setup(node.cidr, "10.9.9.9")
    await node.network.setup(node.cidr, node.ip)
    with pytest.raises(NetworkFailure, match="/run/netns/absent"):
        await node.network.attach(A, "/run/netns/absent")
    first = await node.pod(B)
    assert first.ip == "10.244.1.3"  # .2 was given back by the failure and is used last
