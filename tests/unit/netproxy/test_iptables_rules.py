"""Where packets go, traced through the generated rules."""

import pytest

from netproxy.iptables import rules, transaction
from netproxy.iptables.rules import PortRules, Settings
from netproxy.model import Endpoint, PortName, ServiceName, ServicePort
from netproxy.topology import Location, plan

CIDR = "10.244.0.0/16"
POD, OUTSIDE, NODE = "10.244.1.99", "203.0.113.9", "10.77.0.11"
A, B = Endpoint("10.244.1.5", 8080, local=True), Endpoint("10.244.2.5", 8080)
HERE = Location("node-1")


def port(name="web", ip="10.96.0.20", number=80, protocol="TCP", **more):
    return ServicePort(PortName(ServiceName("default", name), "", protocol), ip, number, protocol, **more)


def ruleset(*pairs, settings=None):
    settings = settings or Settings(CIDR)
    return {p.name: rules.port_rules(plan(p, endpoints, HERE), settings) for p, endpoints in pairs}


@pytest.fixture
def trace(tracer):
    def make(*pairs, settings=None):
        settings = settings or Settings(CIDR)
        text = transaction.full(ruleset(*pairs, settings=settings).values(), settings, ())
        return tracer(text, rules.jumps())

    return make


def test_cluster_ip_from_a_pod_goes_to_any_endpoint_as_itself(trace, packet):
    made = trace((port(), [A, B]))
    sent = packet(POD, "10.96.0.20", 80)
    assert made.spread(sent) == {"10.244.1.5:8080", "10.244.2.5:8080"}
    assert not made.send(sent).masqueraded


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_endpoint_has_the_same_chance(count):
    endpoints = [Endpoint(f"10.244.1.{i}", 80) for i in range(2, 2 + count)]
    (made,) = ruleset((port(), endpoints)).values()
    chain = made.chains[rules.service_chain("KUBE-SVC-", port().name)]
    left, chances = 1.0, []
    for rule in [r for r in chain if "KUBE-SEP-" in r]:
        words = rule.split()
        chance = float(words[words.index("--probability") + 1]) if "--probability" in words else 1.0
        chances.append(left * chance)
        left *= 1 - chance
    assert chances == pytest.approx([1 / count] * count)


def test_cluster_ip_from_elsewhere_is_masqueraded(trace, packet):
    made = trace((port(), [A]))
    assert made.send(packet(OUTSIDE, "10.96.0.20", 80, came_from="outside")).masqueraded
    assert made.send(packet(NODE, "10.96.0.20", 80, came_from="local")).masqueraded
    everything = trace((port(), [A]), settings=Settings(CIDR, masquerade_all=True))
    assert everything.send(packet(POD, "10.96.0.20", 80)).masqueraded


def test_hairpin_is_masqueraded(trace, packet):
    fate = trace((port(), [A])).send(packet(A.ip, "10.96.0.20", 80))
    assert (fate.to, fate.masqueraded) == ("10.244.1.5:8080", True)


def test_other_traffic_is_left_alone(trace, packet):
    made = trace((port(node_port=30080), [A]))
    for sent in (
        packet(POD, "10.96.0.20", 81),
        packet(POD, "10.96.0.20", 80, "udp"),
        packet(POD, "198.51.100.1", 443),
        packet(OUTSIDE, NODE, 22, came_from="outside"),
        packet(OUTSIDE, "10.77.0.12", 30080, came_from="outside"),
    ):
        fate = made.send(sent)
        assert (fate.end, fate.to, fate.masqueraded) == ("delivered", f"{sent.dst}:{sent.dport}", False)


def test_node_port_reaches_all_and_is_masqueraded(trace, packet):
    made = trace((port(node_port=30080), [A, B]))
    for source, came_from, to in (
        (OUTSIDE, "outside", NODE),
        (NODE, "local", NODE),
        ("127.0.0.1", "local", "127.0.0.1"),
    ):
        sent = packet(source, to, 30080, came_from=came_from)
        assert made.spread(sent) == {"10.244.1.5:8080", "10.244.2.5:8080"}
        assert made.send(sent).masqueraded


