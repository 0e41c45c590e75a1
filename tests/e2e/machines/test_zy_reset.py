"""A machine leaves the cluster by `wherry reset`, and nothing of its being a node stays; then it joins once more."""

import pytest

from tests.e2e.machines.fleet import until
from tests.e2e.machines.site import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def test_a_reset_machine_is_clean_and_joins_again_under_its_name(whole: Site) -> None:
    machine = whole.n3
    machine.run("wherry", "reset", "--yes")
    states = machine.run("systemctl", "is-active", *whole.units(machine), check=False).split()
    assert set(states) == {"inactive"}
    assert machine.result("pgrep", "-x", "httpd").returncode == 1
    assert machine.result("pgrep", "-f", "zygote").returncode == 1
    for path in ("/etc/wherry/nodeagent.yaml", "/etc/wherry/netproxy.conf", "/var/lib/wherry/identity/nodeagent"):
        assert not machine.path(path).exists(), path
    links = machine.run("ip", "-br", "link")
    assert "wherry" not in links
    rules = machine.run("iptables-save")
    assert not [line for line in rules.splitlines() if "KUBE" in line or "WHERRY" in line]
    assert "10.244." not in machine.run("ip", "route")

    whole.kubectl("delete", "node", "n3")  # else joining waits until the cluster has noticed: 40 s
    whole.make_node(machine, whole.join_words())
    assert "node n3 Ready" in whole.said["n3"]
    until(lambda: whole.ready_nodes() == {"n1", "n2", "n3"}, "three nodes are Ready")
    until(lambda: all(p["ready"] for p in whole.example_pods().values()), "the example is ready")
