"""Machines go and come back (last of all: it takes longest, and everything else wants them up)."""

import pytest

from tests.e2e.machines.fleet import until
from tests.e2e.machines.site import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def test_everything_comes_back_after_a_reboot_and_after_a_power_failure(whole: Site) -> None:
    """The control plane reboots in order while a worker loses power; nobody does anything about it."""
    boots = {m.name: m.run("cat", "/proc/sys/kernel/random/boot_id") for m in (whole.n1, whole.n2)}
    restarts = {name: pod["restarts"] for name, pod in whole.example_pods().items()}
    leader = whole.n1.leader
    uid = whole.json("get", "node", "n2")["metadata"]["uid"]
    whole.n1.run("systemctl", "--no-block", "reboot")
    whole.n2.cut_power()
    until(lambda: whole.n1.leader != leader, "n1 has gone down")
    whole.n2.start()
    for machine in (whole.n1, whole.n2):
        machine.wait_up()
        assert set(machine.run("systemctl", "is-active", *whole.units(machine), check=False).split()) == {"active"}
        assert machine.run("cat", "/proc/sys/kernel/random/boot_id") != boots[machine.name]
    until(lambda: whole.ready_nodes() == {"n1", "n2", "n3"}, "three nodes are Ready")
    assert whole.json("get", "node", "n2")["metadata"]["uid"] == uid
    until(
        lambda: {p["node"] for p in whole.example_pods().values() if p["ready"]} == {"n1", "n2", "n3"},
        "the example runs on every machine",
    )
    pods = whole.example_pods()
    assert pods.keys() == restarts.keys()  # the same pods, their containers started again where the machine was
    assert {p["node"] for name, p in pods.items() if p["restarts"] > restarts[name]} == {"n1", "n2"}
    cluster_ip = whole.json("get", "service", "hello")["spec"]["clusterIP"]
    for machine in whole.machines:
        for url in (f"http://{cluster_ip}/", f"http://{whole.n1.address}:30080/"):
            until(lambda m=machine, u=url: whole.answers(m, u), f"{url} answers {machine.name}")