def test_node_port_answers_only_on_the_chosen_addresses(trace, packet):
    made = trace((port(node_port=30080), [A]), settings=Settings(CIDR, node_port_addresses=("10.99.0.0/16",)))
    assert made.send(packet(OUTSIDE, NODE, 30080, came_from="outside")).to == f"{NODE}:30080"
    assert made.send(packet(OUTSIDE, "10.99.0.1", 30080, came_from="outside")).to == "10.244.1.5:8080"
    closed = trace((port(node_port=30080), [A]), settings=Settings(CIDR, localhost_node_ports=False))
    assert closed.send(packet("127.0.0.1", "127.0.0.1", 30080, came_from="local")).to == "127.0.0.1:30080"


def test_no_endpoints_is_refused_everywhere(trace, packet):
    made = trace((port(node_port=30080, external_ips=("198.51.100.1",)), []))
    assert made.send(packet(POD, "10.96.0.20", 80)).end == "refused"
    assert made.send(packet(NODE, "10.96.0.20", 80, came_from="local")).end == "refused"
    assert made.send(packet(OUTSIDE, NODE, 30080, came_from="outside")).end == "refused"
    assert made.send(packet(OUTSIDE, "198.51.100.1", 80, came_from="outside")).end == "refused"
    assert made.send(packet(POD, "10.96.0.20", 81)).end == "delivered"


def test_external_policy_local(trace, packet):
    local = port(node_port=30080, external_local=True, health_check_node_port=32000)
    outside = packet(OUTSIDE, NODE, 30080, came_from="outside")
    made = trace((local, [A, B]))
    assert made.spread(outside) == {"10.244.1.5:8080"}
    assert not made.send(outside).masqueraded
    assert made.spread(packet(POD, NODE, 30080)) == {"10.244.1.5:8080", "10.244.2.5:8080"}
    elsewhere = trace((local, [B]))
    assert elsewhere.send(outside).end == "dropped"
    assert elsewhere.send(packet(POD, NODE, 30080)).to == "10.244.2.5:8080"
    own = elsewhere.send(packet(NODE, NODE, 30080, came_from="local"))
    assert (own.to, own.masqueraded) == ("10.244.2.5:8080", True)
    assert trace((local, [])).send(outside).end == "refused"


def test_internal_policy_local(trace, packet):
    local = port(internal_local=True, node_port=30080)
    sent = packet(POD, "10.96.0.20", 80)
    assert trace((local, [A, B])).spread(sent) == {"10.244.1.5:8080"}
    elsewhere = trace((local, [B]))
    assert elsewhere.send(sent).end == "dropped"
    assert elsewhere.send(packet(OUTSIDE, NODE, 30080, came_from="outside")).to == "10.244.2.5:8080"


def test_load_balancer_source_ranges(trace, packet):
    balanced = port(load_balancer_ips=("198.51.100.2",), source_ranges=("203.0.113.0/24",), node_port=30080)
    made = trace((balanced, [A]))
    good = made.send(packet(OUTSIDE, "198.51.100.2", 80, came_from="outside"))
    assert (good.to, good.masqueraded) == ("10.244.1.5:8080", True)
    assert made.send(packet("192.0.2.1", "198.51.100.2", 80, came_from="outside")).end == "dropped"
    assert made.send(packet("192.0.2.1", NODE, 30080, came_from="outside")).to == "10.244.1.5:8080"


def test_affinity_prefers_the_endpoint_of_last_time(trace, packet):
    sticky = port(affinity_s=10800)
    made = trace((sticky, [A, B]))
    sent = packet(POD, "10.96.0.20", 80)
    for endpoint in (A, B):
        name = rules.endpoint_chain(sticky.name, endpoint)
        assert {made.send(sent, pick, recent=[name]).to for pick in range(3)} == {str(endpoint)}
    assert len(made.spread(sent)) == 2


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_protocols(trace, packet, protocol):
    made = trace((port(protocol=protocol), [A]))
    assert made.send(packet(POD, "10.96.0.20", 80, protocol.lower())).to == "10.244.1.5:8080"


