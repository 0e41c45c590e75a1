"""Real kubectl: everything that makes and changes objects, against the server alone (what needs a node is in e2e)."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kubectl = Callable[..., str]

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, set: one}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: busybox, ports: [{containerPort: 80}]}
"""


@pytest.fixture
def web(kubectl: Kubectl, ns: str) -> str:
    kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    return ns


@pytest.fixture
def read(kubectl: Kubectl, ns: str) -> Callable[..., Any]:
    return lambda *what: json.loads(kubectl("get", *what, "-n", ns, "-o", "json"))


def test_generators_of_settings(kubectl: Kubectl, read: Any, ns: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "env").write_text("# of this\nA=1\nB=two words\n")
    sources = [f"--from-file={tmp_path / 'text'}", f"--from-file=named={tmp_path / 'bytes'}", "--from-literal=k=v"]
    kubectl("create", "configmap", "files", *sources, "-n", ns)
    made = read("cm", "files")
    assert made["data"] == {"text": "some text\n", "k": "v"}
    assert base64.b64decode(made["binaryData"]["named"]) == b"\xff\xfe\x00"
    kubectl("create", "configmap", "env", f"--from-env-file={tmp_path / 'env'}", "-n", ns)
    assert read("cm", "env")["data"] == {"A": "1", "B": "two words"}
    kubectl("create", "secret", "generic", "g", *sources, "--type=example.org/own", "-n", ns)
    assert (read("secret", "g")["type"], base64.b64decode(read("secret", "g")["data"]["k"])) == (
        "example.org/own",
        b"v",
    )
    login = ["--docker-username=u", "--docker-password=p", "--docker-server=r.example.org"]
    kubectl("create", "secret", "docker-registry", "login", *login, "-n", ns)
    config = json.loads(base64.b64decode(read("secret", "login")["data"][".dockerconfigjson"]))
    assert config["auths"]["r.example.org"]["auth"] == base64.b64encode(b"u:p").decode()


def test_generator_of_certificates(kubectl: Kubectl, read: Any, server: Any, ns: str, tmp_path: Path) -> None:
    pem = server.layout.identity("apiserver")
    kubectl("create", "secret", "tls", "t", f"--cert={pem}", f"--key={pem}", "-n", ns)
    assert (read("secret", "t")["type"], sorted(read("secret", "t")["data"])) == (
        "kubernetes.io/tls",
        ["tls.crt", "tls.key"],
    )


def test_generators_of_rights(kubectl: Kubectl, read: Any, ns: str) -> None:
    kubectl("create", "clusterrole", f"{ns}-a", "--verb=get,list", "--resource=pods,deployments.apps,pods/log")
    assert read("clusterrole", f"{ns}-a")["rules"] == [
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
        {"verbs": ["get", "list"], "apiGroups": ["apps"], "resources": ["deployments"]},
    ]
    kubectl("create", "clusterrole", f"{ns}-b", "--verb=get", "--non-resource-url=/logs/*")
    kubectl("create", "clusterrole", f"{ns}-c", "--aggregation-rule=a=b")
    kubectl("create", "clusterrolebinding", f"{ns}-a", f"--clusterrole={ns}-a", "--user=jane", "--group=staff")
    kubectl("create", "role", "r", "--verb=get", "--resource=cm", "--resource-name=one", "-n", ns)
    kubectl("create", "serviceaccount", "robot", "-n", ns)
    kubectl("create", "rolebinding", "r", "--role=r", f"--serviceaccount={ns}:robot", "-n", ns)
    robot = f"--as=system:serviceaccount:{ns}:robot"
    assert kubectl("auth", "can-i", "get", "cm/one", robot, "-n", ns).strip() == "yes"
    assert kubectl("auth", "can-i", "get", "cm/two", robot, "-n", ns, ok=False).strip() == "no"
    listed = [line.split() for line in kubectl("auth", "can-i", "--list", robot, "-n", ns).splitlines()]
    assert ["configmaps", "[]", "[one]", "[get]"] in listed
    kubectl("set", "subject", "rolebinding", "r", "--user=b", "--group=c", "-n", ns)
    assert {(s["kind"], s["name"]) for s in read("rolebinding", "r")["subjects"]} == {
        ("ServiceAccount", "robot"), ("User", "b"), ("Group", "c"),
    }  # fmt: skip


