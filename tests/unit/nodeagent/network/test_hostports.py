import pytest

from nodeagent.network.hostports import HOSTPORT_MASQ, HOSTPORTS, HostPorts, PortTaken
from nodeagent.runtime.interface import PortMapping


class Iptables:
    """Keeps the last rules of every chain."""

    def __init__(self):
        self.chains, self.jumps = {}, set()

    def replace(self, chains):
        self.chains.update({chain.name: list(chain.rules) for chain in chains})

    def ensure(self, jump):
        self.jumps.add((jump.source, jump.rule[-1]))


@pytest.fixture
def ports(tmp_path):
    made = HostPorts(str(tmp_path), Iptables())
    made.again = lambda: HostPorts(str(tmp_path), Iptables())
    return made


def test_published_ports_survive_a_restart_and_withdraw_leaves_none(ports):
    ports.publish("a" * 64, "10.244.1.5", [PortMapping(80, 8080), PortMapping(81, 0)])
    ports.publish("a" * 64, "10.244.1.5", [PortMapping(80, 8080), PortMapping(81, 0)])
    assert [rule.split()[-1] for rule in ports._iptables.chains[HOSTPORTS]] == ["10.244.1.5:80"]
    again = ports.again()
    again.sync()
    assert again._iptables.chains == ports._iptables.chains
    assert ("PREROUTING", HOSTPORTS) in again._iptables.jumps
    again.withdraw("a" * 64)
    again.withdraw("a" * 64)
    assert again._iptables.chains == {HOSTPORTS: [], HOSTPORT_MASQ: []}
    assert ports.again().sandboxes() == []


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (PortMapping(1, 8080), True),
        (PortMapping(1, 8080, host_ip="10.0.0.2"), True),
        (PortMapping(1, 8080, "UDP"), False),
        (PortMapping(1, 8081), False),
    ],
)
def test_a_port_belongs_to_one_pod(ports, other, taken):
    ports.publish("a", "10.244.1.5", [PortMapping(80, 8080)])
    if taken:
        with pytest.raises(PortTaken, match="8080"):
            ports.publish("b", "10.244.1.6", [other])
        assert ports.sandboxes() == ["a"]
    else:
        ports.publish("b", "10.244.1.6", [other])


def test_different_addresses_share_a_port(ports):
    ports.publish("a", "10.244.1.5", [PortMapping(80, 8080, host_ip="10.0.0.1")])
    ports.publish("b", "10.244.1.6", [PortMapping(80, 8080, host_ip="10.0.0.2")])
    assert [rule.split()[1] for rule in ports._iptables.chains[HOSTPORTS]] == ["10.0.0.1/32", "10.0.0.2/32"]
