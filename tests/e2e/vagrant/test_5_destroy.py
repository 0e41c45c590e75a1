"""One machine is destroyed and made again under its old name; then all are, and nothing is left."""

import os

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.e2e]


def test_a_destroyed_worker_joins_again_under_its_old_name(lab, eventually, stopwatch):
    key = lab.machine("node-3").run("sha256sum /var/lib/wherry/identity/nodeagent/nodeagent.pem").split()[0]
    lab.vagrant("destroy", "-f", "node-3")
    with stopwatch("vagrant up of one destroyed worker"):
        said = lab.vagrant("up", timeout=1800)
    lab.learn_ssh()
    eventually("three nodes are ready", lambda: lab.ready_nodes() == {"node-1", "node-2", "node-3"})
    assert "node node-3 Ready" in said
    assert lab.machine("node-3").run("sha256sum /var/lib/wherry/identity/nodeagent/nodeagent.pem").split()[0] != key
    lab.kubectl("delete", "pod", "-l", "app=hello", "--grace-period=1")
    lab.kubectl("rollout", "status", "deployment/hello", "--timeout=240s", timeout=260)


@pytest.mark.skipif("WHERRY_VAGRANT_LAB" in os.environ, reason="a lab that shall stay up")
def test_destroy_leaves_nothing(lab, stopwatch):
    with stopwatch("vagrant destroy"):
        lab.vagrant("destroy", "-f")
    virsh = lab.hypervisor.virsh
    assert virsh("list", "--all", "--name").split() == []
    assert virsh("net-list", "--all", "--name").split() == []
    images = [line.split()[0] for line in virsh("vol-list", "default").splitlines() if line.strip()]
    assert all("_vagrant_box_image_" in image for image in images), images  # the box itself, as Vagrant keeps boxes
    programs = [line.split()[0].rpartition("/")[2] for line in lab.hypervisor.processes() if line]
    assert not [program for program in programs if program.startswith(("qemu", "dnsmasq"))], programs
    assert set(lab.states().values()) == {"not_created"}
