"""The network model's promises: pods see each other's own addresses, Services reach every replica."""

import json
import ssl
import urllib.request

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SERVER = {
    "name": "web",
    "image": "busybox:1.35",
    "command": ["sh", "-c", "mkdir /www && hostname > /www/index.html && exec httpd -f -vv -p 8080 -h /www"],
    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
}


def pod(name: str, node: str) -> dict:  # type: ignore[type-arg]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [SERVER]},
    }


@pytest.fixture
def three(cluster, namespace: str) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """A pod on each node: name -> address."""
    kubectl = cluster.kubectl()
    items = [pod(f"web-{i}", f"node-{i}") for i in (1, 2, 3)]
    listing = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("apply", "-n", namespace, "-f", "-", stdin=listing)
    kubectl("wait", "pod", "-n", namespace, "--all", "--for=condition=Ready", "--timeout=30s")
    return {p["metadata"]["name"]: p["status"]["podIP"] for p in kubectl.json("get", "pods", "-n", namespace)["items"]}


def test_pods_reach_pods_and_nodes_without_translation(cluster, namespace: str, three, eventually) -> None:  # type: ignore[no-untyped-def]
    kubectl = cluster.kubectl()
    for name, address in three.items():
        for other, target in three.items():
            got = kubectl("exec", name, "-n", namespace, "--", "wget", "-q", "-O", "-", f"http://{target}:8080/?{name}")
            assert got.strip() == other
            eventually(
                f"{other} saw {name} as {address}",
                lambda o=other, a=address: f"[::ffff:{a}]:" in kubectl("logs", o, "-n", namespace),
            )
        for node in (1, 2, 3):
            reached = kubectl.run("exec", name, "-n", namespace, "--", "nc", "-w", "2", f"10.77.0.{10 + node}", "10250")
            assert reached.returncode == 0


def test_service_reaches_every_pod_also_itself(cluster, namespace: str, three, eventually) -> None:  # type: ignore[no-untyped-def]
    kubectl = cluster.kubectl()
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(service))
    live = kubectl.json("get", "svc", "web", "-n", namespace)["spec"]
    address, port = live["clusterIP"], live["ports"][0]["nodePort"]
    everyone = set(three)
    for name in three:  # from inside, also to itself: hairpin
        seen: set[str] = set()

        def through_cluster_ip(n: str = name, seen: set[str] = seen) -> bool:
            script = f"for i in 1 2 3 4 5 6 7 8; do timeout 3 wget -q -O - http://{address}/; done"
            seen |= set(kubectl("exec", n, "-n", namespace, "--", "sh", "-c", script).split())
            return seen == everyone

        eventually(f"{name} reaches all through {address}", through_cluster_ip)
    for node in (1, 2, 3):
        answers: set[str] = set()

        def through_node_port(n: int = node, answers: set[str] = answers) -> bool:
            with urllib.request.urlopen(f"http://10.77.0.{10 + n}:{port}/", timeout=3) as response:
                answers.add(response.read().decode().strip())
            return answers == everyone

        eventually(f"node-{node} forwards to all", through_node_port)
    kubectl("delete", "pod", "web-3", "-n", namespace, "--wait=true")
    eventually(
        "the deleted pod leaves the endpoints",
        lambda: "web-3" not in kubectl("get", "endpointslices", "-n", namespace, "-o", "yaml"),
    )


def test_a_pods_token_is_its_service_account(cluster, namespace: str, three) -> None:  # type: ignore[no-untyped-def]
    kubectl = cluster.kubectl()
    mounted = "/var/run/secrets/kubernetes.io/serviceaccount"

    def read(name: str) -> str:
        return kubectl("exec", "web-1", "-n", namespace, "--", "cat", f"{mounted}/{name}")

    assert read("namespace") == namespace
    context = ssl.create_default_context(cadata=read("ca.crt"))

    def ask(path: str) -> tuple[int, dict]:  # type: ignore[type-arg]
        request = urllib.request.Request(cluster.api + path, headers={"Authorization": f"Bearer {read('token')}"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    assert ask("/api")[0] == 200
    code, refused = ask(f"/api/v1/namespaces/{namespace}/secrets")
    assert (code, refused["reason"]) == (403, "Forbidden")
    assert f"system:serviceaccount:{namespace}:default" in refused["message"]
    environment = kubectl("exec", "web-1", "-n", namespace, "--", "env")
    assert "KUBERNETES_SERVICE_HOST=10.96.0.1" in environment
