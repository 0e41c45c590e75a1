"""Where packets go in IPVS mode, traced through virtual servers, sets and rules; and what several Services share."""

import pytest

from netproxy.ipvs import rules, sets
from netproxy.ipvs.plan import Desired, Node, Settings, port_state
from netproxy.ipvs.state import Key, Options, Target
from netproxy.model import Endpoint, PortName, ServiceName, ServicePort
from netproxy.topology import Location, plan

CIDR, NODE_IP = "10.244.0.0/16", "10.77.0.11"
POD, OUTSIDE = "10.244.1.99", "203.0.113.9"
A, B = Endpoint("10.244.1.5", 8080, local=True), Endpoint("10.244.2.5", 8080)
TO_A, TO_B = "10.244.1.5:8080", "10.244.2.5:8080"
HERE = Location("node-1")
VIP = "10.96.0.20"


def port(name="web", ip=VIP, number=80, protocol="TCP", **more):
    return ServicePort(PortName(ServiceName("default", name), "", protocol), ip, number, protocol, **more)


def wanted(service, endpoints, settings=None, addresses=(NODE_IP,)):
    settings = settings or Settings(CIDR)
    return port_state(plan(service, endpoints, HERE), settings, Node.of(addresses, settings))


@pytest.fixture
def trace(tracer):
    def make(*pairs, settings=None):
        settings = settings or Settings(CIDR)
        desired = Desired()
        desired.change({p.name: wanted(p, endpoints, settings) for p, endpoints in pairs})
        return tracer(rules.text(settings), rules.jumps(), ipvs=desired.state())

    return make


def test_cluster_ip_from_a_pod_goes_to_any_endpoint_as_itself(trace, packet):
    made = trace((port(), [A, B]))
    sent = packet(POD, VIP, 80)
    assert made.spread(sent) == {TO_A, TO_B}
    assert not made.send(sent).masqueraded


def test_cluster_ip_from_elsewhere_is_masqueraded(trace, packet):
    made = trace((port(), [A]))
    assert made.send(packet(OUTSIDE, VIP, 80, came_from="outside")).masqueraded
    # From this node: the source is the ClusterIP, which is an address of this machine.
    assert made.send(packet(VIP, VIP, 80, came_from="local")).masqueraded
    unknown = trace((port(), [A]), settings=Settings())
    assert unknown.send(packet(VIP, VIP, 80, came_from="local")).masqueraded
    assert not unknown.send(packet(POD, VIP, 80)).masqueraded
    everything = trace((port(), [A]), settings=Settings(CIDR, masquerade_all=True))
    assert everything.send(packet(POD, VIP, 80)).masqueraded


def test_a_pod_that_reaches_itself_sees_another_address(trace, packet):
    made = trace((port(), [A]))
    assert made.send(packet(A.ip, VIP, 80)).masqueraded
    assert not made.send(packet(POD, VIP, 80)).masqueraded


def test_nobody_behind_a_service_is_a_refusal(trace, packet):
    made = trace((port(node_port=30080), []))
    assert made.send(packet(POD, VIP, 80)).end == "refused"
    assert made.send(packet(VIP, VIP, 80, came_from="local")).end == "refused"
    assert made.send(packet(OUTSIDE, NODE_IP, 30080, came_from="outside")).end == "refused"


def test_other_ports_of_a_cluster_ip_are_not_the_nodes(trace, packet):
    made = trace((port(), [A]))
    assert made.send(packet(OUTSIDE, VIP, 22, came_from="outside")).end == "refused"
    assert made.send(packet(POD, VIP, 10250)).end == "refused"
    assert made.send(packet(VIP, VIP, 22, came_from="local")).end == "refused"
    assert made.send(packet(OUTSIDE, NODE_IP, 22, came_from="outside")).end == "delivered"
    assert made.send(packet(POD, VIP, 0, protocol="icmp")).end == "delivered"


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_node_port_hides_the_client_unless_its_policy_is_local(trace, packet, protocol):
    sent = packet(OUTSIDE, NODE_IP, 30080, protocol.lower(), came_from="outside")
    fate = trace((port(protocol=protocol, node_port=30080), [B])).send(sent)
    assert (fate.to, fate.masqueraded) == (TO_B, True)
    fate = trace((port(protocol=protocol, node_port=30080, external_local=True), [A, B])).send(sent)
    assert (fate.to, fate.masqueraded) == (TO_A, False)


def test_policy_local_without_a_pod_here_is_silent_to_those_outside(trace, packet):
    made = trace((port(node_port=30080, external_ips=("198.51.100.1",), external_local=True), [B]))
    for address, number in ((NODE_IP, 30080), ("198.51.100.1", 80)):
        assert made.send(packet(OUTSIDE, address, number, came_from="outside")).end == "dropped"
        assert made.send(packet(POD, address, number)).to == TO_B
        assert made.send(packet(NODE_IP, address, number, came_from="local")).to == TO_B


