"""A reset machine joins again while the cluster still calls its Node Ready: it waits, then takes the Node over."""

import pytest

from tests.e2e.machines.fleet import until
from tests.e2e.machines.site import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow]  # joining waits until the old node is silent


def test_a_node_is_taken_over_once_nobody_is_behind_it(whole: Site) -> None:
    machine = whole.n3
    uid = whole.json("get", "node", "n3")["metadata"]["uid"]
    until(lambda: any(p["node"] == "n3" and p["ready"] for p in whole.example_pods().values()), "a pod runs on n3")
    said = machine.run("wherry", "reset", "--yes")
    assert "sandboxes removed" in said and "in no cluster" in said
    mounts = [line.split()[1] for line in machine.run("cat", "/proc/mounts").splitlines()]
    assert not [m for m in mounts if m.startswith(("/var/lib/wherry/", "/run/wherry/"))], mounts
    assert "/opt/wherry" not in machine.run("ps", "-eo", "args")

    # Its Node is still called Ready for a while; joining waits until it is clear that nobody is behind it.
    whole.make_node(machine, whole.join_words())
    until(lambda: whole.ready_nodes() == {"n1", "n2", "n3"}, "n3 is Ready again")
    assert whole.json("get", "node", "n3")["metadata"]["uid"] == uid
    until(lambda: {p["node"] for p in whole.example_pods().values() if p["ready"]} >= {"n3"}, "and runs pods", 90)
