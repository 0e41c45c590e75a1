"""IPVS mode's sets and rules, and taking them away: in every kernel that has ipset, also without ip_vs."""

import pytest

from netproxy import leftovers
from netproxy.backend import BackendError
from netproxy.iptables import rules as iptables
from netproxy.iptables import transaction
from netproxy.iptables.tool import Iptables, insertions
from netproxy.ipvs import rules, sets, wire
from netproxy.ipvs.kernel import LinuxKernel, execute
from netproxy.ipvs.operations import AddMember, CreateSet, DestroySet, RemoveMember
from netproxy.ipvs.plan import Settings
from tests.linux.network_lab import Corner

pytestmark = pytest.mark.root
MEMBERS = {
    "hash:ip,port": {"10.96.0.1,tcp:80", "10.96.0.1,udp:53", "10.96.0.2,sctp:3868"},
    "hash:ip,port,ip": {"10.244.0.1,tcp:8080,10.244.0.1"},
    "hash:ip,port,net": {"10.96.0.1,tcp:80,203.0.113.0/24", "10.96.0.1,tcp:80,192.0.2.7"},
    "bitmap:port": {"1", "32000", "65535"},
    "hash:ip": {"10.96.0.1"},
}


@pytest.fixture
def corner():
    made = Corner()
    made.run("ip link set lo up")
    yield made
    made.close()


@pytest.fixture
def kernel(corner):
    """Its sets are there and empty."""
    made = corner.call(LinuxKernel)
    try:
        corner.call(execute, [CreateSet(name) for name in sets.SETS], made)
    except BackendError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def found(kernel):
    members = {}
    for payload in kernel._netfilter.dump(wire.SET_LIST, wire.ipset_list()):
        name, _, _, some = wire.read_set(payload)
        members.setdefault(name, set()).update(some)
    return members


def test_members_of_every_kind_of_set(corner, kernel):
    wanted = {name: MEMBERS[kind] for name, kind in sets.SETS.items()}
    corner.call(execute, [AddMember(name, m) for name, members in wanted.items() for m in members], kernel)
    assert found(kernel) == wanted
    assert kernel.set_sizes() == {name: len(members) for name, members in wanted.items()}
    with pytest.raises(BackendError, match="exists"):
        corner.call(execute, [AddMember(sets.HEALTH_CHECK, "1")], kernel)
    corner.call(execute, [RemoveMember(name, m) for name, members in wanted.items() for m in members], kernel)
    assert not any(found(kernel).values())


@pytest.mark.parametrize("settings", [Settings(), Settings("10.244.0.0/16"), Settings(masquerade_all=True)])
def test_iptables_takes_the_rules_and_other_modes_take_them_away(corner, kernel, settings):
    tool = Iptables()

    def save():
        return {table: tool.save(table) for table in ("filter", "nat", "mangle")}

    def write(text, jumps):
        tool.restore(text + insertions(jumps, save()))

    corner.call(write, rules.text(settings), rules.jumps())
    once = corner.run("iptables-save")
    corner.call(write, rules.text(settings), rules.jumps())
    assert lines(corner.run("iptables-save")) == lines(once)
    with pytest.raises(BackendError, match="in use"):
        corner.call(execute, [DestroySet(sets.CLUSTER_IP)], kernel)
    # iptables mode comes: it writes, and then takes away what is not its own.
    before = corner.call(save)
    corner.call(write, transaction.full([], iptables.Settings(), ()), iptables.jumps())
    corner.call(leftovers.of_other_mode, tool, "iptables", before)
    now = corner.run("iptables-save")
    assert "KUBE-IPVS-FILTER" not in now and "match-set" not in now and "KUBE-NODE-PORT " not in now
    assert "KUBE-NODEPORTS" in now and "KUBE-POSTROUTING" in now
    corner.call(execute, [DestroySet(name) for name in sets.SETS if name in corner.run("ipset list -n")], kernel)
    # And back.
    corner.call(execute, [CreateSet(name) for name in sets.SETS], kernel)
    before = corner.call(save)
    corner.call(write, rules.text(settings), rules.jumps())
    assert corner.call(leftovers.of_other_mode, tool, "ipvs", before)
    assert lines(corner.run("iptables-save")) == lines(once)


def lines(saved):
    return {line.split("[")[0] for line in saved.splitlines() if not line.startswith("#")}