def test_chain_names_are_kube_proxys():
    """`default/kubernetes:https` is KUBE-SVC-NPX46M4PTMTKRN6Y on every Kubernetes node there is."""
    name = PortName(ServiceName("default", "kubernetes"), "https", "TCP")
    assert rules.service_chain("KUBE-SVC-", name) == "KUBE-SVC-NPX46M4PTMTKRN6Y"
    assert len(rules.endpoint_chain(name, A)) < 29


STEPS = [
    [],
    [(port(), [A])],
    [(port(), [A, B]), (port("db", "10.96.0.21", 5432), [B])],
    [(port(affinity_s=10), [A, B]), (port("db", "10.96.0.21", 5432), [])],
    [(port(node_port=30080), [B]), (port("db", "10.96.0.21", 5432, internal_local=True), [B])],
    [(port("heir", "10.96.0.20"), [B])],
    [(port("heir", "10.96.0.20", external_local=True, node_port=30080), [])],
]


@pytest.mark.parametrize("first", range(len(STEPS)))
@pytest.mark.parametrize("second", range(len(STEPS)))
def test_a_difference_leads_where_a_full_write_leads(tracer, first, second):
    settings = Settings(CIDR)
    before, after = ruleset(*STEPS[first]), ruleset(*STEPS[second])
    made = tracer(transaction.full(before.values(), settings, ()), ())
    made.feed(transaction.difference(before, after))
    fresh = tracer(transaction.full(after.values(), settings, ()), ())
    assert {k: sorted(v) for k, v in made.chains.items()} == {k: sorted(v) for k, v in fresh.chains.items()}
    last = made.chains["nat", "KUBE-SERVICES"][-1]
    assert "KUBE-NODEPORTS" in last  # must stay behind all Services
    if first == second:
        assert transaction.difference(before, after) == ""


@pytest.mark.parametrize(("first", "second"), [([], [A]), ([A], []), ([A], [B])])
def test_no_packet_escapes_between_two_tables(tracer, packet, first, second):
    """iptables-restore commits table by table. A connection that starts between two of them is served or refused; one
    that escaped to the default route would wait a second for its second try."""
    settings, service = Settings(CIDR), port(node_port=30080)
    before, after = ruleset((service, first)), ruleset((service, second))
    made = tracer(transaction.full(before.values(), settings, ()), rules.jumps())
    ends = {f"{e}" for e in [*first, *second]}
    tables = [part + "COMMIT\n" for part in transaction.difference(before, after).split("COMMIT\n") if part]
    for part in tables:
        made.feed(part)
        for way in (packet(POD, "10.96.0.20", 80), packet(OUTSIDE, NODE, 30080, came_from="outside")):
            fate = made.send(way)
            assert fate.end == "refused" or fate.to in ends


def test_a_full_write_deletes_what_an_earlier_life_left(tracer):
    made = tracer(transaction.full(ruleset((port(), [A])).values(), Settings(CIDR), ()), ())
    found = [chain for table, chain in made.chains if table == "nat"]
    made.feed(transaction.full([PortRules()], Settings(CIDR), [*found, "KUBE-KUBELET-CANARY", "DOCKER"]))
    assert not [chain for _, chain in made.chains if chain.startswith(("KUBE-SVC", "KUBE-SEP"))]


def test_a_change_at_thousands_of_services_is_a_few_lines():
    many = [(port(f"s{i}", f"10.96.{i // 250}.{i % 250}"), [A, B]) for i in range(2000)]
    before = ruleset(*many[:-1])
    after = ruleset(*many)
    changed = {name: made for name, made in after.items() if name not in before}
    assert len(transaction.difference({}, changed).splitlines()) < 20
