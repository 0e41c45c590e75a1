"""Real kubectl against the real server: what people type every day, and that it says what they expect."""

import json
from collections.abc import Callable, Iterator

import pytest

Kubectl = Callable[..., str]

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: busybox, ports: [{containerPort: 80}]}
"""


def test_version_and_discovery(kubectl: Kubectl) -> None:
    assert "Server Version: v1.37" in kubectl("version")
    kinds = kubectl("api-resources")
    for line in ("deployments  deploy  apps/v1  true  Deployment", "pods  po  v1  true  Pod"):
        assert line.split() in [row.split() for row in kinds.splitlines()]
    assert "apps/v1" in kubectl("api-versions").split()
    assert "is running at" in kubectl("cluster-info")


def test_create_get_and_forms(kubectl: Kubectl, ns: str) -> None:
    kubectl("create", "configmap", "c", "--from-literal=k=v", "-n", ns)
    kubectl("create", "secret", "generic", "s", "--from-literal=p=q", "-n", ns)
    kubectl("create", "deployment", "d", "--image=busybox", "--replicas=3", "-n", ns)
    kubectl("create", "service", "clusterip", "svc", "--tcp=80:8080", "-n", ns)
    assert kubectl("get", "cm", "c", "-n", ns, "-o", "name") == "configmap/c\n"
    table = kubectl("get", "deploy", "-n", ns).splitlines()
    assert table[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert table[1].split()[:4] == ["d", "0/3", "0", "0"]
    assert "CONTAINERS" in kubectl("get", "deploy", "-n", ns, "-o", "wide")
    scale = [line.split() for line in kubectl("get", "deploy", "d", "-n", ns, "--subresource=scale").splitlines()]
    assert (scale[0], scale[1][:3]) == (["NAME", "DESIRED", "AVAILABLE", "AGE"], ["d", "3", "0"])
    assert json.loads(kubectl("get", "cm", "c", "-n", ns, "-o", "json"))["data"] == {"k": "v"}
    assert "  k: v" in kubectl("get", "cm", "c", "-n", ns, "-o", "yaml")
    assert kubectl("get", "secret", "s", "-n", ns, "-o", "jsonpath={.data.p}") == "cQ=="
    everything = kubectl("get", "all", "-n", ns)
    assert "deployment.apps/d" in everything and "service/svc" in everything
    assert kubectl("get", "cm", "-A", "--show-labels").split()[:5] == ["NAMESPACE", "NAME", "DATA", "AGE", "LABELS"]
    assert 'configmaps "none" not found' in kubectl("get", "cm", "none", "-n", ns, ok=False)


def test_create_namespace_account_token(kubectl: Kubectl, ns: str) -> None:
    name = f"{ns}-more"
    assert "created" in kubectl("create", "namespace", name)
    assert "AlreadyExists" in kubectl("create", "namespace", name, ok=False)
    kubectl("create", "sa", "robot", "-n", ns)
    token = kubectl("create", "token", "robot", "-n", ns, "--duration=1h").strip()
    assert token.count(".") == 2
    kubectl("create", "role", "r", "--verb=get", "--resource=cm", "-n", ns)
    kubectl("create", "rolebinding", "b", "--role=r", f"--serviceaccount={ns}:robot", "-n", ns)
    assert kubectl("--token", token, "auth", "can-i", "get", "cm", "-n", ns).strip() == "yes"


def test_auth(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "*", "*").strip() == "yes"
    who = kubectl("auth", "whoami")
    assert "kubernetes-admin" in who and "system:masters" in who
    assert "*.*" in kubectl("auth", "can-i", "--list")


def test_apply_twice_then_changes(kubectl: Kubectl, ns: str) -> None:
    apply = ("apply", "-n", ns, "-f", "-")
    assert "created" in kubectl(*apply, stdin=DEPLOYMENT)
    assert "unchanged" in kubectl(*apply, stdin=DEPLOYMENT)
    changed = DEPLOYMENT.replace("replicas: 2", "replicas: 5").replace("labels: {app: web}}\nspec", "labels: {}}\nspec")
    assert "configured" in kubectl(*apply, stdin=changed)
    got = json.loads(kubectl("get", "deploy", "web", "-n", ns, "-o", "json"))
    assert got["spec"]["replicas"] == 5 and "labels" not in got["metadata"] and got["metadata"]["generation"] == 2
    assert "deleted" in kubectl("delete", "-n", ns, "-f", "-", stdin=DEPLOYMENT)


def test_diff(kubectl: Kubectl, ns: str) -> None:
    kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    assert kubectl("diff", "-n", ns, "-f", "-", stdin=DEPLOYMENT) == ""
    shown = kubectl("diff", "-n", ns, "-f", "-", stdin=DEPLOYMENT.replace("replicas: 2", "replicas: 4"), ok=False)
    assert "+  replicas: 4" in shown and "-  replicas: 2" in shown


def test_label_annotate_scale(kubectl: Kubectl, ns: str) -> None:
    kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    kubectl("label", "deploy", "web", "a=b", "-n", ns)
    kubectl("annotate", "deploy", "web", "note=hello", "-n", ns)
    kubectl("label", "deploy", "web", "app-", "-n", ns)
    assert "--overwrite" in kubectl("label", "deploy", "web", "a=c", "-n", ns, ok=False)
    assert "scaled" in kubectl("scale", "deploy", "web", "--replicas=7", "-n", ns)
    assert "Expected replicas" in kubectl(
        "scale", "deploy", "web", "--current-replicas=1", "--replicas=2", "-n", ns, ok=False
    )
    got = json.loads(kubectl("get", "deploy", "web", "-n", ns, "-o", "json"))
    assert got["metadata"]["labels"] == {"a": "b"} and got["metadata"]["annotations"]["note"] == "hello"
    assert got["spec"]["replicas"] == 7
    assert kubectl("get", "deploy", "-l", "a=b", "-n", ns, "-o", "name") == "deployment.apps/web\n"
    assert kubectl("get", "deploy", "-l", "a notin (b)", "-n", ns, "-o", "name") == ""


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("strategic", '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"other"}]}}}}'),
        ("merge", '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"other"}]}}}}'),
        ("json", '[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"other"}]'),
    ],
)
def test_patch(kubectl: Kubectl, ns: str, kind: str, patch: str) -> None:
    kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    assert "patched" in kubectl("patch", "deploy", "web", "-n", ns, "--type", kind, "-p", patch)
    container = json.loads(kubectl("get", "deploy", "web", "-n", ns, "-o", "json"))["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert container["image"] == "other"
    assert ("ports" in container) == (kind != "merge")
    assert "no change" in kubectl("patch", "deploy", "web", "-n", ns, "--type", kind, "-p", patch)


def test_replace_set_edit(kubectl: Kubectl, ns: str) -> None:
    kubectl("create", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    assert "replaced" in kubectl("replace", "-n", ns, "-f", "-", stdin=DEPLOYMENT.replace("busybox", "nginx"))
    assert "updated" in kubectl("set", "image", "deploy/web", "c=apache", "-n", ns)
    assert "updated" in kubectl("set", "env", "deploy/web", "A=1", "-n", ns)
    got = kubectl("get", "deploy", "web", "-n", ns, "-o", "wide")
    assert "apache" in got
    assert "expose" in kubectl("expose", "deploy", "web", "--port=80", "-n", ns) + "expose"
    assert "80/TCP" in kubectl("get", "svc", "web", "-n", ns)


def test_explain(kubectl: Kubectl) -> None:
    assert "FIELDS:" in kubectl("explain", "pod.spec.containers")
    assert "terminationGracePeriodSeconds" in kubectl("explain", "pod", "--recursive")
    assert "VERSION:    v2" in kubectl("explain", "hpa", "--api-version=autoscaling/v2")
    assert "does not exist" in kubectl("explain", "pod.spec.nope", ok=False)


def test_describe(kubectl: Kubectl, ns: str) -> None:
    kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    kubectl("run", "p", "--image=busybox", "-n", ns)
    assert "Replicas:" in kubectl("describe", "deploy", "web", "-n", ns)
    described = kubectl("describe", "pod", "p", "-n", ns)
    assert "Service Account:  default" in described and "QoS Class:" in described
    assert "Status:       Active" in kubectl("describe", "ns", ns)
    assert "Type:" in kubectl("describe", "svc", "kubernetes", "-n", "default")


def test_typo_is_refused(kubectl: Kubectl, ns: str) -> None:
    wrong = DEPLOYMENT.replace("replicas: 2", "replicsa: 2")
    assert 'unknown field "spec.replicsa"' in kubectl("create", "-n", ns, "-f", "-", stdin=wrong, ok=False)
    assert 'unknown field "spec.replicsa"' in kubectl("apply", "-n", ns, "-f", "-", stdin=wrong, ok=False)
    assert "Warning" in kubectl("create", "-n", ns, "--validate=warn", "-f", "-", stdin=wrong)
    assert kubectl("get", "deploy", "-n", ns, "-o", "name").count("deployment") == 1


def test_dry_run_changes_nothing(kubectl: Kubectl, ns: str) -> None:
    assert "(server dry run)" in kubectl("apply", "-n", ns, "--dry-run=server", "-f", "-", stdin=DEPLOYMENT)
    assert kubectl("get", "deploy", "-n", ns, "-o", "name") == ""
    kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    kubectl("scale", "deploy", "web", "--replicas=9", "--dry-run=server", "-n", ns)
    kubectl("delete", "deploy", "web", "--dry-run=server", "-n", ns)
    assert kubectl("get", "deploy", "web", "-n", ns, "-o", "jsonpath={.spec.replicas}") == "2"


def test_chunks_sorting_fields(kubectl: Kubectl, ns: str) -> None:
    many = "\n---\n".join(
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{i:02}, labels: {{n: '{i}'}}}}" for i in range(23)
    )
    kubectl("create", "-n", ns, "-f", "-", stdin=many)
    listed = kubectl("get", "cm", "-n", ns, "--chunk-size=5", "-o", "name").splitlines()
    assert listed == [f"configmap/c{i:02}" for i in range(23)]
    assert len(kubectl("get", "cm", "-n", ns, "--chunk-size=5").splitlines()) == 24
    assert kubectl("get", "cm", "-n", ns, "--field-selector=metadata.name=c07", "-o", "name") == "configmap/c07\n"
    assert "c07" not in kubectl("get", "cm", "-n", ns, "--field-selector=metadata.name!=c07", "-o", "name")
    assert "field label not supported: spec.x" in kubectl("get", "po", "-n", ns, "--field-selector=spec.x=1", ok=False)
    told = kubectl("get", "cm", "-n", ns, "--field-selector=data.x=1", ok=False)
    assert '"data.x" is not a known field selector: only "metadata.name", "metadata.namespace"' in told
    assert kubectl("delete", "cm", "--all", "-n", ns).count("deleted") == 23


def test_wait(kubectl: Kubectl, ns: str) -> None:
    kubectl("run", "p", "--image=busybox", "-n", ns)
    kubectl("wait", "pod/p", "--for=jsonpath={.status.phase}=Pending", "--timeout=10s", "-n", ns)
    assert "timed out" in kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=1s", "-n", ns, ok=False)
    kubectl("delete", "pod", "p", "-n", ns)
    kubectl("wait", "pod/p", "--for=delete", "--timeout=10s", "-n", ns)


def test_force_and_events(kubectl: Kubectl, ns: str) -> None:
    kubectl("run", "p", "--image=busybox", "-n", ns)
    assert "force deleted" in kubectl("delete", "pod", "p", "--force", "--grace-period=0", "-n", ns)
    assert "No events found" in kubectl("events", "-n", ns)
    assert "No resources found" in kubectl("get", "events", "-n", ns)


def test_server_side_apply(kubectl: Kubectl, ns: str) -> None:
    assert "serverside-applied" in kubectl("apply", "--server-side", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    assert "serverside-applied" in kubectl("apply", "--server-side", "-n", ns, "-f", "-", stdin=DEPLOYMENT)


def test_get_watch(kubectl: Kubectl, ns: str, watching: Callable[..., Iterator[str]]) -> None:
    kubectl("create", "cm", "a", "-n", ns)
    lines = watching("get", "cm", "-n", ns, "-w")
    assert next(lines).split()[:3] == ["NAME", "DATA", "AGE"]
    assert next(lines).split()[:2] == ["a", "0"]
    kubectl("create", "cm", "b", "--from-literal=x=y", "-n", ns)
    assert next(lines).split()[:2] == ["b", "1"]
    kubectl("delete", "cm", "b", "-n", ns)
    assert next(lines).split()[:2] == ["b", "1"]


def test_a_list_in_a_file(kubectl: Kubectl, ns: str) -> None:
    """kubectl checks `kind: List` files by the OpenAPI v2 document, in protobuf."""
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{i}"}} for i in range(3)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert kubectl("apply", "-n", ns, "-f", "-", stdin=text).count("created") == 3


def test_acting_as_somebody_else(kubectl: Kubectl, ns: str) -> None:
    kubectl("create", "role", "reader", "-n", ns, "--verb=get,list", "--resource=configmaps")
    kubectl("create", "rolebinding", "reader", "-n", ns, "--role=reader", "--user=jane")
    assert kubectl("auth", "can-i", "list", "configmaps", "-n", ns, "--as=jane").strip() == "yes"
    assert kubectl("auth", "can-i", "list", "secrets", "-n", ns, "--as=jane", ok=False).strip() == "no"
    assert "No resources found" in kubectl("get", "configmaps", "-n", ns, "--as=jane")
    said = kubectl("get", "secrets", "-n", ns, "--as=jane", ok=False)
    assert 'User "jane" cannot list resource "secrets" in API group "" in the namespace' in said
    binding = ("create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", "--user=jane", "--as=jane")
    assert "forbidden" in kubectl(*binding, ok=False)


def test_a_namespace_ends_when_it_is_finalized(kubectl: Kubectl, ns: str) -> None:
    kubectl("delete", "namespace", ns, "--wait=false")
    current = json.loads(kubectl("get", "namespace", ns, "-o", "json"))
    assert current["status"]["phase"] == "Terminating"
    assert "because it is being terminated" in kubectl("create", "configmap", "late", "-n", ns, ok=False)
    current["spec"]["finalizers"] = []
    kubectl("replace", "--raw", f"/api/v1/namespaces/{ns}/finalize", "-f", "-", stdin=json.dumps(current))
    assert "NotFound" in kubectl("get", "namespace", ns, ok=False)


def test_other_generators(kubectl: Kubectl, ns: str) -> None:
    kubectl("create", "service", "nodeport", "n", "--tcp=80:80", "-n", ns)
    kubectl("create", "job", "j", "--image=example", "-n", ns, "--", "true")
    kubectl("create", "cronjob", "cj", "--image=example", "--schedule=*/5 * * * *", "-n", ns, "--", "true")
    kubectl("create", "quota", "q", "--hard=pods=5", "-n", ns)
    kubectl("create", "poddisruptionbudget", "p", "--selector=app=d", "--min-available=1", "-n", ns)
    kubectl("create", "ingress", "i", "--rule=example.org/c=web:80", "-n", ns)
    kubectl("create", "deployment", "d", "--image=example", "-n", ns)
    kubectl("autoscale", "deployment", "d", "--max=3", "-n", ns)
    everything = kubectl("get", "all", "-o", "name", "-n", ns).split()
    assert {"service/n", "job.batch/j", "cronjob.batch/cj", "horizontalpodautoscaler.autoscaling/d"} <= set(everything)


def test_impersonation(kubectl: Kubectl, ns: str) -> None:
    robot = ("--as", f"system:serviceaccount:{ns}:default", "-n", ns)
    assert kubectl("auth", "can-i", "get", "cm", *robot, ok=False).strip() == "no"
    assert "Forbidden" in kubectl("get", "cm", *robot, ok=False)
    assert f"system:serviceaccount:{ns}:default" in kubectl("auth", "whoami", *robot[:2])
    assert kubectl("get", "cm", "--as", "jane", "--as-group", "system:masters", "-n", ns).startswith("No resources")


def test_component_statuses(kubectl: Kubectl) -> None:
    told = kubectl("get", "cs")
    assert "Warning: v1 ComponentStatus is deprecated in v1.19+" in told
    assert ["etcd-0", "Healthy", "ok"] in [line.split() for line in told.splitlines()]
