"""Server-side apply with the real clients: kubectl of two versions and the official Python client."""

import json
from collections.abc import Callable
from typing import Any

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
WITHOUT_REPLICAS = DEPLOYMENT.replace("  replicas: 2\n", "")


@pytest.fixture
def apply(kubectl: Kubectl, ns: str) -> Kubectl:
    def run(text: str, *more: str, ok: bool = True) -> str:
        return kubectl("apply", "--server-side", "-n", ns, "-f", "-", *more, stdin=text, ok=ok)

    return run


@pytest.fixture
def got(kubectl: Kubectl, ns: str) -> Callable[[], Any]:
    return lambda: json.loads(kubectl("get", "deploy", "web", "-n", ns, "-o", "json", "--show-managed-fields"))


def managers(obj: Any) -> set[tuple[str, str]]:
    return {(entry["manager"], entry["operation"]) for entry in obj["metadata"].get("managedFields", ())}


def test_create_again_and_remove_a_field(apply: Kubectl, got: Callable[[], Any]) -> None:
    assert "deployment.apps/web serverside-applied" in apply(DEPLOYMENT)
    first = got()
    assert managers(first) == {("kubectl", "Apply")}
    apply(DEPLOYMENT)
    assert got() == first
    more = DEPLOYMENT.replace("{app: web}}\nspec", "{app: web, tier: front}}\nspec")
    apply(more)
    assert got()["metadata"]["labels"] == {"app": "web", "tier": "front"}
    apply(DEPLOYMENT)
    assert got()["metadata"]["labels"] == {"app": "web"}


def test_two_managers_conflict_and_share(apply: Kubectl, got: Callable[[], Any]) -> None:
    apply(DEPLOYMENT)
    more = DEPLOYMENT.replace("replicas: 2", "replicas: 4")
    said = apply(more, "--field-manager=scaler", ok=False)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas' in said
    assert "--force-conflicts" in said
    assert got()["spec"]["replicas"] == 2
    apply(more, "--field-manager=scaler", "--force-conflicts")
    assert got()["spec"]["replicas"] == 4
    apply(WITHOUT_REPLICAS)  # kubectl lets go: scaler has it alone
    assert got()["spec"]["replicas"] == 4
    assert managers(got()) == {("kubectl", "Apply"), ("scaler", "Apply")}
    apply(WITHOUT_REPLICAS, "--field-manager=scaler")  # nobody wants it: the default
    assert got()["spec"]["replicas"] == 1


def test_scale_takes_the_replicas(kubectl: Kubectl, ns: str, apply: Kubectl, got: Callable[[], Any]) -> None:
    apply(DEPLOYMENT)
    kubectl("scale", "deploy/web", "--replicas=5", "-n", ns)
    said = apply(DEPLOYMENT, ok=False)
    assert 'with subresource "scale"' in said and ".spec.replicas" in said
    apply(WITHOUT_REPLICAS)
    assert got()["spec"]["replicas"] == 5


def test_from_client_side_to_server_side(kubectl: Kubectl, ns: str, apply: Kubectl, got: Callable[[], Any]) -> None:
    with_label = DEPLOYMENT.replace("{app: web}}\nspec", "{app: web, old: x}}\nspec")
    kubectl("apply", "-n", ns, "-f", "-", stdin=with_label)
    assert managers(got()) == {("kubectl-client-side-apply", "Update")}
    apply(DEPLOYMENT.replace("replicas: 2", "replicas: 3"))
    obj = got()
    assert obj["spec"]["replicas"] == 3
    assert obj["metadata"]["labels"] == {"app": "web"}
    assert ("kubectl-client-side-apply", "Update") not in managers(obj)
    back = kubectl("apply", "-n", ns, "-f", "-", stdin=DEPLOYMENT)
    assert "configured" in back
    assert got()["spec"]["replicas"] == 2


def test_diff_and_dry_run(kubectl: Kubectl, ns: str, apply: Kubectl, got: Callable[[], Any]) -> None:
    apply(DEPLOYMENT)
    before = got()
    changed = DEPLOYMENT.replace("replicas: 2", "replicas: 7")
    said = kubectl("diff", "--server-side", "-n", ns, "-f", "-", stdin=changed, ok=False)
    assert "-  replicas: 2" in said and "+  replicas: 7" in said
    assert kubectl("diff", "--server-side", "-n", ns, "-f", "-", stdin=DEPLOYMENT) == ""
    assert "serverside-applied (server dry run)" in apply(changed, "--dry-run=server")
    assert got() == before
    other = kubectl("diff", "--server-side", "--field-manager=x", "-n", ns, "-f", "-", stdin=changed, ok=False)
    assert "conflict with" in other


def test_typos_are_refused(apply: Kubectl) -> None:
    said = apply(DEPLOYMENT.replace("replicas:", "replica:"), ok=False)
    assert "replica" in said and ("field not declared in schema" in said or "unknown field" in said)


def test_what_others_hold_in_a_list(kubectl: Kubectl, ns: str, apply: Kubectl, got: Callable[[], Any]) -> None:
    apply(DEPLOYMENT)
    kubectl("set", "env", "deploy/web", "A=b", "-n", ns)
    kubectl("set", "image", "deploy/web", "c=other", "-n", ns)
    said = apply(DEPLOYMENT, ok=False)
    assert '.spec.template.spec.containers[name="c"].image' in said
    apply(DEPLOYMENT, "--force-conflicts")
    container = got()["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("busybox", [{"name": "A", "value": "b"}])


def test_python_client(server: Any, ns: str) -> None:
    from kubernetes import client, config, dynamic

    api = config.new_client_from_config(str(server.kubeconfig))
    maps = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    made = maps.server_side_apply(body, namespace=ns, field_manager="one").to_dict()
    assert made["metadata"]["managedFields"][0]["fieldsV1"] == {"f:data": {"f:k": {}}}
    other = {**body, "data": {"k": "2"}}
    with pytest.raises(Exception, match="Apply failed with 1 conflict") as raised:
        maps.server_side_apply(other, namespace=ns, field_manager="two")
    assert getattr(raised.value, "status", None) == 409
    maps.server_side_apply(other, namespace=ns, field_manager="two", force_conflicts=True)
    core = client.CoreV1Api(api)
    read = core.read_namespaced_config_map("a", ns)
    assert read.data == {"k": "2"}
    assert [entry.manager for entry in read.metadata.managed_fields] == ["two"]
    read.data = {"k": "3"}
    core.replace_namespaced_config_map("a", ns, read, field_manager="editor")
    left = core.read_namespaced_config_map("a", ns).metadata.managed_fields
    assert [(entry.manager, entry.operation) for entry in left] == [("editor", "Update")]
    api.close()
