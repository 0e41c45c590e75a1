"""The lab itself: up, status, growing, shrinking; what survives, what is left behind, what it says when it cannot.

Beside other labs: everything here has a name of its own.
"""

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.lab.spec import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.root]

NAME = "t" + format(os.getpid() % 36**6, "x")  # two runs of this file may go on at once
LAB = Lab(name=NAME)
EXAMPLE = Path(__file__).parents[3] / "vagrant" / "example" / "hello.yaml"
KUBECTL = str(Path(sys.executable).parent / "kubectl")
COMPONENTS = {"node-1": {"init", "apiserver", "controllers", "scheduler", "runtime", "nodeagent", "netproxy"},
              "node-2": {"init", "runtime", "nodeagent", "netproxy"},
              "node-3": {"init", "runtime", "nodeagent", "netproxy"}}  # fmt: skip


def wherry(*args: str, lab: str = NAME, code: int = 0, prefix: tuple[str, ...] = (), **env: str) -> str:
    command = [*prefix, sys.executable, "-m", "controlplane.cli.main", "--lab", lab, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env={**os.environ, **env})
    said = done.stdout + done.stderr
    assert done.returncode == code, f"exit {done.returncode}\n{said}"
    assert "Traceback" not in said, said
    return said


def status() -> Any:
    return json.loads(wherry("status", "-o", "json"))


def pid(component: str, node: str = "") -> int:
    return next(int(p["pid"]) for p in status()["processes"] if (p["component"], p["node"]) == (component, node))


