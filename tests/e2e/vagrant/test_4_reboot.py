"""Machines that go down and come back: everything is there again without anybody's hand."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.e2e]
PROJECT_EXAMPLE = "vagrant/example/hello.yaml"


@pytest.fixture(scope="module", autouse=True)
def example(lab):
    lab.kubectl("apply", "-f", PROJECT_EXAMPLE)
    lab.kubectl("rollout", "status", "deployment/hello", "--timeout=240s", timeout=260)


def answers(lab, name: str) -> bool:
    """The example's NodePort on the machine `name`, asked from the host."""
    address = {"node-1": "192.168.56.11", "node-2": "192.168.56.12", "node-3": "192.168.56.13"}[name]
    program = f"import urllib.request as u; print(u.urlopen('http://{address}:30080/', timeout=5).read().decode())"
    return lab.enter(["python3", "-c", program], 30).stdout.startswith("hello from ")


def reboot(lab, name: str, eventually) -> None:
    """As the machine's own administrator would: not by Vagrant."""
    machine = lab.machine(name)
    before = machine.boot_id()
    machine.attempt("systemctl reboot")
    lab.enter([*lab.ssh(), "-O", "exit", name], 30)

    def another_boot() -> bool:
        done = machine.attempt("cat /proc/sys/kernel/random/boot_id", timeout=30)
        return done.returncode == 0 and done.stdout.strip() != before

    eventually(f"{name} has booted", another_boot, 300)


def settled(lab) -> bool:
    pods = lab.json("get", "pods", "-l", "app=hello")["items"]
    ready = [p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"])]
    return len(ready) == len(pods) == 3 and len(lab.ready_nodes()) == 3


def test_a_worker_reboots(lab, eventually, stopwatch):
    restarts = {p["metadata"]["name"] for p in lab.json("get", "pods", "-l", "app=hello")["items"]}
    with stopwatch("reboot of a worker, until its pods serve"):
        reboot(lab, "node-3", eventually)
        eventually("node-3 and its pods are back", lambda: settled(lab), 300)
        eventually("its NodePort answers", lambda: answers(lab, "node-3"))
    after = lab.json("get", "pods", "-l", "app=hello")["items"]
    assert {p["metadata"]["name"] for p in after} == restarts, "the same pods, restarted in place"


def test_the_control_plane_reboots(lab, eventually, stopwatch):
    """Meanwhile the others serve; afterwards the cluster is what it was, and takes orders."""
    stamp = lab.json("get", "deployment", "hello")["metadata"]["uid"]
    with stopwatch("reboot of the control plane, until it takes orders"):
        machine = lab.machine("node-1")
        before = machine.boot_id()
        machine.attempt("systemctl reboot")
        lab.enter([*lab.ssh(), "-O", "exit", "node-1"], 30)
        eventually("the workers serve without it", lambda: answers(lab, "node-2"), 60)
        eventually(
            "node-1 has booted",
            lambda: machine.attempt("cat /proc/sys/kernel/random/boot_id").stdout.strip() not in ("", before),
            300,
        )
        eventually("all is back", lambda: settled(lab), 300)
    assert lab.json("get", "deployment", "hello")["metadata"]["uid"] == stamp
    lab.kubectl("scale", "deployment/hello", "--replicas=4")
    lab.kubectl("rollout", "status", "deployment/hello", "--timeout=180s", timeout=200)
    lab.kubectl("scale", "deployment/hello", "--replicas=3")
    eventually("node-1 serves", lambda: answers(lab, "node-1"))


def test_reload_and_halt_and_up(lab, eventually, stopwatch):
    with stopwatch("vagrant reload node-2"):
        lab.vagrant("reload", "node-2", timeout=900)
    lab.vagrant("halt", "node-3")
    assert lab.states() == {"node-1": "running", "node-2": "running", "node-3": "shutoff"}
    with stopwatch("vagrant up of a halted machine"):
        lab.vagrant("up", "node-3", timeout=900)
    lab.learn_ssh()
    eventually("all is back", lambda: settled(lab), 300)
