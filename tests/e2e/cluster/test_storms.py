"""Pods that storm, an API server that is away, agents that are killed all the time: neighbours and nodes bear it."""

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pki.layout import DEFAULT

pytestmark = [pytest.mark.e2e, pytest.mark.root]

NODE = "node-2"
STORM_S = 5.0

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1.35
    command: [sh, -c, {script!r}]
    {more}
"""
WEB = "readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 3, timeoutSeconds: 2}"


def pod(name: str, script: str, more: str = "") -> str:
    return POD.format(name=name, node=NODE, script=script, more=more)


@pytest.fixture
def neighbour(cluster, namespace: str) -> Iterator[str]:  # type: ignore[no-untyped-def]
    kubectl = cluster.kubectl()
    script = "mkdir /www && echo hello > /www/index.html && exec httpd -f -p 8080 -h /www"
    kubectl("apply", "-n", namespace, "-f", "-", stdin=pod("neighbour", script, WEB))
    kubectl("wait", "pod/neighbour", "-n", namespace, "--for=condition=Ready", "--timeout=30s")
    yield namespace


@pytest.mark.parametrize(
    ("name", "script", "more"),
    [
        ("fork-bomb", "f() { f & f & sleep 1; }; f & exec sleep 1000", "resources: {limits: {memory: 256Mi}}"),
        (
            "out-of-memory", 'while true; do (x=aaaaaaaaaaaaaaaa; while true; do x="$x$x"; done) & sleep 0.05; done',
            "resources: {limits: {memory: 32Mi}}",
        ),
    ],
    ids=["fork-bomb", "out-of-memory"],
)  # fmt: skip
def test_storm_in_a_pod(cluster, neighbour: str, name: str, script: str, more: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    kubectl = cluster.kubectl()
    ready = ("get", "pod", "neighbour", "-n", neighbour, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')]}")
    before = kubectl(*ready)
    kubectl("apply", "-n", neighbour, "-f", "-", stdin=pod(name, script, more))
    phase = ("get", "pod", name, "-n", neighbour, "-o", "jsonpath={.status.phase}")
    eventually("the storm has begun", lambda: kubectl(*phase) == "Running")
    until, slowest = time.monotonic() + STORM_S, 0.0
    while time.monotonic() < until:
        begun = time.monotonic()
        assert kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/healthz").strip() == "ok"
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 10
    assert kubectl("exec", "neighbour", "-n", neighbour, "--", "wget", "-qO-", "http://127.0.0.1:8080") == "hello\n"
    assert kubectl(*ready) == before  # not for a moment: the time of its last transition is the same
    node = kubectl("get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
    assert node == "True"
    kubectl("delete", "pod", name, "-n", neighbour, "--force", "--grace-period=0")
    eventually("the storm is over", lambda: name not in kubectl("get", "pods", "-n", neighbour, "-o", "name"))


def test_api_server_away_pods_run_on_and_statuses_catch_up(cluster, namespace: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    kubectl = cluster.kubectl()
    for name, script in (("ticks", "while true; do date +%s; sleep 0.2; done"), ("dies", "sleep 4; exit 3")):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=pod(name, script))
    field = "{.status.containerStatuses[0].restartCount}"
    for name in ("ticks", "dies"):
        kubectl("wait", f"pod/{name}", "-n", namespace, "--for=jsonpath={.status.phase}=Running", "--timeout=30s")
    count = int(kubectl("get", "pod", "dies", "-n", namespace, "-o", f"jsonpath={field}"))
    server, begun = cluster.pid("apiserver", "node-1"), time.time()
    os.kill(server, signal.SIGSTOP)
    try:
        time.sleep(7)  # nothing to wait for: the one who could tell is away
    finally:
        os.kill(server, signal.SIGCONT)
    back = time.time()

    def caught_up() -> bool:
        status = kubectl.json("get", "pod", "dies", "-n", namespace)["status"]["containerStatuses"][0]
        if status["restartCount"] <= count:
            return False
        ended = datetime.fromisoformat(status["lastState"]["terminated"]["finishedAt"]).timestamp()
        return bool(begun - 1 <= ended <= back + 30)

    eventually("the restart is told", caught_up)
    ticks = [int(line) for line in kubectl("logs", "ticks", "-n", namespace).split()]
    assert max(b - a for a, b in itertools.pairwise(ticks)) <= 2
    assert ticks[0] <= begun and ticks[-1] >= back - 2


def left_on(cluster) -> dict[str, set[str]]:  # type: ignore[no-untyped-def]
    """What pods have left on the node, by kind; seen through its agent's namespaces."""
    agent = cluster.pid("nodeagent", NODE)
    root = Path(f"/proc/{agent}/root")
    mounts = [line.split()[4] for line in Path(f"/proc/{agent}/mountinfo").read_text().splitlines()]
    inside = str(DEFAULT.agent_root)
    links = subprocess.run(["nsenter", "-t", str(agent), "-n", "ip", "-o", "link"], capture_output=True, text=True)
    kubepods = list(root.glob("sys/fs/cgroup/*/kubepods/*/pod*"))
    kubepods += root.glob("sys/fs/cgroup/kubepods/*/pod*")
    return {
        "mounts": {m for m in mounts if m.startswith(inside) and "/pods/" in m},
        "devices": {line.split()[1] for line in links.stdout.splitlines() if " veth" in line},
        "cgroups": {p.name for p in kubepods},
        "addresses": {p.name for p in Path(f"{root}{inside}/network/addresses").glob("*/*") if p.is_symlink()},
        "layers": set(os.listdir(f"{root}{inside}/containers")),
        "directories": {p.name for p in Path(f"{root}{inside}/pods").glob("*")},
        "sandboxes": set(os.listdir(f"{root}{DEFAULT.runtime_state}")),
    }


def test_agent_killed_all_the_time_while_pods_come_and_go(cluster, namespace: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    kubectl, chance = cluster.kubectl(), random.Random(20261121)
    others = left_on(cluster)  # of earlier tests' pods, which may still be ending
    volumes = "volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}]"
    manifest = "---".join(pod(f"pod-{n}", "sleep 1000", volumes) + VOLUMES for n in range(8))
    kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    kubectl("wait", "pods", "--all", "-n", namespace, "--for=condition=Ready", "--timeout=30s")
    assert all(left_on(cluster).values()), left_on(cluster)  # each of these is what a pod has
    for _ in range(3):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
        kill(cluster, chance.uniform(0, 0.4), eventually)
        kubectl("delete", "pods", "--all", "-n", namespace, "--wait=false")
        kill(cluster, chance.uniform(0, 0.4), eventually)
        eventually("the pods are gone", lambda: not kubectl("get", "pods", "-n", namespace, "-o", "name"), 60)

    def left() -> bool:
        found = {kind: names - others[kind] for kind, names in left_on(cluster).items() if names - others[kind]}
        assert not found, found
        return True

    eventually("nothing is left", left, 20)


VOLUMES = """\
  volumes: [{name: v, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]
"""


def kill(cluster, after_s: float, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    time.sleep(after_s)  # the point is to come at any moment
    pid = eventually("an agent", lambda: max(cluster.pid("nodeagent", NODE), 0))  # none while it waits to be started
    os.kill(pid, signal.SIGKILL)
    eventually("another agent", lambda: cluster.pid("nodeagent", NODE) not in (pid, 0))
