"""Three machines, provisioned by vagrant/provision/machine as anybody's would be: n1 control plane and worker, n2, n3
workers. Made once a session; without systemd-nspawn and mmdebstrap (or root) these tests are skipped, and say so."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.machines import root
from tests.e2e.machines.fleet import Machine, fleet, until
from tests.e2e.machines.site import Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    if os.geteuid() or not shutil.which("systemd-nspawn") or not shutil.which("mmdebstrap"):
        pytest.skip("needs root, systemd-nspawn and mmdebstrap (tests/run installs them)")
    with ThreadPoolExecutor(3) as both:
        made = both.submit(root.tree), both.submit(root.offline)
        tree, offline = (each.result() for each in made)
    with fleet(tree, {offline: "/offline"}) as machines:
        wheels = machines.place / "wheels"
        wheels.mkdir()
        machines.shared[wheels] = "/wheels"
        n1, n2, n3 = (machines.add(name) for name in ("n1", "n2", "n3"))
        for machine in machines.machines:
            machine.start()
        found = Site(machines, n1, n2, n3, machines.place / "admin.conf")
        with ThreadPoolExecutor(3) as together:
            building = together.submit(root.wheel, wheels, offline)
            for machine in machines.machines:
                machine.wait_up()
            building.result()
            # Both cores: the workers' installation does not need the control plane.
            waiting = [together.submit(found.install_only, machine) for machine in (n2, n3)]
            found.make_control_plane()
            for each in waiting:
                each.result()
        words = found.join_words()
        _, _, found.first_token, _, found.pin = words.split()
        found.make_node(n2, words)
        yield found


@pytest.fixture
def outsider(site: Site) -> Machine:
    """A machine with everything installed that belongs to no cluster."""
    assert not site.joined(site.n3), "these tests come before those that need all three machines"
    return site.n3


@pytest.fixture(scope="session")
def whole(site: Site) -> Site:
    """All three joined and Ready, and the example runs on each."""
    if not site.joined(site.n3):
        site.make_node(site.n3, site.join_words())
    until(lambda: site.ready_nodes() == {"n1", "n2", "n3"}, "three nodes are Ready")
    site.kubectl("apply", "-f", str(root.PROJECT / "vagrant/example/hello.yaml"))
    until(
        lambda: {p["node"] for p in site.example_pods().values() if p["ready"]} == {"n1", "n2", "n3"},
        "the example runs on every machine",
    )
    return site


@pytest.fixture
def processes(whole: Site) -> Callable[[Machine], set[int]]:
    """A function: the pids of the example's containers on a machine, in the machine's own numbers."""

    def pids(machine: Machine) -> set[int]:
        return {int(pid) for pid in machine.run("pgrep", "-x", "httpd").split()}

    return pids
