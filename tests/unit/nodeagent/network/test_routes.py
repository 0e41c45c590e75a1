from nodeagent.network import masquerade, peers
from nodeagent.network.inventory import Route
from nodeagent.network.routes import PROTOCOL, Peer, Tunnel, plan
from nodeagent.network.veth import host_device

NEAR, FAR = bytes([10, 77, 0, 12]), bytes([192, 168, 1, 5])


def test_neighbours_get_routes_and_others_tunnels():
    nodes = [Peer("n2", "10.77.0.12", ("10.244.2.0/24", "fd00::/64")), Peer("n3", "192.168.1.5", ("10.244.3.0/24",))]
    routes, tunnels = plan(nodes, {NEAR: 7})
    assert routes == [Route(bytes([10, 244, 2, 0]), 24, NEAR, 7, PROTOCOL)]
    assert tunnels == [Tunnel(bytes([10, 244, 3, 0]), 24, FAR)]


def node(ip="10.77.0.12", heartbeat="1", **spec):
    addresses = [{"type": "Hostname", "address": "n2"}] + ([{"type": "InternalIP", "address": ip}] if ip else [])
    status = {"addresses": addresses, "conditions": [{"type": "Ready", "lastHeartbeatTime": heartbeat}]}
    return {"metadata": {"name": "n2"}, "spec": spec, "status": status}


def test_a_node_is_a_peer_once_it_has_an_internal_ip():
    assert peers.peer(node(ip="")) is None
    assert peers.peer(node()) == Peer("n2", "10.77.0.12", ())
    assert peers.peer(node(podCIDR="10.244.2.0/24")) == Peer("n2", "10.77.0.12", ("10.244.2.0/24",))
    assert peers.peer({"metadata": {"name": "new"}}) is None


def test_heartbeats_concern_no_route():
    assert not peers.relevant(node(), node(heartbeat="2"))
    assert peers.relevant(node(), node(podCIDR="10.244.2.0/24"))


def test_cluster_and_node_destinations_come_before_masquerading():
    nat, _ = masquerade.chains("10.244.1.0/24", "10.244.0.0/16", ["10.77.0.12", "10.77.0.11", "10.77.0.12"])
    targets = [rule for rule in nat.rules if "-d 10.77" in rule]
    assert len(targets) == 2
    assert nat.rules[-1].startswith("-j MASQUERADE")


def test_device_names_fit_the_kernel():
    assert host_device("0123456789abcdef" * 4) == "veth0123456789a"
    assert len(host_device("Not-Hex")) == 15 and host_device("x") != host_device("y")
