"""What fails, mends: containers, pods, agents, the API server, whole nodes. Real processes are killed with SIGKILL."""

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: web}}
      containers:
      - name: web
        image: busybox:1.35
        command: [sh, -c, 'mkdir /www && hostname > /www/index.html && exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


@pytest.fixture
def web(cluster, namespace: str) -> str:  # type: ignore[no-untyped-def]
    kubectl = cluster.kubectl()
    kubectl("apply", "-n", namespace, "-f", "-", stdin=SERVER)
    kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    return namespace


def answer(url: str) -> str:
    with urllib.request.urlopen(url, timeout=2) as response:
        return str(response.read().decode()).strip()


def node_url(cluster, namespace: str, node: int = 1) -> str:  # type: ignore[no-untyped-def]
    port = cluster.kubectl().json("get", "svc", "web", "-n", namespace)["spec"]["ports"][0]["nodePort"]
    return f"http://10.77.0.{10 + node}:{port}/"


def pods(cluster, namespace: str) -> list[dict]:  # type: ignore[no-untyped-def, type-arg]
    items = cluster.kubectl().json("get", "pods", "-n", namespace, "-l", "app=web")["items"]
    return [p for p in items if "deletionTimestamp" not in p["metadata"]]


def ready(pod: dict) -> bool:  # type: ignore[type-arg]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def test_killed_process_is_restarted_with_back_off(cluster, namespace: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    kubectl = cluster.kubectl()
    kubectl("run", "frail", "-n", namespace, "--image=busybox:1.35", "--", "sh", "-c", "sleep 1; exit 3")

    def status() -> dict:  # type: ignore[type-arg]
        return dict(kubectl.json("get", "pod", "frail", "-n", namespace)["status"]["containerStatuses"][0])

    eventually("one restart", lambda: status()["restartCount"] >= 1, 30)
    waiting = eventually("back-off", lambda: status()["state"].get("waiting"), 30)
    assert waiting["reason"] == "CrashLoopBackOff"
    assert status()["lastState"]["terminated"]["exitCode"] == 3


def test_deleted_pod_is_replaced(cluster, web: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    before = {p["metadata"]["name"] for p in pods(cluster, web)}
    victim = sorted(before)[0]
    cluster.kubectl()("delete", "pod", victim, "-n", web)
    names = eventually(
        "three ready again",
        lambda: [p["metadata"]["name"] for p in pods(cluster, web) if ready(p)] if len([
            p for p in pods(cluster, web) if ready(p)]) == 3 else None,
    )  # fmt: skip
    assert victim not in names


def test_containers_serve_while_the_agent_is_killed(cluster, web: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    before = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in pods(cluster, web)}
    url = node_url(cluster, web)
    failures: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answer(url)
            except OSError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for node in ("node-1", "node-2", "node-3"):
            old = cluster.pid("nodeagent", node)
            os.kill(old, signal.SIGKILL)
            eventually(f"the agent of {node} is back", lambda o=old, n=node: cluster.pid("nodeagent", n) not in (0, o))
    finally:
        stop.set()
        asking.join()
    assert failures == []
    kubectl = cluster.kubectl()
    name = sorted(before)[0]
    eventually("exec works again", lambda: kubectl("exec", name, "-n", web, "--", "hostname").strip() == name)
    after = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in pods(cluster, web)}
    assert after == before


def test_killed_api_server_loses_nothing(cluster, namespace: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    kubectl = cluster.kubectl()
    for i in range(5):
        kubectl("create", "cm", f"kept-{i}", "-n", namespace, f"--from-literal=i={i}")
    old = cluster.pid("apiserver", "node-1")
    os.kill(old, signal.SIGKILL)
    eventually("the API server answers again", lambda: kubectl("get", "--raw", "/readyz") == "ok")
    found = {c["metadata"]["name"]: c["data"] for c in kubectl.json("get", "cm", "-n", namespace)["items"]}
    assert {name: data["i"] for name, data in found.items() if name.startswith("kept-")} == {
        f"kept-{i}": str(i) for i in range(5)
    }
    eventually("nodes are Ready", lambda: kubectl("get", "nodes", "--no-headers").count(" Ready") == 3)
    kubectl("run", "after", "-n", namespace, "--image=busybox:1.35", "--restart=Never", "--", "true")
    kubectl("wait", "pod/after", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")


@pytest.mark.parametrize("component", ["scheduler", "controllers", "netproxy", "runtime"])
def test_killed_component_is_started_again(cluster, namespace: str, component: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    old = cluster.pid(component, "node-1")
    os.kill(old, signal.SIGKILL)
    eventually("it is back", lambda: cluster.pid(component, "node-1") not in (0, old))
    kubectl = cluster.kubectl()
    kubectl("create", "deployment", "again", "-n", namespace, "--image=busybox:1.35", "--", "sleep", "60")
    kubectl("rollout", "status", "deployment/again", "-n", namespace, "--timeout=60s")


def test_lost_node_is_drained_and_leaves_the_endpoints(cluster, web: str, eventually: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    kubectl = cluster.kubectl()
    lost = "node-3"
    assert any(p["spec"]["nodeName"] == lost for p in pods(cluster, web))
    cluster.wherry("down", lost)
    try:
        eventually("node-3 is NotReady", lambda: "NotReady" in kubectl("get", "node", lost, "--no-headers"), 60)

        def moved() -> bool:
            live = [p for p in pods(cluster, web) if ready(p)]
            return len(live) == 3 and all(p["spec"]["nodeName"] != lost for p in live)

        eventually("its pods are replaced elsewhere", moved, 60)
        slices = kubectl.json("get", "endpointslices", "-n", web)["items"]
        ends = [e for s in slices for e in s["endpoints"] if e["conditions"].get("ready")]
        assert {e["nodeName"] for e in ends} <= {"node-1", "node-2"}
        assert len({answer(node_url(cluster, web)) for _ in range(30)}) >= 2
    finally:
        cluster.wherry("up", lost)
    eventually("node-3 is Ready again", lambda: " Ready" in kubectl("get", "node", lost, "--no-headers"))
    assert json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