def test_generators_of_services_and_the_rest(kubectl: Kubectl, read: Any, ns: str) -> None:
    kubectl("create", "service", "clusterip", "headless", "--clusterip=None", "-n", ns)
    kubectl("create", "service", "loadbalancer", "lb", "--tcp=80", "-n", ns)
    kubectl("create", "service", "externalname", "out", "--external-name=example.org", "-n", ns)
    rows = [line.split() for line in kubectl("get", "svc", "-n", ns, "--no-headers").splitlines()]
    assert [row[:4] for row in rows] == [
        ["headless", "ClusterIP", "None", "<none>"],
        ["lb", "LoadBalancer", rows[1][2], "<pending>"],
        ["out", "ExternalName", "<none>", "example.org"],
    ]
    kubectl("create", "priorityclass", f"{ns}-high", "--value=1000", "--description=first", "--preemption-policy=Never")
    assert read("priorityclass", f"{ns}-high")["preemptionPolicy"] == "Never"
    kubectl("create", "quota", "q", "--hard=cpu=1,pods=2", "--scopes=NotTerminating", "-n", ns)
    kubectl("create", "pdb", "p", "--selector=a=b", "--max-unavailable=50%", "-n", ns)
    assert read("pdb", "p")["spec"]["maxUnavailable"] == "50%"
    rules = ["--rule=a.example.org/*=web:80,tls=cert", "--rule=b.example.org/x=web:http", "--default-backend=web:80"]
    kubectl("create", "ingress", "i", *rules, "--class=nginx", "-n", ns)
    assert [rule["http"]["paths"][0]["pathType"] for rule in read("ingress", "i")["spec"]["rules"]] == [
        "Prefix", "Exact",
    ]  # fmt: skip
    kubectl("create", "cronjob", "c", "--image=example", "--schedule=0 * * * *", "-n", ns, "--", "true")
    kubectl("create", "job", "j", "--from=cronjob/c", "-n", ns)
    job = read("job", "j")
    assert job["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}}
    token = kubectl("create", "token", "default", "-n", ns, "--audience=there", "--duration=10m").split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(token + "=="))["aud"] == ["there"]


def test_prune(kubectl: Kubectl, ns: str) -> None:
    def config_map(name: str) -> str:
        return f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: one}}}}\n"

    apply = ("apply", "-n", ns, "-f", "-", "--prune", "-l", "set=one", "--prune-allowlist=core/v1/ConfigMap")
    kubectl(*apply, stdin=config_map("a") + config_map("b"))
    assert "configmap/b pruned" in kubectl(*apply, stdin=config_map("a"))
    with_set = ("apply", "-n", ns, "-f", "-", "--prune", "--applyset=mine", "--server-side", "--force-conflicts")
    kubectl(*with_set, stdin=config_map("c") + config_map("d"), KUBECTL_APPLYSET="true")
    assert "configmap/d pruned" in kubectl(*with_set, stdin=config_map("c"), KUBECTL_APPLYSET="true")
    assert kubectl("get", "cm", "-n", ns, "-o", "name").split() == ["configmap/a", "configmap/c"]