def test_internal_policy_local(trace, packet):
    assert trace((port(internal_local=True), [A, B])).spread(packet(POD, VIP, 80)) == {TO_A}
    alone = trace((port(internal_local=True), [B]))
    assert alone.send(packet(POD, VIP, 80)).end == "dropped"
    assert alone.send(packet(VIP, VIP, 80, came_from="local")).end == "dropped"
    assert trace((port(internal_local=True), [])).send(packet(POD, VIP, 80)).end == "refused"


def test_source_ranges_of_a_load_balancer(trace, packet):
    ranges = {"load_balancer_ips": ("198.51.100.2",), "source_ranges": ("203.0.113.0/24",)}
    made = trace((port(**ranges), [A]))
    assert made.send(packet(OUTSIDE, "198.51.100.2", 80, came_from="outside")).to == TO_A
    assert made.send(packet("192.0.2.1", "198.51.100.2", 80, came_from="outside")).end == "dropped"
    one = trace((port(**{**ranges, "source_ranges": ("203.0.113.9/32",)}), [A]))
    assert one.send(packet(OUTSIDE, "198.51.100.2", 80, came_from="outside")).to == TO_A
    assert one.send(packet("203.0.113.8", "198.51.100.2", 80, came_from="outside")).end == "dropped"
    everybody = trace((port(**{**ranges, "source_ranges": ("0.0.0.0/0",)}), [A]))
    assert everybody.send(packet("192.0.2.1", "198.51.100.2", 80, came_from="outside")).to == TO_A


def test_a_load_balancer_with_policy_local_shows_the_client(trace, packet):
    sent = packet(OUTSIDE, "198.51.100.2", 80, came_from="outside")
    assert trace((port(load_balancer_ips=("198.51.100.2",)), [A])).send(sent).masqueraded
    assert not trace((port(load_balancer_ips=("198.51.100.2",), external_local=True), [A])).send(sent).masqueraded


def test_health_check_port_is_open(trace, packet):
    made = trace((port(node_port=30080, external_local=True, health_check_node_port=32000), [A]))
    fate = made.send(packet(OUTSIDE, NODE_IP, 32000, came_from="outside"))
    assert fate.end == "delivered" and "KUBE-PROXY-FIREWALL" in fate.path


def test_an_external_address_that_the_node_has_stays_the_nodes(trace, packet):
    state = wanted(port(external_ips=(NODE_IP,)), [A])
    assert NODE_IP not in state.addresses
    assert (sets.IPVS_IPS, NODE_IP) not in state.members
    made = trace((port(external_ips=(NODE_IP,)), [A]))
    assert made.send(packet(OUTSIDE, NODE_IP, 80, came_from="outside")).to == TO_A
    assert made.send(packet(OUTSIDE, NODE_IP, 22, came_from="outside")).end == "delivered"


def test_node_ports_only_where_they_should_answer():
    settings = Settings(CIDR, node_port_addresses=("10.77.0.0/16",))
    state = wanted(port(node_port=30080), [A], settings, (NODE_IP, "192.168.1.1"))
    assert {key.address for key, _ in state.servers} == {VIP, NODE_IP}


def test_affinity_scheduler_and_flags():
    state = wanted(port(affinity_s=300), [A, B], Settings(CIDR, scheduler="mh"))
    assert state.options == Options("mh", 300)
    assert state.options.flags == 0x9
    assert dict(state.servers)[Key(VIP, 80, "TCP")] == (Target(A.ip, 8080), Target(B.ip, 8080))


def test_what_two_services_share_stays_until_both_are_gone():
    first, second = (
        port("a", external_ips=("198.51.100.1",)),
        port("b", "10.96.0.21", 81, external_ips=("198.51.100.1",)),
    )
    desired = Desired()
    desired.change({p.name: wanted(p, [A]) for p in (first, second)})
    before, after = desired.change({first.name: None})
    assert VIP in before.addresses and VIP not in after.addresses
    assert "198.51.100.1" in after.addresses
    assert "10.244.1.5,tcp:8080,10.244.1.5" in after.members[sets.LOOP_BACK]
    _, after = desired.change({second.name: None})
    assert not after.addresses
    nothing = desired.state()
    assert not (nothing.servers or nothing.addresses or any(nothing.members.values()))


def test_of_two_services_that_claim_one_address_and_port_the_first_by_name_has_it():
    first, second = port("a", external_ips=("198.51.100.1",)), port("b", "10.96.0.21", external_ips=("198.51.100.1",))
    shared = Key("198.51.100.1", 80, "TCP")
    desired = Desired()
    desired.change({second.name: wanted(second, [B])})
    _, after = desired.change({first.name: wanted(first, [A])})
    assert after.destinations[shared] == {Target(A.ip, 8080): 1}
    _, after = desired.change({first.name: None})
    assert after.destinations[shared] == {Target(B.ip, 8080): 1}


def test_a_change_concerns_only_what_it_touches():
    desired = Desired()
    desired.change({port(f"s{i}", f"10.96.1.{i}").name: wanted(port(f"s{i}", f"10.96.1.{i}"), [A]) for i in range(50)})
    changed = port("s7", "10.96.1.7")
    before, after = desired.change({changed.name: wanted(changed, [A, B])})
    assert list(before.servers) == list(after.servers) == [Key("10.96.1.7", 80, "TCP")]