def kubectl(*args: str) -> str:
    done = subprocess.run([KUBECTL, "--kubeconfig", str(LAB.kubeconfig), *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ready_nodes() -> list[str]:
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    return [
        n["metadata"]["name"] for n in nodes
        if any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"]["conditions"])
    ]  # fmt: skip


def text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it ended while we looked
        return ""


def descends(process: Path, cgroup: str) -> bool:
    return f"/{cgroup}/" in text(process / "cgroup") + "/"


def traces(namespaces: set[str]) -> dict[str, list[str]]:
    """Whatever of the lab is on the machine, by kind. `namespaces`: links like `net:[4026532]` that were the lab's."""
    found: dict[str, list[str]] = {}
    # A zombie has ended; taking note of it is up to the machine's process 1 if the lab's supervisor was killed.
    processes = [p for p in Path("/proc").iterdir() if p.name.isdigit() and ") Z " not in text(p / "stat")]
    found["processes"] = [
        f"{p.name} {text(p / 'cmdline')}" for p in processes
        if descends(p, LAB.cgroup) or f"--lab {NAME} " in text(p / "cmdline")
        or (text(p / "comm").strip() in {"wherry-lab"} and str(LAB.root) in " ".join(links(p / "fd")))
    ]  # fmt: skip
    found["namespaces"] = sorted(namespaces & {link for p in processes for link in links(p / "ns")})
    found["mounts"] = [
        line for p in processes for line in text(p / "mountinfo").splitlines()
        if str(LAB.root) in line or str(LAB.run) in line or f"/{LAB.cgroup}" in line
    ]  # fmt: skip
    found["cgroups"] = [
        os.path.join(at, name) for at, names, _ in os.walk("/sys/fs/cgroup") for name in names if name == LAB.cgroup
    ]
    found["interfaces"] = [n for n in os.listdir("/sys/class/net") if n.startswith(LAB.bridge)]
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    found["rules"] = [
        line for line in rules.splitlines() if f"{LAB.chain} " in line + " " or LAB.subnet in line or LAB.bridge in line
    ]
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    found["routes"] = [line for line in routes.splitlines() if LAB.bridge in line]
    found["sockets"] = [line for line in text(Path("/proc/net/unix")).splitlines() if str(LAB.run) in line]
    found["files"] = [str(p) for p in Path("/run").glob(LAB.run.name)]
    return {kind: what for kind, what in found.items() if what}


def links(directory: Path) -> list[str]:
    result = []
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            with contextlib.suppress(OSError):
                result.append(os.readlink(entry))
    return result


def lab_namespaces() -> set[str]:
    """The namespaces of all the lab's processes that are not the machine's own."""
    ours = set(links(Path("/proc/self/ns")))
    every = (p for p in Path("/proc").iterdir() if p.name.isdigit() and descends(p, LAB.cgroup))
    return {link for p in every for link in links(p / "ns")} - ours


@pytest.fixture
def lab() -> Iterator[None]:
    """A three-node lab that runs; no test leaves one behind."""
    try:
        wherry("up", "--nodes", "3")
        yield
    finally:
        wherry("down", "--purge")


@pytest.fixture(autouse=True, scope="module")
def nothing_stays() -> Iterator[None]:
    yield
    wherry("down", "--purge")
    assert traces(set()) == {}
    assert not LAB.root.exists()


def test_status_tells_the_truth(lab: None) -> None:
    told = status()
    assert told["api"] == LAB.api_url and told["kubeconfig"] == wherry("kubeconfig").strip()
    assert [n["name"] for n in told["nodes"]] == ["node-1", "node-2", "node-3"]
    for process in told["processes"]:
        assert {"component", "node", "pid", "state"} <= process.keys()
        assert process["state"] == "running"
        command = text(Path(f"/proc/{process['pid']}/cmdline"))
        assert process["component"] in command or process["component"] in ("init", "runtime")
        inside = process["component"] != "lab"
        assert descends(Path(f"/proc/{process['pid']}"), f"{LAB.cgroup}/{process['node']}") == inside
    for node, components in COMPONENTS.items():
        assert {p["component"] for p in told["processes"] if p["node"] == node} == components
    table = wherry("status")
    assert all(word in table for word in ("node-3", LAB.api_url, "apiserver", "running", str(LAB.kubeconfig)))
    assert ready_nodes() == ["node-1", "node-2", "node-3"]


def test_up_again_changes_nothing(lab: None) -> None:
    before = status()
    wherry("up")
    assert status() == before


def test_grow_and_shrink(lab: None) -> None:
    first = pid("apiserver", "node-1")
    wherry("up", "--nodes", "4")
    assert ready_nodes() == ["node-1", "node-2", "node-3", "node-4"]
    wherry("up", "--nodes", "2")
    assert ready_nodes() == ["node-1", "node-2"]
    assert kubectl("get", "nodes", "-o", "name").split() == ["node/node-1", "node/node-2"]
    assert {p["node"] for p in status()["processes"]} == {"", "node-1", "node-2"}
    wherry("down")
    wherry("up", "--nodes", "1")
    assert kubectl("get", "nodes", "-o", "name").split() == ["node/node-1"], "a node the lab no longer has"
    wherry("up", "--nodes", "3")
    assert ready_nodes() == ["node-1", "node-2", "node-3"]
    assert pid("apiserver", "node-1") != first


def test_one_node_off_and_on(lab: None) -> None:
    wherry("down", "node-3")
    assert {n["name"]: n["state"] for n in status()["nodes"]} == {"node-1": "up", "node-2": "up", "node-3": "off"}
    wherry("up", "node-3")
    assert {n["state"] for n in status()["nodes"]} == {"up"}
    assert "no node 'node-9'" in wherry("down", "node-9", code=1)
    assert "node-1, node-2, node-3" in wherry("up", "node-9", code=1)


def test_example_is_proven(lab: None) -> None:
    said = wherry("up", "--example", str(EXAMPLE))
    pods = kubectl("get", "pods", "-l", "app=hello", "-o", "name").split()
    assert len(pods) == 3
    for pod in pods:
        name = pod.removeprefix("pod/")
        assert said.count(f"hello from {name} on") == 4, "through the ClusterIP and each of three NodePorts"
    for node in LAB.nodes:
        assert f"NodePort http://{node.address}:30080/" in said
    assert f"export KUBECONFIG={LAB.kubeconfig}" in said


def test_down_leaves_nothing_but_data(lab: None) -> None:
    wherry("up", "--example", str(EXAMPLE))
    namespaces = lab_namespaces()
    running = traces(namespaces)
    expected = {"processes", "namespaces", "mounts", "cgroups", "interfaces", "rules", "routes", "sockets", "files"}
    assert running.keys() == expected, "the search itself must find a lab that runs"
    wherry("down")
    assert traces(namespaces) == {}
    assert LAB.kubeconfig.exists()
    assert "does not run" in wherry("status", code=3)
    assert json.loads(wherry("status", "-o", "json", code=3))["processes"] == []
    wherry("down")  # again: nothing to do, and no complaint
    wherry("down", "--purge")
    assert not LAB.root.exists()


def test_data_survives_down_and_not_purge(lab: None) -> None:
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    wherry("down")
    wherry("up")
    assert "kept" in kubectl("get", "configmaps", "-o", "name")
    wherry("down", "--purge")
    wherry("up")
    assert "kept" not in kubectl("get", "configmaps", "-o", "name")


def test_supervisor_killed(lab: None, eventually: Any) -> None:
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    namespaces, supervisor = lab_namespaces(), pid("lab")
    os.kill(supervisor, signal.SIGKILL)
    eventually("everything of the lab dies", lambda: not {"processes", "namespaces"} & traces(namespaces).keys(), 10)
    assert "does not run" in wherry("status", code=3)
    wherry("up")
    assert ready_nodes() == ["node-1", "node-2", "node-3"]
    assert "kept" in kubectl("get", "configmaps", "-o", "name")
    assert pid("lab") != supervisor
    os.kill(pid("lab"), signal.SIGKILL)
    wherry("down")  # at once, without an `up` between
    assert traces(lab_namespaces()) == {}


def test_corner_killed(lab: None, eventually: Any) -> None:
    for node in ("node-2", "node-1"):  # the worker, then the control plane
        init = pid("init", node)
        os.kill(init, signal.SIGKILL)

        def back(node: str = node, init: int = init) -> bool:
            rows = [p for p in status()["processes"] if p["node"] == node]
            return {p["component"] for p in rows} == COMPONENTS[node] and all(
                p["state"] == "running" and p["pid"] and p["pid"] != init for p in rows
            )

        eventually(f"{node} comes back", back)
        eventually("all nodes are Ready", lambda: len(ready_nodes()) == 3)


@pytest.mark.parametrize("component", ["apiserver", "controllers", "scheduler", "runtime", "nodeagent", "netproxy"])
def test_a_daemon_killed_is_started_again(lab: None, eventually: Any, component: str) -> None:
    before = pid(component, "node-1")
    os.kill(before, signal.SIGKILL)
    eventually(f"{component} is back", lambda: pid(component, "node-1") not in (0, before))
    eventually("it runs", lambda: all(p["state"] == "running" for p in status()["processes"]))


# --- what it says when it cannot ---------------------------------------------------------------------------------


def test_not_root() -> None:
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    for command in (["up"], ["down"]):
        said = wherry(*command, code=1, prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
        assert "not root" in said and "sudo" in said


def test_status_of_a_running_lab_needs_root(lab: None) -> None:
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    assert "not root" in wherry("status", code=1, prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
    assert "root only" in wherry("image", "ls", code=1, prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
    said = wherry("kubeconfig", prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
    assert said.startswith(f"{LAB.kubeconfig}\n") and "sudo install" in said  # the path alone on standard output


def test_bad_names_and_subnets() -> None:
    assert "lower-case letters and digits" in wherry("up", lab="Not_A_Name", code=1)
    for subnet, complaint in {
        "10.99.0.0/30": "too small", "nonsense": "nonsense", "10.99.0.7/24": "host bits", "fd00::/64": "IPv4",
        "10.244.0.0/20": "pods'", "10.96.5.0/24": "Services'",
    }.items():  # fmt: skip
        assert complaint in wherry("up", "--subnet", subnet, code=1)
    assert "Invalid value" in wherry("up", "--nodes", "0", code=2)
    assert not LAB.root.exists() and traces(set()) == {}


def test_subnet_in_use() -> None:
    link = f"dm-{NAME}"
    taken = ipaddress.ip_network(LAB.subnet)
    subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{taken[1]}/28", "dev", link], check=True)
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        said = wherry("up", code=1)
        assert "in use" in said and link in said and "--subnet" in said
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True)


def test_another_subnet_for_a_lab_that_exists(lab: None) -> None:
    assert "runs already" in wherry("up", "--subnet", "10.99.0.0/24", code=1)
    wherry("down")
    assert "--purge" in wherry("up", "--subnet", "10.99.0.0/24", code=1)


def test_missing_tools(tmp_path: Path) -> None:
    said = wherry("up", code=1, PATH=str(tmp_path))
    assert "iproute2" in said and "apt-get install" in said
    (tmp_path / "ip").symlink_to("/bin/true")  # plain `su` leaves root with /bin, but not /sbin
    said = wherry("up", code=1, PATH=str(tmp_path))
    assert "/usr/sbin is not on the PATH" in said and "su -" in said


def test_no_kubeconfig_before_the_first_up() -> None:
    assert "wherry up" in wherry("kubeconfig", code=1)


def test_damaged_settings() -> None:
    LAB.root.mkdir(parents=True)
    (LAB.root / "lab.json").write_text("{")
    try:
        assert "damaged" in wherry("up", code=1)
    finally:
        (LAB.root / "lab.json").unlink()
        LAB.root.rmdir()