def test_kustomize(kubectl: Kubectl, ns: str, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(DEPLOYMENT)
    (tmp_path / "kustomization.yaml").write_text(
        f"namespace: {ns}\nresources: [web.yaml]\nnamePrefix: my-\nimages: [{{name: busybox, newTag: '2'}}]\n"
        "configMapGenerator: [{name: conf, literals: [a=b]}]\n"
    )
    assert "name: my-web" in kubectl("kustomize", str(tmp_path))
    assert kubectl("apply", "-k", str(tmp_path)).count("created") == 2
    assert kubectl("diff", "-k", str(tmp_path)) == ""
    assert kubectl("get", "deploy", "-n", ns, "-o", "jsonpath={..image}") == "busybox:2"
    assert kubectl("delete", "-k", str(tmp_path)).count("deleted") == 2


def test_server_side_conflicts_and_diff(kubectl: Kubectl, web: str) -> None:
    more = DEPLOYMENT.replace("replicas: 2", "replicas: 3")
    apply = ("apply", "-n", web, "-f", "-", "--server-side", "--field-manager=second")
    told = kubectl(*apply, stdin=more, ok=False)
    assert 'conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas' in told
    shown = kubectl("diff", "--server-side", "--force-conflicts", "-n", web, "-f", "-", stdin=more, ok=False)
    assert "+  replicas: 3" in shown
    kubectl(*apply, "--force-conflicts", stdin=more)
    assert kubectl("get", "deploy", "web", "-n", web, "-o", "jsonpath={.spec.replicas}") == "3"


def test_server_side_after_client_side(kubectl: Kubectl, web: str) -> None:
    """kubectl hands over what it owned by `apply`: fields that leave the file leave the object."""
    fewer = DEPLOYMENT.replace(", set: one", "")
    kubectl("apply", "-n", web, "-f", "-", "--server-side", stdin=fewer)
    got = json.loads(kubectl("get", "deploy", "web", "-n", web, "-o", "json", "--show-managed-fields"))
    assert got["metadata"]["labels"] == {"app": "web"}
    assert {(each["manager"], each["operation"]) for each in got["metadata"]["managedFields"]} == {
        ("kubectl", "Apply"), ("kubectl-last-applied", "Apply"),
    }  # fmt: skip
    assert "set: one" not in kubectl("apply", "view-last-applied", "deploy/web", "-n", web, "-o", "yaml")
    assert "configured" in kubectl("apply", "-n", web, "-f", "-", stdin=fewer.replace("replicas: 2", "replicas: 1"))


def test_edit(kubectl: Kubectl, web: str, tmp_path: Path) -> None:
    def editor(sed: str) -> dict[str, str]:
        script = tmp_path / "editor"
        script.write_text(f'#!/bin/sh\nexec sed -i "{sed}" "$1"\n')
        script.chmod(0o755)
        return {"EDITOR": str(script)}

    edit = ("edit", "deploy", "web", "-n", web)
    assert "edited" in kubectl(*edit, **editor("s/replicas: 2/replicas: 4/"))
    assert "no changes made" in kubectl(*edit, **editor("s/nothing/else/"))
    told = kubectl(*edit, **editor("s/protocol: TCP/protocol: NONE/"), ok=False)
    assert "is invalid" in told and "copy of your changes has been stored" in told
    assert "edited" in kubectl(*edit, "--subresource=status", **editor(r"$ a status: {replicas: 7}"))
    got = kubectl("get", "deploy", "web", "-n", web, "-o", "jsonpath={.spec.replicas} {.status.replicas}")
    assert got == "4 7"


def test_replace(kubectl: Kubectl, web: str) -> None:
    before = kubectl("get", "deploy", "web", "-n", web, "-o", "jsonpath={.metadata.uid}")
    kubectl("replace", "-n", web, "-f", "-", stdin=DEPLOYMENT.replace("busybox", "other"))
    assert kubectl("get", "deploy", "web", "-n", web, "-o", "jsonpath={.metadata.uid} {..image}") == f"{before} other"
    told = kubectl("replace", "--force", "-n", web, "-f", "-", stdin=DEPLOYMENT)
    assert "deleted" in told and "replaced" in told
    assert kubectl("get", "deploy", "web", "-n", web, "-o", "jsonpath={.metadata.uid}") != before
    stale = DEPLOYMENT.replace("name: web,", "name: web, resourceVersion: '1',")
    assert "the object has been modified" in kubectl("replace", "-n", web, "-f", "-", stdin=stale, ok=False)


def test_set(kubectl: Kubectl, web: str) -> None:
    kubectl("create", "cm", "settings", "--from-literal=COLOUR=red", "-n", web)
    deploy = ("deploy", "web", "-n", web)
    assert "(server dry run)" in kubectl("set", "image", *deploy, "c=other", "--dry-run=server")
    kubectl("set", "env", *deploy, "--from=configmap/settings", "A=1")
    kubectl("set", "resources", *deploy, "-c=c", "--limits=cpu=200m,memory=64Mi", "--requests=cpu=10m")
    kubectl("set", "serviceaccount", *deploy, "default")
    spec = json.loads(kubectl("get", *deploy, "-o", "json"))["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert (container["image"], container["resources"]["limits"], spec["serviceAccountName"]) == (
        "busybox", {"cpu": "200m", "memory": "64Mi"}, "default",
    )  # fmt: skip
    assert {each["name"] for each in container["env"]} == {"COLOUR", "A"}
    assert "A=1" in kubectl("set", "env", *deploy, "--list")
    kubectl("expose", *deploy, "--port=80", "--target-port=8080", "--type=NodePort", "--name=out")
    kubectl("set", "selector", "svc", "out", "app=other", "-n", web)
    service = json.loads(kubectl("get", "svc", "out", "-n", web, "-o", "json"))["spec"]
    assert (service["selector"], service["ports"][0]["targetPort"]) == ({"app": "other"}, 8080)
    kubectl("autoscale", *deploy, "--min=2", "--max=5", "--cpu-percent=70")
    assert "70%" in kubectl("get", "hpa", "web", "-n", web)
    kubectl("rollout", "pause", *deploy)
    assert "already paused" in kubectl("rollout", "pause", *deploy, ok=False)
    kubectl("rollout", "resume", *deploy)


def test_refused_changes(kubectl: Kubectl, web: str) -> None:
    deploy = ("deploy", "web", "-n", web)
    test = '[{"op":"test","path":"/spec/replicas","value":9}]'
    assert "testing path /spec/replicas failed" in kubectl("patch", *deploy, "--type=json", "-p", test, ok=False)
    assert "cannot unmarshal string" in kubectl("patch", *deploy, "-p", '{"spec":{"replicas":"x"}}', ok=False)
    assert "the object has been modified" in kubectl("label", *deploy, "a=b", "--resource-version=1", ok=False)
    assert "field is immutable" in kubectl("patch", *deploy, "-p", '{"spec":{"selector":{"matchLabels":{"b":"c"}}}}',
                                           ok=False)  # fmt: skip
    kubectl("patch", *deploy, "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":6}}')
    assert kubectl("get", *deploy, "-o", "jsonpath={.spec.replicas}") == "6"
