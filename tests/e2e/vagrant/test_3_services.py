"""Services on real machines, in both modes: the example from nodes, pods and the host; the behaviour suite."""

import ipaddress

import pytest

from tests.e2e.behaviour import services
from tests.e2e.vagrant import lab as labs

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.e2e]
NODES = {"node-1": "192.168.56.11", "node-2": "192.168.56.12", "node-3": "192.168.56.13"}
SUITE = "node-3"
TRIES = 24
SETTINGS = "/etc/wherry/netproxy.yaml"


@pytest.fixture(scope="module")
def example(lab) -> str:
    """The example runs; its ClusterIP."""
    lab.kubectl("apply", "-f", "vagrant/example/hello.yaml")
    lab.kubectl("rollout", "status", "deployment/hello", "--timeout=240s", timeout=260)
    extra = " ".join(labs.EXTRA_PACKAGES)
    lab.machine(SUITE).run(f"WHERRY_OFFLINE=/offline /vagrant/vagrant/provision/10-packages.sh {extra}", timeout=300)
    services.send(lab.machine(SUITE))
    return lab.json("get", "service", "hello")["spec"]["clusterIP"]


@pytest.fixture(scope="module", params=services.MODES)
def mode(request, lab, example) -> str:
    """Every machine's proxy in one mode, switched as an administrator does it: a setting and a restart."""
    for name in NODES:
        lab.machine(name).run(
            f"sed -i /^proxy_mode:/d {SETTINGS} && echo 'proxy_mode: {request.param}' >>{SETTINGS} && "
            "systemctl restart wherry-netproxy"
        )
    return request.param


def fetch(url: str, tries: int = TRIES) -> str:
    """A program that asks `url` so often, each time on a connection of its own, and prints the answers."""
    return f"""
import urllib.request
for _ in range({tries}):
    print(urllib.request.urlopen("{url}", timeout=10).read().decode(), end="")
"""


def pods(lab) -> set[str]:
    found = lab.json("get", "pods", "-l", "app=hello", "--field-selector=status.phase=Running")["items"]
    return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


def said_by(answers: str) -> set[str]:
    """The pods that answered: `hello from POD on NODE`."""
    return {line.split()[2] for line in answers.splitlines() if line.startswith("hello from ")}


def test_every_node_reaches_every_pod_by_the_cluster_ip(lab, mode, example):
    for name in NODES:
        answers = lab.machine(name).run("python3 -", stdin=fetch(f"http://{example}/"))
        assert said_by(answers) == pods(lab), name


def test_the_host_reaches_every_pod_by_every_nodes_port(lab, mode, example):
    for name, address in NODES.items():
        done = lab.enter(["python3", "-"], 120, fetch(f"http://{address}:30080/"))
        assert said_by(done.stdout) == pods(lab), name + done.stderr


def test_a_pod_reaches_the_service_itself_among_others(lab, mode, example):
    """The last is the hairpin: out to the ClusterIP and back in to the pod that asked."""
    for pod in sorted(pods(lab)):
        script = f"for i in $(seq {TRIES}); do wget -q -O - http://{example}/; done"
        answers = lab.kubectl("exec", pod, "--", "sh", "-c", script)
        assert said_by(answers) == pods(lab), pod


def test_the_kernel_is_programmed_in_this_mode_and_no_other(lab, mode, example):
    virtual = f"{int(ipaddress.ip_address(example)):08X}:0050"
    for name in NODES:
        machine = lab.machine(name)
        table = machine.run("cat /proc/net/ip_vs 2>/dev/null || true")
        rules = machine.run("iptables -t nat -S")
        assert (virtual in table) == (mode == "ipvs"), name
        assert ("KUBE-SVC-" in rules) == (mode == "iptables"), name


def test_the_behaviour_suite(lab, mode, stopwatch):
    with stopwatch(f"behaviour suite, {mode}"):
        print(mode, services.behave(lab.machine(SUITE), mode))
