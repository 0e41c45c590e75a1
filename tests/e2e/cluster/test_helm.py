"""Helm 3 and 4 with the chart that `helm create` writes, and a kind of its own, on a real cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.root]

BIN = Path(sys.executable).parent
HELMS = [p for v in ("helm-3", "helm-4") for d in (BIN, BIN.parent) if (p := d / "clients" / v).exists()]
VALUES = "image: {repository: busybox, tag: '1.35'}\n"
SERVE = '["sh", "-c", "mkdir -p /w && echo fine > /w/index.html && exec httpd -f -p 80 -h /w"]'
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.%(group)s}
spec:
  group: %(group)s
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
"""
WIDGET = """
apiVersion: %(group)s/v1
kind: Widget
metadata: {name: {{ .Release.Name }}}
spec: {size: {{ .Values.replicaCount }}}
"""
HOOK = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "busybox:1.35", command: [echo, ready]}]
"""

Helm = Callable[..., str]


@pytest.fixture(params=HELMS, ids=lambda path: path.name)
def helm(request: pytest.FixtureRequest, cluster: Any, namespace: str, tmp_path: Path) -> Helm:
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(tmp_path)}

    def run(*arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            [str(request.param), *arguments, "-n", namespace], env=environment, capture_output=True, text=True,
            timeout=90, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


@pytest.fixture
def chart(helm: Helm, namespace: str, tmp_path: Path) -> str:
    """helm's own, with an image that is here; its test asks the Service by address, since names need a DNS."""
    helm("create", "app")
    folder = tmp_path / "app"
    template = folder / "templates" / "deployment.yaml"
    template.write_text(
        template.read_text().replace("          ports:", f"          command: {SERVE}\n          ports:", 1)
    )
    probe = folder / "templates" / "tests" / "test-connection.yaml"
    text = (
        probe.read_text().replace("image: busybox", "image: busybox:1.35").replace("command: ['wget']", "command: [sh]")
    )
    arguments = "args: [-c, 'wget -qO- http://$APP_SERVICE_HOST:80 | grep fine']"
    probe.write_text("\n".join(f"      {arguments}" if "args:" in line else line for line in text.splitlines()))
    group = {"group": f"{namespace}.example.com"}
    (folder / "crds").mkdir()
    (folder / "crds" / "widgets.yaml").write_text(CRD % group)
    (folder / "templates" / "widget.yaml").write_text(WIDGET % group)
    (folder / "templates" / "hook.yaml").write_text(HOOK)
    (tmp_path / "values.yaml").write_text(VALUES)
    return "app"


def test_life_of_a_release(helm: Helm, chart: str, cluster: Any, namespace: str) -> None:
    kubectl = cluster.kubectl()
    n, widgets = ("-n", namespace), f"widgets.{namespace}.example.com"
    with_values = ("-f", "values.yaml", "--timeout", "60s")
    assert "0 chart(s) failed" in helm("lint", chart)
    told = helm("install", "app", chart, *with_values, "--dry-run=server", "--skip-crds", ok=False)
    assert "ensure CRDs are installed first" in told
    told = helm("install", "app", chart, *with_values, "--wait")
    assert "STATUS: deployed" in told
    deploy = kubectl.json("get", "deploy", "app", *n)
    assert deploy["status"]["readyReplicas"] == 1, "install --wait returned before the pods were ready"
    assert kubectl.json("get", "job", "app-before", *n)["status"]["succeeded"] == 1
    assert "MANIFEST:" in helm("upgrade", "app", chart, *with_values, "--set", "replicaCount=2", "--dry-run=server")
    helm("upgrade", "app", chart, *with_values, "--set", "replicaCount=2", "--wait")
    assert kubectl.json("get", widgets, "app", *n)["spec"]["size"] == 2
    told = helm("upgrade", "app", chart, *with_values, "--set", "service.port=99999", ok=False)
    assert "spec.ports[0].port: Invalid value: 99999" in told
    helm("rollback", "app", "1", "--wait", "--timeout", "60s")
    assert kubectl.json("get", "deploy", "app", *n)["spec"]["replicas"] == 1
    history = json.loads(helm("history", "app", "-o", "json"))
    assert [each["status"] for each in history] == ["superseded", "superseded", "failed", "deployed"]
    assert "Phase:          Succeeded" in helm("test", "app", "--timeout", "60s", "--logs")
    assert [each["name"] for each in json.loads(helm("list", "-o", "json"))] == ["app"]
    helm("uninstall", "app", "--wait", "--timeout", "60s")
    left = kubectl("get", f"deploy,svc,sa,{widgets}", *n, "-o", "name").split()
    assert left == ["serviceaccount/default"]
    assert json.loads(helm("list", "-o", "json")) == []


def test_a_release_is_taken_back(helm: Helm, chart: str, cluster: Any, namespace: str) -> None:
    """It never becomes ready: there is no such image."""
    told = helm("upgrade", "--install", "app", chart, "-f", "values.yaml", "--set", "image.tag=none", "--atomic",
                "--timeout", "4s", ok=False)  # fmt: skip
    assert "has been uninstalled" in told
    assert "deployment" not in cluster.kubectl()("get", "deploy,svc", "-n", namespace, "-o", "name")
